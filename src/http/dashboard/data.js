// Database by database, table by table: rows, what waits, what is held or shelved, and whether the content is the same
// everywhere. Used by app.js.

import { get, has } from './api.js';
import { badge, el, foreign, live, table } from './dom.js';
import { sameEverywhere } from './overview.js';
import { count, number } from './words.js';

function amount(value, words, to) {
  if (value === 0) return el('span', { class: 'quiet' }, '0');
  return to ? el('a', { href: to, 'aria-label': `${number(value)} ${words}` }, number(value)) : el('strong', {}, number(value));
}

function fact(words, shown, note) {
  return el('div', { class: 'fact' }, el('dt', {}, words), el('dd', {}, shown), note ? el('dd', { class: 'quiet small' }, note) : null);
}

function facts(database, status) {
  const state = database.state === 'ok' ? badge('well', 'ok') : badge(database.state.startsWith('ok') ? 'busy' : 'trouble', foreign(database.state.replace(/^ok: /, '')));
  return el('dl', { class: 'facts' },
    fact('State', state),
    fact('Content', sameEverywhere(status), [el('code', { title: database.digest }, database.digest.slice(0, 12))]),
    fact('Rows', number(database.rows), `in ${count(database.tables, 'table')}`),
    fact('Events', number(database.events), 'in the log'),
    fact('Pending', number(database.outbox), 'writes not in the log yet'),
    fact('Held', number(database.held_events), 'events not shown yet'),
    fact('Shelved', amount(database.shelved, 'rows on the shelf', '#/shelf'), 'rows not shown'),
    fact('Conflicts', amount(database.conflicts, 'conflicts', '#/conflicts'), 'values that lost'));
}

function tables(database, rows) {
  return table({
    caption: `Tables of ${database.name}`,
    hideCaption: true,
    empty: 'No table of this database is replicated.',
    key: (row) => `${row.database}.${row.table}`,
    rows,
    columns: [
      { head: 'Table', cell: (row) => foreign(row.table) },
      { head: 'Rows', number: true, cell: (row) => number(row.rows) },
      { head: 'Pending', number: true, cell: (row) => amount(row.outbox) },
      { head: 'Held', number: true, cell: (row) => amount(row.held_events) },
      { head: 'Shelved', number: true, cell: (row) => amount(row.shelved, 'rows on the shelf', '#/shelf') },
      { head: 'Digest', cell: (row) => el('code', { class: 'quiet', title: row.digest }, row.digest.slice(0, 12)) },
      { head: 'Changes', cell: (row) => el('a', { href: `#/activity?${new URLSearchParams({ db: row.database, table: row.table })}`, 'aria-label': `Changes of ${row.table}` }, 'Changes') },
    ],
  });
}

function draw({ databases, rows, peers }) {
  if (databases.length === 0) return el('section', { class: 'panel' }, el('p', { class: 'empty' }, 'No database is replicated here yet. Start the node with --db NAME=PATH.'));
  return databases.map((database) => el('section', { class: 'panel' },
    el('div', { class: 'heading' }, el('h2', {}, foreign(database.name)), el('code', { class: 'quiet' }, foreign(database.path))),
    facts(database, { peers }),
    rows === null ? el('p', { class: 'empty' }, 'Table by table: not available on this version.') : tables(database, rows.filter((row) => row.database === database.name))));
}

export const page = {
  path: '/data',
  title: 'Data',
  build(root) {
    const place = el('div', { class: 'stack' });
    const again = live(place, draw);
    const known = has('get', '/api/v1/tables');
    let rows = known ? [] : null;
    root.append(
      el('h1', {}, 'Data'),
      el('p', { class: 'lead' }, 'Equal content of equal tables has an equal digest on every server.'),
      place);
    return {
      async update(status) {
        const show = () => again({
          databases: status.databases, rows,
          peers: status.peers.map((peer) => ({ state: peer.state, content: peer.content && { state: peer.content.state }, behind: peer.behind, ahead: peer.ahead })),
        });
        if (known) rows = (await get('/api/v1/tables').catch(() => ({ tables: rows }))).tables;
        show();
      },
    };
  },
};
