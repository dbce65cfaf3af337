// All about the other servers: how they stand, why one is not reached, clocks, members; sync one or all. Used by app.js.

import { get, has, post } from './api.js';
import { badge, button, el, foreign, heading, live, table } from './dom.js';
import { standing } from './map.js';
import { wrongClocks } from './verdict.js';
import { ago, bytes, count, number, short, span } from './words.js';

/** A request of a sync waits this long for the servers to be equal; the page asks again until `ROUNDS`. */
const WAIT_S = 4;
const ROUNDS = 8;

function clockOf(status, peer) {
  if (peer.clock_skew_ms === null || peer.clock_skew_ms === undefined) return el('span', { class: 'quiet' }, 'not measured');
  const wrong = wrongClocks(status).find((clock) => !clock.own && clock.name === peer.name);
  const off = Math.abs(peer.clock_skew_ms);
  const words = off < 1000 ? `${off} ms` : `${span(off / 1000)} ${peer.clock_skew_ms > 0 ? 'ahead' : 'behind'}`;
  return wrong ? badge('attention', wrong.sure ? `${words}: wrong` : words) : words;
}

function progress(peer) {
  if (!peer.pull || peer.pull.wanted === 0) return null;
  const { received, wanted, bytes_per_s: rate, left_s: left } = peer.pull;
  return el('div', { class: 'progress' },
    el('progress', { max: wanted, value: received, 'aria-label': 'Events received' }),
    el('span', { class: 'quiet small' }, `${number(received)} of ${count(wanted, 'event')}, ${bytes(rate)}/s${left ? `, ${span(left)} left` : ''}`));
}

function content(peer) {
  const { state, compared, rows } = peer.content ?? { state: 'unknown' };
  if (state === 'equal' && (peer.behind > 0 || peer.ahead > 0)) return el('span', { class: 'quiet' }, 'was equal ', ago(compared));
  if (state === 'equal') return [badge('well', 'equal'), ' ', el('span', { class: 'quiet small' }, 'compared ', ago(compared))];
  if (state === 'differs') return badge('trouble', rows > 0 ? `${count(rows, 'row')} differ` : 'differs');
  return el('span', { class: 'quiet' }, 'not compared yet');
}

/** Whose clock is wrong, this machine's too. */
function clocks(status) {
  return wrongClocks(status).map((clock) => {
    const off = `${span(Math.abs(clock.off) / 1000)} ${clock.off > 0 ? 'ahead' : 'behind'}`;
    const words = clock.sure ? [clock.own ? 'The clock of this machine (' : 'The clock of ', foreign(clock.name), clock.own ? ')' : '', ` is ${off}: set it`] : ['The clocks of this machine and ', foreign(clock.name), ` are ${span(Math.abs(clock.off) / 1000)} apart: look at both and set the wrong one`];
    return el('p', { class: 'clock-wrong' }, badge('attention', words));
  });
}

function peersTable(status, sync) {
  return table({
    caption: 'Other servers of the cluster',
    hideCaption: true,
    empty: 'No other server yet. Invite one.',
    key: (peer) => peer.id,
    rows: status.peers,
    columns: [
      { head: 'Server', cell: (peer) => [foreign(peer.name), ' ', el('code', { class: 'quiet small', title: peer.id }, short(peer.id))] },
      { head: 'State', cell: (peer) => [badge(standing(peer).level, standing(peer).words), progress(peer)] },
      { head: 'We lack', number: true, cell: (peer) => number(peer.behind) },
      { head: 'It lacks', number: true, cell: (peer) => number(peer.ahead) },
      { head: 'Content', cell: content },
      { head: 'Clock', cell: (peer) => clockOf(status, peer) },
      { head: 'Last seen', cell: (peer) => (peer.state === 'connected' ? 'now' : ago(peer.last_seen)) },
      { head: 'Role', cell: (peer) => peer.role },
      { head: 'Sync', action: true, cell: (peer) => button('Sync', () => sync(peer), { key: `sync-${peer.id}`, label: `Sync with ${peer.name}` }) },
    ],
  });
}

