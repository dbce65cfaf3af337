// Time travel: what changed between two moments, and taking it back: a table to how it was, or what one server wrote.
// Nothing is changed before its preview was read and its number of rows typed. Used by app.js.

import { get, has } from './api.js';
import { badge, button, el, foreign, heading, table, value } from './dom.js';
import { takeBack } from './undo.js';
import { clock, count, number } from './words.js';

const SPANS = [['10m', '10 minutes ago'], ['1h', '1 hour ago'], ['3h', '3 hours ago'], ['12h', '12 hours ago'], ['1d', 'a day ago'], ['7d', '7 days ago'], ['', 'at a time…']];

/** Rows listed of a difference. */
const ROWS = 200;

const WHAT = { added: ['well', 'new'], changed: ['busy', 'changed'], deleted: ['trouble', 'deleted'], moved: ['attention', 'got another id'] };

function choice(id, options) {
  return el('select', { id }, options.map(([word, words]) => el('option', { value: word }, words)));
}

/** A moment: some spans by name, else a date and time of this browser. `now` offers the present. */
function momentOf(id, words, now) {
  const spans = choice(id, now ? [['now', 'now'], ...SPANS] : SPANS);
  const exact = el('input', { id: `${id}-exact`, type: 'datetime-local', step: 1, 'aria-label': `${words}: date and time`, hidden: true });
  spans.addEventListener('change', () => {
    exact.hidden = spans.value !== '';
    if (!exact.hidden) exact.focus();
  });
  return {
    field: el('div', {}, el('label', { for: id }, words), spans, exact),
    /** Gives an age, or a time with its zone; null while none is given. */
    read: () => (spans.value !== '' ? spans.value : Number.isNaN(Date.parse(exact.value)) ? null : new Date(exact.value).toISOString()),
  };
}

/** Which tables: all, one database, or one table. */
function placeOf(id) {
  const select = choice(id, [['', 'Everything']]);
  return {
    field: el('div', {}, el('label', { for: id }, 'In'), select),
    fill(tables) {
      if (select.options.length > 1) return;
      for (const database of new Set(tables.map((row) => row.database))) {
        select.append(el('option', { value: JSON.stringify({ db: database }) }, `${database}: all tables`));
        for (const row of tables.filter((one) => one.database === database)) {
          select.append(el('option', { value: JSON.stringify({ db: database, table: row.table }) }, `${database}.${row.table}`));
        }
      }
    },
    read: () => (select.value ? JSON.parse(select.value) : {}),
  };
}

function rowLink(row) {
  const place = `${row.database}.${row.table}`;
  const id = row.id || row.row;
  return [foreign(place), ' ', el('a', { href: `#/activity?${new URLSearchParams({ row: `${place} ${id}` })}`, title: 'Every version of this row' }, foreign(id))];
}

function changed(row) {
  const [level, words] = WHAT[row.what] ?? ['unknown', row.what];
  return badge(level, row.was ? [words, ', was ', foreign(row.was)] : words);
}

function difference(view) {
  if (view.tables.length === 0) return [el('p', { class: 'empty' }, `Nothing changed between ${clock(view.from)} and ${clock(view.to)}.`)];
  const rows = view.rows.length + view.more;
  return [
    el('p', {}, badge('busy', `${count(rows, 'row')} differ`), ` between ${clock(view.from)} and ${clock(view.to)}.`),
    table({
      caption: 'Table by table', rows: view.tables,
      columns: [
        { head: 'Table', cell: (one) => foreign(`${one.database}.${one.table}`) },
        { head: 'New', number: true, cell: (one) => number(one.added) },
        { head: 'Changed', number: true, cell: (one) => number(one.changed) },
        { head: 'Deleted', number: true, cell: (one) => number(one.deleted) },
        { head: 'Got another id', number: true, cell: (one) => number(one.moved) },
      ],
    }),
    table({
      caption: 'Row by row', rows: view.rows,
      columns: [
        { head: 'Row', cell: rowLink },
        { head: 'What', cell: changed },
        { head: 'Values, before → after', wide: true, cell: (row) => row.cells.map((cell) => el('p', {}, el('span', { class: 'quiet' }, foreign(cell.column), ' '), row.what === 'added' ? null : [value(cell.from), ' → '], row.what === 'deleted' ? el('span', { class: 'quiet' }, 'nothing') : value(cell.to))) },
        { head: 'Written on', cell: (row) => (row.by.length ? foreign(row.by.join(', ')) : el('span', { class: 'quiet' }, 'follows from others')) },
      ],
    }),
    view.more > 0 ? el('p', { class: 'quiet' }, `and ${count(view.more, 'more row')}: choose one table, or a shorter time`) : null,
  ];
}

