// Making elements. Everything that comes from the node goes through here as text: nothing parses markup, invisible and
// direction-changing characters are shown by their names, long values are folded. Used by every part that draws.

const SVG = 'http://www.w3.org/2000/svg';

/** Characters in one value before it is folded. */
const FOLD_AT = 240;

// Controls, invisible characters, and marks that turn the direction of what stands beside them.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/;

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === 'on') {
      for (const [event, action] of Object.entries(value)) element.addEventListener(event, action);
    } else if (name === 'key') {
      element.dataset.key = value;
    } else if (name === 'data') {
      Object.assign(element.dataset, value);
    } else {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element; strings among the children become text. */
export function el(name, properties, ...children) {
  return fill(document.createElement(name), properties, children);
}

/** The same in SVG. */
export function svg(name, properties, ...children) {
  return fill(document.createElementNS(SVG, name), properties, children);
}

/** Text of somebody else, in a direction of its own, with nothing invisible in it. */
export function foreign(text, lines = false) {
  const parts = [];
  let plain = '';
  for (const character of String(text)) {
    if (!UNSEEN.test(character) || (lines && (character === '\n' || character === '\t'))) {
      plain += character;
      continue;
    }
    if (plain) parts.push(plain);
    plain = '';
    const number = character.codePointAt(0).toString(16).toUpperCase().padStart(4, '0');
    parts.push(el('span', { class: 'unseen', title: 'a character that cannot be seen' }, `U+${number}`));
  }
  if (plain) parts.push(plain);
  return el('bdi', {}, parts);
}

/** The same without elements, for places that take only a string. */
export function foreignText(text) {
  return Array.from(String(text), (character) => (UNSEEN.test(character) ? '\ufffd' : character)).join('');
}

/** A value of a row, as the node writes it. */
export function value(text) {
  const whole = String(text ?? '');
  if (whole === '') return el('span', { class: 'quiet' }, 'nothing');
  if (whole.length <= FOLD_AT) return el('code', { class: 'value' }, foreign(whole, true));
  const count = whole.length.toLocaleString('en');
  return el('details', { class: 'folded', key: `fold-${whole.length}-${whole.slice(0, 40)}` },
    el('summary', {}, el('code', { class: 'value' }, foreign(whole.slice(0, 80), false)), el('span', { class: 'fold-more' }, `… ${count} characters`)),
    el('code', { class: 'value whole', tabindex: 0 }, foreign(whole, true)));
}

/**
 * A table with a caption and heads. The roles are written out because narrow screens show its rows as blocks, which
 * would else take them away from screen readers.
 */
export function table({ caption, columns, rows, empty, key, hideCaption = false }) {
  if (rows.length === 0) return el('p', { class: 'empty' }, empty ?? 'Nothing here.');
  const heads = columns.map((column) => el('th', { scope: 'col', role: 'columnheader', class: column.number ? 'number' : null }, column.head));
  const body = rows.map((row) => el('tr', { role: 'row', key: key ? `row-${key(row)}` : null, class: row.className ?? null }, columns.map((column, at) => {
    const properties = { role: at === 0 ? 'rowheader' : 'cell', class: [column.number && 'number', column.wide && 'wide', column.action && 'action', column.zero?.(row) && 'zero'].filter(Boolean).join(' ') || null, data: { head: column.head } };
    if (at === 0) properties.scope = 'row';
    return el(at === 0 ? 'th' : 'td', properties, column.cell(row));
  })));
  return el('div', { class: 'table-frame' }, el('table', { role: 'table' },
    el('caption', { class: hideCaption ? 'unseen-caption' : null }, caption),
    el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, heads)),
    el('tbody', { role: 'rowgroup' }, body)));
}

const SIGNS = {
  well: ['M6 12.5 10.2 17 18 8', 'circle'],
  busy: ['M12 7v5l3.5 2', 'circle'],
  attention: ['M12 8v5M12 16.2v.3', 'triangle'],
  trouble: ['M8.2 8.2l7.6 7.6M15.8 8.2l-7.6 7.6', 'square'],
  unknown: ['M8 12h8', 'circle'],
};

/** A sign for a level: its shape says it too, not only its colour. */
export function sign(level) {
  const [stroke, shape] = SIGNS[level] ?? SIGNS.unknown;
  const frame = {
    circle: () => svg('circle', { cx: 12, cy: 12, r: 10.5 }),
    triangle: () => svg('path', { d: 'M12 2.6 22.6 21H1.4z', 'stroke-linejoin': 'round' }),
    square: () => svg('rect', { x: 2, y: 2, width: 20, height: 20, rx: 4 }),
  }[shape]();
  frame.setAttribute('class', 'sign-frame');
  return svg('svg', { class: `sign ${level}`, viewBox: '0 0 24 24', 'aria-hidden': 'true' }, frame, svg('path', { class: 'sign-stroke', d: stroke }));
}

/** A word with its sign. */
export function badge(level, ...words) {
  return el('span', { class: `badge ${level}` }, sign(level), el('span', {}, words));
}

export function button(words, action, { kind = '', key, label } = {}) {
  return el('button', { type: 'button', class: `button ${kind}`, key, 'aria-label': label, on: { click: action } }, words);
}

export function heading(level, words, ...more) {
  return el('div', { class: 'heading' }, el(`h${level}`, {}, words), more.length ? el('div', { class: 'heading-more' }, more) : null);
}

/**
 * A place that is drawn again when what it shows has changed, and only then. Where the keyboard was, and what was
 * unfolded, stays: both are found again by their `key`.
 */
export function live(element, draw) {
  let shown;
  return (data) => {
    const now = JSON.stringify(data);
    if (now === shown) return;
    shown = now;
    const open = new Set(Array.from(element.querySelectorAll('details[open][data-key]'), (details) => details.dataset.key));
    const focused = element.contains(document.activeElement) ? document.activeElement.closest('[data-key]')?.dataset.key : undefined;
    element.replaceChildren(...[draw(data)].flat(Infinity).filter(Boolean));
    for (const details of element.querySelectorAll('details[data-key]')) {
      if (open.has(details.dataset.key)) details.open = true;
    }
    if (focused !== undefined) {
      Array.from(element.querySelectorAll('[data-key]')).find((other) => other.dataset.key === focused)?.focus();
    }
  };
}
