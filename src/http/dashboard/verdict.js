// The one verdict: from what the node says to "all is well", or what is wrong, why, and what to do. Pure: facts in,
// words out. Used by app.js, which shows it on top of every page.

import { agoWords, count, list, moment, number, span } from './words.js';

/** A clock that is off by more than this makes changes win or lose wrongly. */
const SKEW_MS = 60_000;

/** Fewer events on the way are the ordinary course of things. */
const MANY = 20;

const ORDER = { trouble: 0, attention: 1, busy: 2 };

/** Names go through as they are: whoever shows them treats them as foreign text. */
function finding(level, what, why, todo, to) {
  return { level, what, why, todo, to };
}

/** Whose clock is wrong: the machine that is far from the middle of all that are heard. With two, nobody can tell. */
export function wrongClocks(status) {
  const heard = status.peers.filter((peer) => peer.state === 'connected' && peer.clock_skew_ms !== null && peer.clock_skew_ms !== undefined);
  const clocks = [{ name: status.node.name, own: true, skew: 0 }, ...heard.map((peer) => ({ name: peer.name, own: false, skew: peer.clock_skew_ms }))];
  if (clocks.length < 3) {
    return clocks.filter((clock) => Math.abs(clock.skew) >= SKEW_MS).map((clock) => ({ ...clock, off: clock.skew, sure: false }));
  }
  const sorted = clocks.map((clock) => clock.skew).sort((a, b) => a - b);
  const middle = sorted[Math.floor((sorted.length - 1) / 2)];
  return clocks.map((clock) => ({ ...clock, off: clock.skew - middle, sure: true })).filter((clock) => Math.abs(clock.off) >= SKEW_MS);
}

function clockFindings(status) {
  return wrongClocks(status).map((clock) => {
    const off = `${span(Math.abs(clock.off) / 1000)} ${clock.off > 0 ? 'ahead' : 'behind'}`;
    if (!clock.sure) {
      return finding('attention', `The clocks of ${status.node.name} and ${clock.name} are ${span(Math.abs(clock.off) / 1000)} apart`,
        'With two machines nobody can tell which one is wrong. No row is lost, but a later change may lose against an earlier one.',
        'Look at both clocks and set the wrong one.', '#/servers');
    }
    const whose = clock.own ? `The clock of this machine (${clock.name})` : `The clock of ${clock.name}`;
    return finding('attention', `${whose} is ${off}`, 'The other servers agree with each other. No row is lost, but a later change may lose against an earlier one.',
      `Set the clock of ${clock.name}.`, '#/servers');
  });
}

function databaseFindings(status) {
  const found = [];
  for (const database of status.databases) {
    if (!database.state.startsWith('ok')) {
      found.push(finding('trouble', `The database ${database.name} is in trouble`, `${database.state}.`, 'Look at the checks of this installation, then at the file and the disk it lies on.', '#/care'));
    } else if (database.state !== 'ok') {
      found.push(finding('busy', `The database ${database.name} is not yet up to date`, `${database.state.replace(/^ok: /, '')}.`, 'Wait: it goes on by itself.', '#/data'));
    }
    if (database.held_events > 0 && database.state === 'ok') {
      found.push(finding('attention', `${count(database.held_events, 'event')} for ${database.name} cannot be shown here yet`, 'Other servers use tables or columns that this one does not have, or something they rest on has not arrived.',
        'Update the application on this machine, or wait until all servers have been connected.', '#/data'));
    }
  }
  return found;
}

function peerFindings(status) {
  const away = status.peers.filter((peer) => peer.state !== 'connected');
  const found = [];
  if (away.length > 0 && away.length === status.peers.length) {
    const waiting = Math.max(...away.map((peer) => peer.ahead));
    found.push(finding('trouble', away.length === 1 ? `Cut off from ${away[0].name}` : 'Cut off from every other server',
      `${waiting > 0 ? `${count(waiting, 'event')} made here wait for the others` : 'Nothing made here waits for them'}. Work goes on; nothing is lost.`,
      'Look at the network of this machine, then at the other servers.', '#/servers'));
  } else {
    for (const peer of away) {
      const waiting = peer.ahead > 0 ? `It lacks ${count(peer.ahead, 'event')}; ${peer.ahead === 1 ? 'it waits' : 'they wait'} here` : 'It lacked nothing';
      found.push(finding('attention', `${peer.name} is cut off`, `Last seen ${agoWords(peer.last_seen)}. ${waiting}.`,
        `Is ${peer.name} switched on and in the network? It catches up by itself as soon as it is back.`, '#/servers'));
    }
  }
  for (const peer of status.peers.filter((other) => other.content?.state === 'differs')) {
    found.push(finding('trouble', `${peer.name} shows other rows than this machine`, `${peer.content.rows > 0 ? `${count(peer.content.rows, 'row')} differ` : 'The contents differ'} though both hold the same events.`,
      'Verify this machine and that one.', '#/care'));
  }
  const behind = status.peers.filter((peer) => peer.state === 'connected' && peer.behind >= MANY);
  if (behind.length > 0) {
    const left = behind.map((peer) => peer.pull?.left_s).filter((seconds) => seconds !== undefined && seconds !== null);
    found.push(finding('busy', `${count(Math.max(...behind.map((peer) => peer.behind)), 'event')} on the way here`, `From ${list(behind.map((peer) => peer.name))}${left.length ? `, ${span(Math.max(...left))} left` : ''}.`, 'Wait: it goes on by itself.', '#/servers'));
  }
  for (const peer of status.peers.filter((other) => other.unknown_frames > 0)) {
    found.push(finding('attention', `${peer.name} runs a newer version`, `${count(peer.unknown_frames, 'message')} of kinds that this version does not know were skipped.`, 'Update litemesh on this machine.', '#/servers'));
  }
  return found;
}

