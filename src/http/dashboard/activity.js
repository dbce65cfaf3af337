// What happens: the live feed of changes, the search through all of them, and every version of one row. Used by app.js.

import { follow, get, has } from './api.js';
import { badge, button, el, foreign, heading, table, value } from './dom.js';
import { canUndo, undo } from './undo.js';
import { clock, when } from './words.js';

/** Events that the feed keeps on the page. */
const FEED_MAX = 100;

/** Changes of one event that are shown before the rest is counted. */
const CHANGES_MAX = 5;

/** Without a stream, the feed asks this often, ms. */
const ASK_EVERY = 2000;

const SIGN = { insert: '+', update: '~', delete: '−', claim: '#', merge: '=', split: '≠' };

function place(event, change) {
  const id = change.id || change.row;
  const row = `${event.database}.${change.table} ${id}`;
  return [foreign(`${event.database}.${change.table}`), ' ', id ? el('a', { href: `#/activity?${new URLSearchParams({ row })}`, title: 'Every version of this row' }, foreign(id)) : null];
}

/** Values that nobody needs to see in passing. */
const SECRET = /pass|secret|token|hash/i;

function cells(pairs) {
  const shown = (column, text) => (SECRET.test(column) && text !== 'NULL' ? el('details', { class: 'folded', key: `secret-${column}` }, el('summary', { class: 'quiet small' }, 'hidden'), value(text)) : value(text));
  return el('span', { class: 'cell-list' }, pairs.map(([column, text]) => el('span', { class: 'cell' }, el('span', { class: 'quiet' }, foreign(column), ' '), shown(column, text))));
}

function changeLine(event, change) {
  return el('li', { class: 'change' },
    el('span', { class: `mark ${change.operation}`, 'aria-hidden': 'true' }, SIGN[change.operation] ?? '·'),
    el('div', {}, el('p', {}, el('strong', {}, change.operation), ' ', place(event, change)), change.cells.length ? cells(change.cells) : null));
}

function eventItem(event, say) {
  const rest = event.changes.length - CHANGES_MAX;
  const item = el('li', { class: 'event', data: { event: `${event.origin}:${event.seq}` } },
    el('p', { class: 'event-head quiet small' }, event.node === 'genesis' ? 'Rows that were there when the file was enrolled' : [el('time', { datetime: event.time }, clock(event.time)), ' on ', el('strong', {}, foreign(event.node)), ` · event ${event.seq}`]),
    el('ul', { class: 'changes' }, event.changes.slice(0, CHANGES_MAX).map((change) => changeLine(event, change))));
  if (event.node !== 'genesis' && canUndo()) {
    const change = `${event.origin}:${event.seq}`;
    item.append(button('Take back…', () => undo(change, say), { kind: 'plain', label: `Take back event ${event.seq} of ${event.node}` }));
  }
  if (rest > 0) {
    const more = button(`${rest} more changes`, () => { more.replaceWith(el('ul', { class: 'changes' }, event.changes.slice(CHANGES_MAX).map((change) => changeLine(event, change)))); }, { kind: 'plain' });
    item.append(more);
  }
  return item;
}

/** Keeps a list of events fed with what arrives; ends when `signal` says so. */
async function feed(list, said, filter, signal, say) {
  const add = (events) => {
    list.querySelector('.empty')?.remove();
    list.prepend(...events.map((event) => eventItem(event, say)).reverse());
    while (list.children.length > FEED_MAX) list.lastElementChild.remove();
  };
  let page = await get('/api/v1/events', { ...filter, limit: 30 }, signal);
  add(page.events);
  if (page.events.length === 0) list.append(el('li', { class: 'empty' }, 'No change yet.'));
  let after = page.last_arrival;
  if (has('get', '/api/v1/events/stream')) {
    said.replaceChildren(badge('well', 'Live'));
    const onEvent = (one) => {
            const event = JSON.parse(one.data);
      if (event.changes) add([event]);
      else if (event.events) add(event.events);
      if (Number(one.id) > 0) after = Number(one.id);
    };
    try {
      await follow('/api/v1/events/stream', { ...filter, after }, onEvent, signal);
    } catch (error) {
      if (error.name === 'AbortError') return;
    }
  }
  said.replaceChildren(badge('well', 'Live'));
  while (!signal.aborted) {
    await new Promise((done) => { setTimeout(done, ASK_EVERY); signal.addEventListener('abort', done, { once: true }); });
    if (signal.aborted || document.hidden) continue;
    try {
      page = await get('/api/v1/events', { ...filter, after, limit: 100 }, signal);
      if (page.events.length > 0) add(page.events);
      after = page.last_arrival;
      said.replaceChildren(badge('well', 'Live'));
    } catch (error) {
      if (error.name === 'AbortError') return;
      said.replaceChildren(badge('trouble', 'No answer; trying again'));
    }
  }
}

