// The cluster as this server sees it: itself in the middle, the others around it, a line for each connection. Drawn for
// the width there is; the same facts stand in the list of servers, which screen readers get instead. Used by overview.js.

import { el, foreignText, svg } from './dom.js';
import { count, span } from './words.js';
import { silentFor } from './verdict.js';

/** About so wide is a character of a name, and so high are a mark and its words. */
const LETTER = 7.5;
const MARK_HEIGHT = 60;

/** Characters of a name that are shown, however little room there is. */
const NAME_MIN = 8;

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

/** Characters that fit under a mark: up to the map's edges, and to the middle between it and its neighbours. */
function lettersAt([x, y], others, width) {
  const beside = others.filter(([otherX, otherY]) => otherX !== x && Math.abs(otherY - y) < MARK_HEIGHT);
  const room = Math.min(2 * x, 2 * (width - x), ...beside.map(([otherX]) => Math.abs(otherX - x)));
  return Math.max(NAME_MIN, Math.floor((room - 8) / LETTER));
}

/** The whole name where there is room. */
function shortName(name, most) {
  const text = foreignText(name);
  const letters = Array.from(text);
  return letters.length > most ? `${letters.slice(0, most - 1).join('')}…` : text;
}

const MARKS = { well: 'M-4.5 .5-1.2 4 5-3.6', busy: 'M0-4.5V.4L3.2 2.6', trouble: 'M-3.6-3.6 3.6 3.6M3.6-3.6-3.6 3.6', own: 'M0 0' };

function place([x, y], most, level, name, words, own) {
  const shape = level === 'trouble'
    ? svg('rect', { x: -13, y: -13, width: 26, height: 26, rx: 5 })
    : svg('circle', { r: own ? 18 : 14 });
  shape.setAttribute('class', `map-dot ${own ? 'own' : level}`);
  const mark = svg('path', { d: own ? MARKS.own : MARKS[level], class: `map-mark ${level}` });
  const label = svg('text', { y: own ? 37 : 31, class: 'map-name' }, shortName(name, most));
  label.setAttribute('unicode-bidi', 'isolate');
  return svg('g', { transform: `translate(${x} ${y})` }, shape, mark, label, svg('text', { y: own ? 54 : 47, class: `map-words ${level}` }, words));
}

/** Where the others stand, with this server at `own`: a row for one or two, a ring for more, rows below it where it is narrow. */
function layout(peers, width) {
  if (width < 480) {
    const rows = Math.ceil(peers / 2);
    const spot = (at) => {
      const alone = at === peers - 1 && peers % 2 === 1;
      return [alone ? width / 2 : width * (at % 2 ? 0.76 : 0.24), 128 + 92 * Math.floor(at / 2)];
    };
    return { own: [width / 2, 28], height: peers === 0 ? 96 : 96 + 92 * rows, spots: Array.from({ length: peers }, (_, at) => spot(at)) };
  }
  const reach = Math.min(width / 2 - 90, 320);
  if (peers <= 2) return { own: [width / 2, 32], height: 100, spots: [[width / 2 - reach, 32], [width / 2 + reach, 32]].slice(0, peers) };
  const [height, tall] = [peers > 6 ? 340 : 280, peers > 6 ? 118 : 88];
  const spots = Array.from({ length: peers }, (_, at) => {
    const angle = -Math.PI / 2 + (2 * Math.PI * (at + 0.5)) / peers;
    return [width / 2 + reach * Math.cos(angle), height / 2 - 14 + tall * Math.sin(angle)];
  });
  return { own: [width / 2, height / 2 - 14], height, spots };
}

function draw(status, width) {
  const { own: [cx, cy], height, spots } = layout(status.peers.length, width);
  const all = [[cx, cy], ...spots];
  const lines = [];
  const dots = [];
  status.peers.forEach((peer, at) => {
    const [x, y] = spots[at];
    const stands = standing(peer);
    lines.push(svg('line', { x1: cx, y1: cy, x2: x, y2: y, class: `map-line ${stands.line}` }));
    dots.push(place([x, y], lettersAt([x, y], all, width), stands.level, peer.name, stands.words, false));
  });
  return svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, class: 'map', 'aria-hidden': 'true', focusable: 'false' },
    lines, dots, place([cx, cy], lettersAt([cx, cy], all, width), 'own', status.node.name, 'this server', true));
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
