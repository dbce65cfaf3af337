// The first page: the map of the servers, the databases, and whether this machine can be switched off. Everything in ten
// seconds; details are one click away. Used by app.js.

import { badge, el, foreign, heading, live, table } from './dom.js';
import { mapOf, standing } from './map.js';
import { ago, count, number } from './words.js';

function serverCard(peer) {
  const stands = standing(peer);
  return el('li', { class: 'server-line' },
    el('span', { class: 'server-name' }, foreign(peer.name)),
    badge(stands.level, peer.state === 'connected' ? stands.words : 'cut off'),
    el('span', { class: 'quiet small server-seen' }, peer.state === 'connected' ? (peer.rtt_ms ? `round trip ${peer.rtt_ms.toFixed(1)} ms` : '') : ['seen ', ago(peer.last_seen)]));
}

function servers(status) {
  if (status.peers.length === 0) {
    return el('p', { class: 'empty' }, 'No other server yet. ', el('a', { href: '#/invite' }, 'Invite one'), '.');
  }
  return el('ul', { class: 'server-lines', 'aria-label': 'Other servers' }, status.peers.map(serverCard));
}

/** Whether everybody shows the same content of the databases, as far as is known. */
export function sameEverywhere(status) {
  if (status.peers.some((peer) => peer.content?.state === 'differs')) return badge('trouble', 'differs');
  // What was equal counts only while neither side has gone on alone.
  const known = status.peers.filter((peer) => peer.content?.state === 'equal' && peer.behind === 0 && peer.ahead === 0);
  const connected = status.peers.filter((peer) => peer.state === 'connected');
  if (status.peers.length === 0) return el('span', { class: 'quiet' }, 'only server');
  if (known.length === status.peers.length) return badge('well', 'equal on all');
  if (known.length > 0) return badge('well', `equal on ${known.length + 1} of ${status.peers.length + 1}`);
  if (connected.length > 0 && connected.every((peer) => peer.behind === 0 && peer.ahead === 0)) return badge('well', `same events on ${connected.length + 1} of ${status.peers.length + 1}`);
  return badge('unknown', 'not known');
}

function databases(status) {
  const waiting = (amount, words, to) => (amount === 0 ? el('span', { class: 'quiet' }, '0') : el('a', { href: to, 'aria-label': `${number(amount)} ${words}` }, number(amount)));
  return table({
    caption: 'Databases on this server',
    hideCaption: true,
    empty: 'No database is replicated here yet. Start the node with --db NAME=PATH.',
    key: (row) => row.name,
    rows: status.databases,
    columns: [
      { head: 'Database', cell: (row) => el('a', { href: '#/data' }, foreign(row.name)) },
      { head: 'State', cell: (row) => (row.state === 'ok' ? badge('well', 'ok') : badge(row.state.startsWith('ok') ? 'busy' : 'trouble', foreign(row.state.replace(/^ok: /, '')))) },
      { head: 'Tables', number: true, cell: (row) => number(row.tables) },
      { head: 'Rows', number: true, cell: (row) => number(row.rows) },
      { head: 'Pending', number: true, zero: (row) => row.outbox === 0, cell: (row) => waiting(row.outbox, 'rows wait for the log', '#/data') },
      { head: 'Held', number: true, zero: (row) => row.held_events === 0, cell: (row) => waiting(row.held_events, 'events held', '#/data') },
      { head: 'Shelved', number: true, zero: (row) => row.shelved === 0, cell: (row) => waiting(row.shelved, 'rows on the shelf', '#/shelf') },
      { head: 'Conflicts', number: true, zero: (row) => row.conflicts === 0, cell: (row) => waiting(row.conflicts, 'conflicts', '#/conflicts') },
    ],
  });
}

/** What the heads of the columns mean. */
function words() {
  const meanings = [
    ['Pending', 'rows that the application wrote and that are not in the log yet; normally 0 within a second'],
    ['Held', 'events of other servers that cannot be shown yet: a table or column is missing here, or what they rest on'],
    ['Shelved', 'rows that are kept but cannot be shown now, such as a second row with the same unique number'],
    ['Conflicts', 'values that gave way to another one; each is kept and can be put back'],
  ];
  return el('details', { class: 'words', key: 'words' }, el('summary', { class: 'small quiet' }, 'What do these words mean?'),
    el('dl', { class: 'cells small' }, meanings.map(([word, meaning]) => [el('dt', {}, word), el('dd', {}, meaning)])));
}

function unplug(status) {
  const { events, rows, counted_all: all } = status.only_here;
  const pending = status.databases.reduce((sum, database) => sum + database.outbox, 0);
  const safe = events === 0 && pending === 0;
  const words = safe
    ? status.peers.length > 0 ? 'Everything on this machine is held by another server too.' : 'There is no other server that could hold a copy.'
    : `${count(events, 'event')} (${all ? '' : 'more than '}${count(rows, 'row')}) exist only here${pending > 0 ? `, and ${count(pending, 'row')} are not in the log yet` : ''}.`;
  const alone = status.peers.length === 0;
  return [
    heading(2, 'Can this machine be unplugged?'),
    el('p', { class: 'unplug' }, safe && !alone ? badge('well', 'Safe to unplug') : badge('attention', 'Keep it on')),
    el('p', { class: 'quiet' }, words, ' ', el('a', { href: '#/care' }, 'Who holds what')),
  ];
}

export const page = {
  path: '/',
  title: 'Overview',
  build(root) {
    const map = mapOf();
    const list = el('div', {});
    const tables = el('div', {});
    const foot = el('div', {});
    root.append(
      el('h1', { class: 'hidden-heading' }, 'Overview'),
      el('section', { class: 'panel' }, heading(2, 'Servers', el('a', { href: '#/servers' }, 'All about them')), map.frame, list),
      el('section', { class: 'panel' }, heading(2, 'Databases', el('a', { href: '#/data' }, 'Table by table')), tables, words()),
      el('section', { class: 'panel' }, foot));
    const [drawList, drawTables, drawFoot] = [live(list, servers), live(tables, (status) => [databases(status), el('p', { class: 'same' }, 'Content: ', sameEverywhere(status))]), live(foot, unplug)];
    return {
      update(status) {
        map.update(status);
        drawList({ peers: status.peers.map(({ rtt_ms: rtt, ...peer }) => ({ ...peer, rtt_ms: rtt && Math.round(rtt * 2) / 2 })) });
        drawTables({ databases: status.databases, peers: status.peers.map((peer) => ({ state: peer.state, content: peer.content, behind: peer.behind, ahead: peer.ahead })) });
        drawFoot({ only_here: status.only_here, databases: status.databases, peers: status.peers.map((peer) => peer.id) });
      },
      leave: map.leave,
    };
  },
};