function rowFindings(status, more) {
  const found = [];
  const shelved = status.databases.reduce((sum, database) => sum + database.shelved, 0);
  if (shelved > 0) {
    const [way, back] = shelved === 1 ? ['its', 'It is kept and comes back by itself'] : ['their', 'They are kept and come back by themselves'];
    found.push(finding('attention', `${count(shelved, 'row')} cannot be shown in the application`, `Something stands in ${way} way, such as another row with the same unique value. ${back}.`, 'Look at the shelf: it says what stands in the way.', '#/shelf'));
  }
  if (more.drift?.waiting > 0) {
    found.push(finding('trouble', `${count(more.drift.waiting, 'row')} of the files differ from the log`, 'A verification found them and cannot repair them without you.', 'Look at the drift and repair it.', '#/care'));
  }
  return found;
}

/** Rules whose matter is found above already, and said better. */
const SAID_ABOVE = /^(peer_unseen|clock|shelf|drift|database)/;

/** The same by their words: the status may know of an alert before its key is asked for. */
const SAID_IN_WORDS = /^the shelf of /;

function told(status, alerts) {
  const watched = alerts.filter((alert) => !alert.recovered_at && !SAID_ABOVE.test(alert.key))
    .map((alert) => finding(alert.severity === 'critical' ? 'trouble' : 'attention', alert.message, '', alert.next_step, '#/care'));
  const words = status.alerts.filter((text) => !SAID_IN_WORDS.test(text) && !alerts.some((alert) => alert.message === text));
  return [...watched, ...words.map((text) => finding('attention', text, '', '', '#/care'))];
}

/** The verdict. `more` holds what only some versions can say. */
export function verdict(status, more = {}) {
  const found = [...databaseFindings(status), ...peerFindings(status), ...clockFindings(status), ...rowFindings(status, more)];
  if (status.node.role === 'none') {
    found.push(finding('trouble', 'This machine is no member of the cluster any more', 'Another server shut it out. What was written here since then travels nowhere.', 'Ask an admin of the cluster to let it in again.', '#/servers'));
  }
  found.push(...told(status, more.alerts ?? []));
  found.sort((a, b) => ORDER[a.level] - ORDER[b.level]);
  const rows = status.databases.reduce((sum, database) => sum + database.rows, 0);
  const worst = found[0]?.level ?? 'well';
  const problems = found.filter((one) => one.level !== 'busy');
  if (worst === 'well') {
    const servers = status.cluster.members;
    const moving = status.peers.reduce((most, peer) => Math.max(most, peer.behind, peer.ahead), 0);
    const but = moving > 0 ? `, but for ${count(moving, 'event')} just on the way` : '';
    const words = servers > 1 ? `${number(servers)} servers hold the same ${count(rows, 'row')}${but}.` : `This is the only server so far. It holds ${count(rows, 'row')}.`;
    return { level: 'well', headline: 'All is well', words, found };
  }
  if (worst === 'busy') return { level: 'busy', headline: 'Catching up', words: found[0].what, found };
  const headline = problems.length === 1 ? problems[0].what : `${number(problems.length)} things need you`;
  return { level: worst, headline, words: rest(status), found };
}

/** What holds in spite of it. */
function rest(status) {
  const connected = status.peers.filter((peer) => peer.state === 'connected').length + 1;
  const servers = status.peers.length + 1;
  const reach = servers === 1 ? '' : `${number(connected)} of ${number(servers)} servers are connected. `;
  return `${reach}Work goes on; nothing is lost.`;
}

/** What to show when the node does not answer. */
export function silence(since) {
  return {
    level: 'trouble',
    headline: 'The node does not answer',
    words: `Last heard ${agoWords(new Date(since).toISOString())}. What is shown below is from then.`,
    found: [finding('trouble', 'The node does not answer', 'The program has stopped, or is starting. The application goes on writing; nothing is lost.', 'Start it again on this machine: litemesh run', null)],
  };
}

/** Seconds since a peer was seen; for the map. */
export function silentFor(peer) {
  const at = moment(peer.last_seen);
  return Number.isNaN(at) ? null : Math.max(0, (Date.now() - at) / 1000);
}