/** A form whose fields are asked when it is sent; words for what is missing. */
function form(name, fields, words, action) {
  const problem = el('p', { class: 'door-error', role: 'alert' });
  const press = el('button', { class: 'button primary', type: 'submit' }, words);
  let busy = false;
  const submit = async (event) => {
    event.preventDefault();
    // Not by disabling the button: the keyboard would lose its place.
    if (busy) return;
    busy = true;
    problem.textContent = '';
    try {
      await action();
    } catch (error) {
      problem.replaceChildren(foreign(error.message));
    } finally {
      busy = false;
    }
  };
  return [el('form', { class: 'row-form', 'aria-label': name, novalidate: true, on: { submit } }, fields, press), problem];
}

function given(moment, words) {
  const text = moment.read();
  if (text === null) throw new Error(`${words}: choose date and time.`);
  return text;
}

function diffPanel(place) {
  const [from, to] = [momentOf('diff-from', 'From', false), momentOf('diff-to', 'To', true)];
  const found = el('div', { role: 'status', 'aria-live': 'polite' });
  const ask = async () => {
    const query = { from: given(from, 'From'), to: given(to, 'To'), ...place.read(), limit: ROWS };
    found.replaceChildren(el('p', { class: 'quiet' }, 'Reading the log…'));
    try {
      found.replaceChildren(...difference(await get('/api/v1/diff', query)).filter(Boolean));
    } catch (error) {
      found.replaceChildren();
      throw error;
    }
  };
  return el('section', { class: 'panel', id: 'diff' }, heading(2, 'What changed between two moments?'),
    form('What changed', [from.field, to.field, place.field], 'Show what changed', ask), found);
}

function restorePanel(place, say) {
  const moment = momentOf('restore-to', 'To how it was', false);
  const ask = async () => {
    const order = { as_of: given(moment, 'To how it was'), ...place.read() };
    await takeBack({ title: 'Set this back?', path: '/api/v1/restore', order, deliberate: true, say });
  };
  return el('section', { class: 'panel', id: 'restore' }, heading(2, 'Set rows back to a moment'),
    el('p', { class: 'quiet' }, 'Every row is set back to how it was then, on all servers, whoever changed it since. First you see what would change; nothing is written before you confirm it. It can be taken back itself.'),
    form('Set back', [moment.field, place.field], 'Preview', ask));
}

function undoPanel(place, server, say) {
  const [from, to] = [momentOf('undo-from', 'Written since', false), momentOf('undo-to', 'Until', true)];
  const ask = async () => {
    const until = given(to, 'Until');
    const order = { node: server.value, from: given(from, 'Written since'), ...(until === 'now' ? {} : { to: until }), ...place.read() };
    await takeBack({ title: `Take back what ${server.value} wrote?`, path: '/api/v1/undo', order, deliberate: true, say });
  };
  return el('section', { class: 'panel', id: 'undo' }, heading(2, 'Take back what one server wrote'),
    el('p', { class: 'quiet' }, 'For a script that ran wild, or a tablet that wrote nonsense. What others wrote into the same cells since stays.'),
    form('Take back', [el('div', {}, el('label', { for: 'undo-server' }, 'Server'), server), from.field, to.field, place.field], 'Preview', ask));
}

export const page = {
  path: '/travel',
  title: 'Time travel',
  needs: ['get', '/api/v1/diff'],
  build(root, { say }) {
    const places = ['diff-place', 'restore-place', 'undo-place'].map(placeOf);
    const server = el('select', { id: 'undo-server' });
    root.append(
      el('h1', {}, 'Time travel'),
      el('p', { class: 'lead' }, 'The log keeps every version of every row. Look at what changed, and take it back where it was a mistake. One single change: “Take back…” beside it in ', el('a', { href: '#/activity' }, 'Activity'), '.'),
      diffPanel(places[0]), restorePanel(places[1], say), undoPanel(places[2], server, say));
    if (has('get', '/api/v1/tables')) {
      get('/api/v1/tables').then((answer) => places.forEach((place) => place.fill(answer.tables))).catch((error) => say(['The tables cannot be read: ', foreign(error.message)]));
    }
    return {
      update(status) {
        for (const name of [status.node.name, ...status.peers.map((peer) => peer.name)]) {
          if (!Array.from(server.options).some((option) => option.value === name)) server.append(el('option', { value: name }, name));
        }
      },
    };
  },
};
