// Database by database, table by table: rows, what waits, what is held or shelved, and whether the content is the same
// everywhere. Used by app.js.

import { every, get, has, post } from './api.js';
import { badge, button, el, foreign, heading, live, table } from './dom.js';
import { sameEverywhere } from './overview.js';
import { ago, count, number } from './words.js';

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
      { head: 'Table', cell: (row) => el('a', { href: `#/activity?${new URLSearchParams({ db: row.database, table: row.table })}`, title: 'Changes of this table' }, foreign(row.table)) },
      { head: 'Rows', number: true, cell: (row) => number(row.rows) },
      { head: 'Pending', number: true, zero: (row) => row.outbox === 0, cell: (row) => amount(row.outbox) },
      { head: 'Held', number: true, zero: (row) => row.held_events === 0, cell: (row) => amount(row.held_events) },
      { head: 'Shelved', number: true, zero: (row) => row.shelved === 0, cell: (row) => amount(row.shelved, 'rows on the shelf', '#/shelf') },
      { head: 'Digest', cell: (row) => el('code', { class: 'quiet', title: row.digest }, row.digest.slice(0, 12)) },
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

function comparison(peers) {
  const differing = peers.flatMap((peer) => peer.differences.map((row) => ({ ...row, peer: peer.name })));
  return [
    table({
      caption: 'What comparisons with the other servers came to', hideCaption: true, empty: 'No other server yet.', rows: peers, key: (peer) => peer.peer,
      columns: [
        { head: 'Server', cell: (peer) => foreign(peer.name) },
        { head: 'Content', cell: (peer) => (peer.content === 'equal' ? badge('well', 'equal') : peer.content === 'differs' ? badge('trouble', `${count(peer.rows, 'row')} differ`) : el('span', { class: 'quiet' }, 'not compared yet')) },
        { head: 'Compared', cell: (peer) => ago(peer.compared) },
        { head: 'Left out', cell: (peer) => (peer.not_compared.length ? foreign(peer.not_compared.join(', ')) : el('span', { class: 'quiet' }, 'nothing')) },
      ],
    }),
    differing.length ? table({
      caption: 'Rows that differ', rows: differing,
      columns: [
        { head: 'Row', cell: (row) => [foreign(`${row.database}.${row.table}`), ' ', el('a', { href: `#/activity?${new URLSearchParams({ row: `${row.database}.${row.table} ${row.id || row.row}` })}` }, foreign(row.id || row.row))] },
        { head: 'Server', cell: (row) => foreign(row.peer) },
        { head: 'How', cell: (row) => row.side },
      ],
    }) : null,
  ];
}

/** The contents of the other servers' files against this one's; null where this version cannot compare. */
function comparisonPanel(root, say) {
  if (!has('get', '/api/v1/comparisons')) return null;
  const place = el('div', {});
  const again = live(place, comparison);
  const ask = every(5000, async () => again((await get('/api/v1/comparisons')).peers));
  const compare = async () => {
    try {
      await post('/api/v1/peers/compare', { wait_s: 4 });
      say('Compared with every server that can be reached.');
    } catch (error) {
      say(['Not compared: ', foreign(error.message)]);
    }
    ask.soon();
    ask();
  };
  root.append(el('section', { class: 'panel' }, heading(2, 'The same on the other servers?', button('Compare now', compare, { key: 'compare' })), place));
  return ask;
}

export const page = {
  path: '/data',
  title: 'Data',
  build(root, { say }) {
    const place = el('div', { class: 'stack' });
    const again = live(place, draw);
    const known = has('get', '/api/v1/tables');
    let rows = known ? [] : null;
    root.append(
      el('h1', {}, 'Data'),
      el('p', { class: 'lead' }, 'A digest is a fingerprint of the content: where two servers show the same digest for a table, they show the same rows.'),
      place);
    const compared = comparisonPanel(root, say);
    return {
      async update(status) {
        const show = () => again({
          databases: status.databases, rows,
          peers: status.peers.map((peer) => ({ state: peer.state, content: peer.content && { state: peer.content.state }, behind: peer.behind, ahead: peer.ahead })),
        });
        if (known) rows = (await get('/api/v1/tables').catch(() => ({ tables: rows }))).tables;
        show();
        compared?.();
      },
    };
  },
};
