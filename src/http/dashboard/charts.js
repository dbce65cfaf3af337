// Charts: bars over time and lines over time, as SVG made of elements, each with the same numbers as a table for whoever
// does not see it. Used by reliability.js and runs.js.

import { el, svg, table } from './dom.js';

/** Space round the drawing: left for the scale, below for the times and what they are. */
const LEFT = 40;
const BELOW = 36;
const TOP = 8;

/** A round number at or above the greatest value, so that the scale reads well. */
function ceiling(greatest) {
  if (greatest <= 0) return 1;
  const size = 10 ** Math.floor(Math.log10(greatest));
  return [1, 2, 5, 10].map((step) => step * size).find((step) => step >= greatest);
}

function scale(width, height, top, words) {
  const y = (value) => TOP + (1 - value / top) * (height - TOP - BELOW);
  return [0, top / 2, top].map((value) => svg('g', {},
    svg('line', { x1: LEFT, x2: width, y1: y(value), y2: y(value), class: value === 0 ? 'axis' : 'grid' }),
    svg('text', { x: LEFT - 7, y: y(value) + 4, class: 'tick end' }, words(value))));
}

function times(points, width, height, x) {
  const step = Math.max(1, Math.ceil(points.length / Math.max(2, Math.floor((width - LEFT) / 90))));
  return points.map((point, at) => (at % step === 0 ? svg('text', { x: x(at), y: height - 19, class: 'tick middle' }, point.label) : null));
}

/**
 * One chart. `points` are {label, values, title}; `series` names the values: {name, level}. Bars are stacked, lines are
 * not and leave a gap where a value is null.
 */
export function chart({ title, points, series, kind = 'bars', words = String, top: given, width = 320, height = 154, along }) {
  if (points.length === 0) return el('figure', { class: 'chart' }, el('figcaption', {}, title), el('p', { class: 'empty' }, 'Nothing to show yet.'));
  const sums = points.map((point) => (kind === 'bars' ? point.values.reduce((sum, value) => sum + (value ?? 0), 0) : Math.max(...point.values.map((value) => value ?? 0))));
  const top = given ?? ceiling(Math.max(...sums));
  const slot = (width - LEFT) / points.length;
  const x = (at) => LEFT + slot * (at + 0.5);
  const tall = (value) => (value / top) * (height - TOP - BELOW);
  const marks = [];
  if (kind === 'bars') {
    const thick = Math.max(1.5, Math.min(22, slot * 0.7));
    points.forEach((point, at) => {
      let base = height - BELOW;
      point.values.forEach((value, which) => {
        if (!value) return;
        base -= tall(value);
        marks.push(svg('rect', { x: x(at) - thick / 2, y: base, width: thick, height: tall(value), rx: 1, class: `bar ${series[which].level}` }, svg('title', {}, point.title ?? `${point.label}: ${words(value)} ${series[which].name}`)));
      });
    });
  } else {
    series.forEach((one, which) => {
      let path = '';
      points.forEach((point, at) => {
        const value = point.values[which];
        if (value === null || value === undefined) return;
        const before = at > 0 ? points[at - 1].values[which] : null;
        const y = height - BELOW - tall(value);
        path += `${before === null || before === undefined ? 'M' : 'L'}${x(at)} ${y}`;
        marks.push(svg('circle', { cx: x(at), cy: y, r: 2.5, class: `point ${one.level}` }, svg('title', {}, point.title ?? `${point.label}: ${words(value)}`)));
      });
      marks.unshift(svg('path', { d: path, class: `line ${one.level}` }));
    });
  }
  return el('figure', { class: 'chart' },
    el('figcaption', {}, title, ' ', series.length > 1 ? el('span', { class: 'legend' }, series.map((one) => el('span', { class: `key ${one.level}` }, one.name))) : null),
    svg('svg', { viewBox: `0 0 ${width} ${height}`, class: 'chart-drawing', 'aria-hidden': 'true', focusable: 'false' }, scale(width, height, top, words), marks, times(points, width, height, x), along ? svg('text', { x: width, y: height - 4, class: 'tick end along' }, along) : null),
    el('details', { key: `chart-${title}` }, el('summary', { class: 'small quiet' }, 'As a table'), table({
      caption: title, hideCaption: true, rows: points,
      columns: [{ head: 'When', cell: (point) => point.title ?? point.label }, ...series.map((one, which) => ({ head: one.name, number: true, cell: (point) => (point.values[which] === null || point.values[which] === undefined ? '–' : words(point.values[which])) }))],
    })));
}

/** A small bar of parts, such as a score. */
export function meter(part, level, label) {
  return el('span', { class: `meter ${level}` },
    svg('svg', { viewBox: '0 0 100 8', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      svg('rect', { width: 100, height: 8, rx: 4, class: 'meter-ground' }), svg('rect', { width: Math.max(0, Math.min(100, part * 100)), height: 8, rx: 4, class: 'meter-part' })),
    el('span', {}, label));
}