/** Syncs and says how it goes; `said` shows the words. */
async function syncNow(peer, said) {
  const name = peer ? peer.name : 'every reachable server';
  for (let round = 0; round < ROUNDS; round += 1) {
    said('busy', ['Syncing with ', foreign(name), '…']);
    const answer = await post('/api/v1/sync', { ...(peer ? { peer: peer.id } : {}), wait_s: WAIT_S });
    if (answer.in_sync) return said('well', ['In sync: this server and ', foreign(name), ' hold the same.']);
    const reachable = answer.peers.filter((other) => other.state === 'connected');
    if (reachable.length === 0) return said('trouble', [foreign(name), peer ? ' is cut off. It catches up by itself when it is back.' : ': no server can be reached. They catch up by themselves when they are back.']);
  }
  return said('attention', ['Not yet equal with ', foreign(name), '. It goes on by itself.']);
}

/** What the node advises about a server that is away. */
function next(network, away) {
  const found = network.findings?.find((one) => one.check === `peer ${away.name}`);
  return found?.next ? el('p', {}, el('span', { class: 'quiet' }, 'To do: '), foreign(found.next)) : null;
}

function awayList(network) {
  const away = network?.away ?? [];
  if (away.length === 0) return el('p', { class: 'empty' }, 'Every known server is connected.');
  return el('ul', { class: 'away' }, away.map((one) => el('li', {},
    el('p', {}, el('strong', {}, foreign(one.name)), one.last_reached_s === null ? ' was never reached from here.' : ` was last reached ${span(one.last_reached_s)} ago.`),
    next(network, one), el('p', { class: 'quiet small' }, 'Is it running with another address? Its own page “Servers” tells where it is reached; type that below.'),
    one.tried?.length ? el('ul', { class: 'tried' }, one.tried.map(([address, words]) => el('li', {}, el('code', {}, foreign(address)), ' ', el('span', { class: 'quiet' }, foreign(words))))) : null)));
}

/** For the field on another server's page. */
function ownAddresses(own) {
  if (!own?.length) return null;
  return el('details', { key: 'own-addresses' }, el('summary', { class: 'quiet' }, 'Where this server is reached'),
    el('p', { class: 'quiet small' }, 'Where servers do not find each other, type one of these into this page on the other server:'),
    el('ul', { class: 'tried' }, own.map((address) => el('li', {}, el('code', {}, foreign(address))))));
}

function findings(network) {
  const told = new Set((network?.away ?? []).map((one) => `peer ${one.name}`));
  const list = (network?.findings ?? []).filter((one) => one.state !== 'ok' && !told.has(one.check));
  return list.map((one) => el('p', { class: 'finding-line' }, badge('attention', foreign(one.check)), ' ', foreign(one.found), one.next ? [el('br'), el('span', { class: 'quiet' }, 'To do: '), foreign(one.next)] : null));
}

function membersTable(members, act) {
  return table({
    caption: 'Everybody who was ever admitted. Where two rows claim one id, the row of the server with the lower seniority number keeps it.',
    rows: members,
    key: (member) => member.id,
    columns: [
      { head: 'Name', cell: (member) => foreign(member.name) },
      { head: 'Role', cell: (member) => member.role },
      { head: 'State', cell: (member) => (member.state === 'active' ? badge('well', 'member') : badge('unknown', foreign(`${member.state}${member.by ? ` by ${member.by}` : ''}`))) },
      { head: 'Seniority', number: true, cell: (member) => member.rank },
      { head: 'Key', cell: (member) => el('code', { title: member.id }, short(member.id)) },
      {
        head: 'Admission',
        action: true,
        cell: (member) => (member.own ? el('span', { class: 'quiet' }, 'this server')
          : member.state === 'active' ? button('Shut out…', () => act('revoke', member), { kind: 'plain', key: `revoke-${member.id}`, label: `Shut out ${member.name}` })
            : member.state === 'revoked' ? button('Let in again…', () => act('readmit', member), { kind: 'plain', key: `readmit-${member.id}`, label: `Let in ${member.name} again` }) : '–'),
      },
    ],
  });
}