function historyOf(history) {
  const versions = table({
    caption: 'Its versions, oldest first',
    rows: history.versions,
    columns: [
      { head: 'When', cell: (version) => (version.node === 'genesis' ? 'at enrolment' : when(version.time)) },
      { head: 'Server', cell: (version) => foreign(version.node) },
      { head: 'What', cell: (version) => version.operation },
      { head: 'Wrote', wide: true, cell: (version) => cells(version.cells) },
    ],
  });
  const lost = history.conflicts.length === 0 ? null : table({
    caption: 'What lost',
    rows: history.conflicts,
    columns: [
      { head: 'Conflict', cell: (conflict) => el('a', { href: '#/conflicts' }, `#${conflict.number}`) },
      { head: 'Column', cell: (conflict) => foreign(conflict.column || conflict.kind) },
      { head: 'Shown', wide: true, cell: (conflict) => value(conflict.winner.value) },
      { head: 'Lost', wide: true, cell: (conflict) => value(conflict.loser.value) },
    ],
  });
  return [
    heading(2, ['Row ', foreign(`${history.database}.${history.table}`), ' ', foreign(history.id || history.row)], badge(history.state === 'shown' ? 'well' : history.state === 'deleted' ? 'unknown' : 'attention', foreign(history.state))),
    el('p', { class: 'quiet small' }, 'Identity ', el('code', {}, foreign(history.row))), versions, lost];
}

function whereabouts(found) {
  if (found.rows.length === 0) return null;
  return table({
    caption: 'Rows that ever had this id',
    rows: found.rows,
    columns: [
      { head: 'Born on', cell: (row) => foreign(row.node) },
      { head: 'Born as', cell: (row) => foreign(row.born_as) },
      { head: 'Now', cell: (row) => foreign(row.now) },
      { head: 'State', cell: (row) => foreign(row.state) },
    ],
  });
}

async function showRow(box, text) {
  const match = /^\s*([^.\s]+)\.(\S+)\s+(.+?)\s*$/.exec(text);
  if (!match) {
    box.replaceChildren(el('p', { class: 'empty' }, 'Write database, table and id like this: scouting.team 42'));
    return;
  }
  const [, db, name, id] = match;
  const [history, found] = await Promise.allSettled([get('/api/v1/history', { db, table: name, id }), get('/api/v1/where', { db, table: name, id })]);
  const parts = history.status === 'fulfilled' ? historyOf(history.value) : [el('p', { class: 'empty' }, 'Not found: ', foreign(history.reason.message))];
  const places = found.status === 'fulfilled' ? whereabouts(found.value) : null;
  box.replaceChildren(...parts.filter(Boolean), ...(places ? [places] : []));
}

const FIELDS = [['db', 'Database'], ['table', 'Table'], ['origin', 'Server'], ['since', 'Since'], ['until', 'Until']];
const HINTS = { db: 'scouting', table: 'team', origin: 'pit', since: '2h or 2025-03-06', until: '2025-03-07' };

export const page = {
  path: '/activity',
  title: 'Activity',
  build(root, { query, say }) {
    const stop = new AbortController();
    const said = el('span', { role: 'status' });
    const list = el('ol', { class: 'events', 'aria-label': 'Changes, newest first' });
    const rowBox = el('div', {});
    const rowInput = el('input', { id: 'row-input', value: query.get('row') ?? '', placeholder: 'scouting.team 42', spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off' });
    const given = Object.fromEntries(FIELDS.map(([name]) => [name, query.get(name) ?? '']));
    const inputs = FIELDS.map(([name, words]) => el('div', {}, el('label', { for: `find-${name}` }, words), el('input', { id: `find-${name}`, name, value: given[name], placeholder: HINTS[name], autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off' })));
    const go = (fields) => { location.hash = `#/activity?${new URLSearchParams(Object.entries(fields).filter(([, text]) => text))}`; };
    const search = el('form', { class: 'row-form filters', role: 'search', 'aria-label': 'Changes', on: { submit: (event) => {
      event.preventDefault();
      go(Object.fromEntries(new FormData(event.target)));
    } } }, inputs, el('button', { class: 'button', type: 'submit' }, 'Search'));
    const rowForm = el('form', { class: 'row-form', role: 'search', 'aria-label': 'One row', on: { submit: (event) => {
      event.preventDefault();
      go({ row: rowInput.value.trim() });
    } } }, el('div', {}, el('label', { for: 'row-input' }, 'Database, table and id of a row'), rowInput), el('button', { class: 'button', type: 'submit' }, 'Show its history'));
    const rowPanel = el('section', { class: 'panel', id: 'row' }, heading(2, 'One row'), rowForm, rowBox);
    const feedPanel = el('section', { class: 'panel' }, heading(2, Object.values(given).some(Boolean) ? 'Changes that fit' : 'Changes on all servers', said), search, list);
    root.append(el('h1', {}, 'Activity'), ...(query.get('row') ? [rowPanel, feedPanel] : [feedPanel, rowPanel]));
    if (query.get('row')) showRow(rowBox, query.get('row'));
    feed(list, said, given, stop.signal, say).catch((error) => {
      if (error.name !== 'AbortError') list.replaceChildren(el('li', { class: 'empty' }, 'The changes cannot be read: ', foreign(error.message)));
    });
    return { leave: () => stop.abort() };
  },
};
