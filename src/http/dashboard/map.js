// The cluster as this server sees it: itself in the middle, the others around it, a line for each connection. Drawn for
// the width there is; the same facts stand in the list of servers, which screen readers get instead. Used by overview.js.

import { el, foreignText, svg } from './dom.js';
import { count, span } from './words.js';
import { silentFor } from './verdict.js';

/** Characters of a name in one line, and lines; the rest is in the list below and in the title. */
const LINE_MAX = 22;
const LINE_MAX_NARROW = 17;
const LINES = 4;

/** Below this width the servers stand in rows. */
const NARROW = 480;

/** How a peer is, in a level and a few words. */
export function standing(peer) {
  if (peer.state !== 'connected') {
    const silent = silentFor(peer);
    return { level: 'trouble', words: silent === null ? 'never seen' : `cut off ${span(silent)}`, line: 'away' };
  }
  if (peer.content?.state === 'differs') return { level: 'trouble', words: 'shows other rows', line: 'well' };
  if (peer.behind > 0) return { level: 'busy', words: `we lack ${count(peer.behind, 'event')}`, line: 'busy' };
  if (peer.ahead > 0) return { level: 'busy', words: `lacks ${count(peer.ahead, 'event')}`, line: 'busy' };
  return { level: 'well', words: 'in step', line: 'well' };
}

/** A name in lines, broken where it has a blank or a hyphen, else where the line is full. */
export function nameLines(name, most = LINE_MAX) {
  let rest = Array.from(foreignText(name));
  const lines = [];
  while (rest.length > most && lines.length < LINES - 1) {
    const head = rest.slice(0, most).join('');
    const at = Math.max(head.lastIndexOf(' '), head.lastIndexOf('-')) + 1;
    const cut = at > most / 3 ? at : most;
    lines.push(rest.slice(0, cut).join('').trim());
    rest = rest.slice(cut);
  }
  lines.push(rest.length > most ? `${rest.slice(0, most - 1).join('')}…` : rest.join(''));
  return lines;
}

const MARKS = { well: 'M-4.5 .5-1.2 4 5-3.6', busy: 'M0-4.5V.4L3.2 2.6', trouble: 'M-3.6-3.6 3.6 3.6M3.6-3.6-3.6 3.6', own: 'M0 0' };

function place(x, y, level, [name, lines], words, own) {
  const shape = level === 'trouble'
    ? svg('rect', { x: -13, y: -13, width: 26, height: 26, rx: 5 })
    : svg('circle', { r: own ? 18 : 14 });
  shape.setAttribute('class', `map-dot ${own ? 'own' : level}`);
  const mark = svg('path', { d: own ? MARKS.own : MARKS[level], class: `map-mark ${level}` });
  const top = own ? 37 : 31;
  const label = svg('text', { y: top, class: 'map-name' }, lines.map((line, at) => svg('tspan', { x: 0, y: top + 16 * at }, line)));
  label.setAttribute('unicode-bidi', 'isolate');
  return svg('g', { transform: `translate(${x} ${y})` }, svg('title', {}, foreignText(name)), shape, mark, label, svg('text', { y: top + 16 * lines.length, class: `map-words ${level}` }, words));
}

/** Where the others stand, with this server at `own`: a row for one or two, a ring for more, rows below it where it is narrow. */
function layout(peers, width, extra) {
  if (width < NARROW) {
    const rows = Math.ceil(peers / 2);
    const spot = (at) => {
      const alone = at === peers - 1 && peers % 2 === 1;
      return [alone ? width / 2 : width * (at % 2 ? 0.75 : 0.25), 128 + extra + (92 + extra) * Math.floor(at / 2)];
    };
    return { own: [width / 2, 28], height: peers === 0 ? 96 + extra : 96 + extra + (92 + extra) * rows, spots: Array.from({ length: peers }, (_, at) => spot(at)) };
  }
  const reach = Math.min(width / 2 - 90, 320);
  if (peers <= 2) return { own: [width / 2, 32], height: 100 + extra, spots: [[width / 2 - reach, 32], [width / 2 + reach, 32]].slice(0, peers) };
  const [height, tall] = [peers > 6 ? 340 : 280, peers > 6 ? 118 : 88];
  const spots = Array.from({ length: peers }, (_, at) => {
    const angle = -Math.PI / 2 + (2 * Math.PI * (at + 0.5)) / peers;
    return [width / 2 + reach * Math.cos(angle), height / 2 - 14 + tall * Math.sin(angle)];
  });
  return { own: [width / 2, height / 2 - 14], height: height + extra, spots };
}

function draw(status, width) {
  const named = (one) => [one.name, nameLines(one.name, width < NARROW ? LINE_MAX_NARROW : LINE_MAX)];
  const tallest = Math.max(...[status.node, ...status.peers].map((one) => named(one)[1].length));
  const { own: [cx, cy], height, spots } = layout(status.peers.length, width, 16 * (tallest - 1));
  const lines = [];
  const dots = [];
  status.peers.forEach((peer, at) => {
    const [x, y] = spots[at];
    const stands = standing(peer);
    lines.push(svg('line', { x1: cx, y1: cy, x2: x, y2: y, class: `map-line ${stands.line}` }));
    dots.push(place(x, y, stands.level, named(peer), stands.words, false));
  });
  return svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, class: 'map', 'aria-hidden': 'true', focusable: 'false' },
    lines, dots, place(cx, cy, 'own', named(status.node), 'this server', true));
}

/** A place that shows the map and follows its width; gives the function that draws it anew. */
export function mapOf() {
  const frame = el('div', { class: 'map-frame' });
  let status = null;
  let shown = '';
  const again = () => {
    const width = Math.floor(frame.clientWidth);
    if (!status || width < 100) return;
    const now = JSON.stringify([width, status.node.name, status.peers.map((peer) => [peer.name, standing(peer)])]);
    if (now === shown) return;
    shown = now;
    frame.replaceChildren(draw(status, width));
  };
  const observer = new ResizeObserver(again);
  observer.observe(frame);
  return {
    frame,
    update(now) {
      status = now;
      again();
    },
    leave: () => observer.disconnect(),
  };
}