export const page = {
  path: '/servers',
  title: 'Servers',
  build(root, { say, look }) {
    const said = el('div', { class: 'said', role: 'status', 'aria-live': 'polite' });
    const tell = (level, words) => said.replaceChildren(el('p', {}, badge(level, words)));
    const sync = (peer) => syncNow(peer, tell).then(look).catch((error) => tell('trouble', `Not synced: ${error.message}.`));
    const [peers, away, members] = [el('div', {}), el('div', {}), el('div', {})];
    const address = el('input', { id: 'peer-address', name: 'address', spellcheck: 'false', autocapitalize: 'off', placeholder: '/ip4/192.168.1.20/tcp/7481' });
    const form = el('form', { class: 'row-form', on: { submit: (event) => {
      event.preventDefault();
      post('/api/v1/peers', { address: address.value.trim() }).then(() => {
        say('This server stays connected to that address, also after a restart.');
        address.value = '';
        look();
      }).catch((error) => say(`Not added: ${error.message}.`));
    } } }, el('div', {}, el('label', { for: 'peer-address' }, 'Address of a server that is not found by itself'), address), el('button', { class: 'button', type: 'submit' }, 'Connect'));
    root.append(
      el('div', { class: 'title-line' }, el('h1', {}, 'Servers'), el('div', { class: 'actions' },
        button('Sync all', () => sync(null), { kind: 'primary', key: 'sync-all' }), el('a', { class: 'button', href: '#/invite' }, 'Invite a server'))),
      el('section', { class: 'panel', 'aria-label': 'Other servers' }, peers, said),
      el('section', { class: 'panel' }, heading(2, 'Ways to them'), away, form),
      el('section', { class: 'panel' }, heading(2, 'Members'), members));
    let own = '';
    let last = 0;
    const act = async (verb, member) => {
      const question = verb === 'revoke'
        ? `Shut ${member.name} out? It gets nothing any more, and nothing it writes from now on is taken. What it wrote before stays.`
        : `Let ${member.name} in again?`;
      if (!window.confirm(question)) return;
      try {
        await post(`/api/v1/members/${verb}`, verb === 'revoke' ? { name: member.name } : { name: member.name, role: 'member' });
        say(verb === 'revoke' ? 'Shut out. The other servers learn it with the next sync.' : 'Let in again.');
        last = 0;
        look();
      } catch (error) {
        say(`Not done: ${error.message}.`);
      }
    };
    const drawPeers = live(peers, (status) => [...clocks(status), peersTable(status, sync)]);
    const drawAway = live(away, (network) => [awayList(network), ...findings(network), ownAddresses(network.own)]);
    const drawMembers = live(members, (list) => membersTable(list, act));
    return {
      update(status) {
        own = status.node.id;
        drawPeers({ node: status.node.name && { name: status.node.name }, peers: status.peers.map((peer) => ({ ...peer, rtt_ms: 0, score: 0, addresses: [], clock_skew_ms: peer.clock_skew_ms === null ? null : Math.abs(peer.clock_skew_ms) < 1000 ? Math.round(peer.clock_skew_ms / 10) * 10 : Math.round(peer.clock_skew_ms / 1000) * 1000 })) });
        if (Date.now() - last < 8000) return;
        last = Date.now();
        get('/api/v1/peers').then((answer) => drawAway({ away: answer.network?.away, findings: answer.network?.findings, own: answer.own_addresses })).catch(() => {});
        if (has('get', '/api/v1/members')) get('/api/v1/members').then((answer) => drawMembers(answer.members.map((member) => ({ ...member, own: member.id === own })))).catch(() => {});
      },
    };
  },
};
