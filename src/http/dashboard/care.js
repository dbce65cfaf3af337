// Upkeep of this machine: who holds what and whether it can be unplugged, the checks of the installation, alerts, what
// the disk holds and the cleanup, the plan of a join. Used by app.js.

import { every, get, has, post } from './api.js';
import { badge, button, el, foreign, heading, live, table } from './dom.js';
import { joinPanel } from './join.js';
import { ago, bytes, count, number } from './words.js';

function receipts(view) {
  return [
    el('p', { class: 'unplug' }, view.safe_to_unplug ? badge('well', 'Safe to unplug') : badge('attention', 'Keep it on')),
    el('p', {}, foreign(view.sentence.replace(/^safe to unplug: /, ''))),
    view.only_here.tables.length ? table({
      caption: 'Rows that exist only here', rows: view.only_here.tables,
      columns: [{ head: 'Table', cell: (row) => foreign(`${row.database}.${row.table}`) }, { head: 'Rows', number: true, cell: (row) => number(row.rows) }],
    }) : null,
    view.peers.length ? table({
      caption: 'What the others are known to hold', rows: view.peers, key: (peer) => peer.id,
      columns: [
        { head: 'Server', cell: (peer) => foreign(peer.name) },
        { head: 'Holds', cell: (peer) => (peer.holds_everything ? badge('well', 'everything') : badge('attention', peer.as_of ? `all but ${count(peer.lacks, 'event')}` : 'nothing that is known')) },
        { head: 'As of', cell: (peer) => ago(peer.as_of) },
        { head: 'Known by', cell: (peer) => peer.way || '–' },
      ],
    }) : null,
  ];
}

/** What is wrong first; what is well is folded away. */
function checks(list) {
  const order = { failed: 0, warning: 1 };
  const well = list.filter((check) => check.state === 'ok');
  const wrong = list.filter((check) => check.state !== 'ok').sort((a, b) => (order[a.state] ?? 1) - (order[b.state] ?? 1));
  return [
    wrong.length ? checksTable('Checks that found something', wrong) : el('p', {}, badge('well', 'Nothing is wrong with this installation')),
    well.length ? el('details', { key: 'checks-well' }, el('summary', { class: 'quiet' }, `${count(well.length, 'check')} found nothing`), checksTable('Checks that found nothing', well)) : null,
  ];
}

function checksTable(caption, rows) {
  return table({
    caption, hideCaption: true, rows,
    columns: [
      { head: 'Check', cell: (check) => foreign(check.check) },
      { head: 'State', cell: (check) => badge(check.state === 'ok' ? 'well' : check.state === 'failed' ? 'trouble' : 'attention', check.state) },
      { head: 'Found', wide: true, cell: (check) => foreign(check.found) },
      { head: 'To do', wide: true, zero: (check) => !check.next, cell: (check) => (check.next ? foreign(check.next) : el('span', { class: 'quiet' }, 'nothing')) },
    ],
  });
}

function alerts({ alerts: open, past = [], channels = [] }) {
  return [el('p', { class: 'quiet' }, channels.length ? ['Told by ', foreign(channels.join(', ')), ' too.'] : 'Told here and in the log only: [alerts] in litemesh.toml names no webhook and no mail server.'), table({
    caption: 'Alerts', hideCaption: true, empty: 'No alert.', rows: [...open, ...past], key: (alert) => `${alert.key} ${alert.raised_at}`,
    columns: [
      { head: 'What', cell: (alert) => foreign(alert.message) },
      { head: 'State', cell: (alert) => (alert.recovered_at ? badge('well', ['over ', ago(alert.recovered_at)]) : badge(alert.severity === 'critical' ? 'trouble' : 'attention', foreign(alert.severity))) },
      { head: 'Since', cell: (alert) => ago(alert.raised_at) },
      { head: 'To do', wide: true, cell: (alert) => (alert.next_step ? foreign(alert.next_step) : '–') },
    ],
  })];
}

function tested(channels) {
  if (channels.length === 0) return 'No channel is set up: name a webhook or a mail server in [alerts] of litemesh.toml.';
  return channels.map((one) => `${one.channel}: ${one.ok ? 'taken' : one.detail}`).join('; ');
}

function disk(view) {
  const parts = [
    ...(view.free_bytes ? [['Free on this disk', view.free_bytes, '']] : []),
    ['Event log', view.log_bytes, count(view.log_events, 'event')],
    ['Archive', view.segment_bytes, `${count(view.segment_events, 'event')} in ${count(view.segments, 'segment')}`],
    ...view.databases.map((database) => [`File of ${database.name}`, database.file_bytes, '']),
  ];
  return [
    table({
      caption: 'What takes room', hideCaption: true, rows: parts,
      columns: [{ head: 'What', cell: (part) => foreign(part[0]) }, { head: 'Size', number: true, cell: (part) => bytes(part[1]) }, { head: 'Holds', cell: (part) => part[2] || '–' }],
    }),
    view.segments_missing.length ? el('p', {}, badge('trouble', `${count(view.segments_missing.length, 'segment')} of the archive missing or cut short`)) : null,
  ];
}

/** The archive: fetch what is missing of it from the others, or copy it whole to a folder of this machine. */
function archiveForm(say) {
  const out = el('input', { id: 'archive-out', required: true, placeholder: '/media/stick/season-2026', spellcheck: 'false', autocapitalize: 'off', autocomplete: 'off' });
  const repair = () => post('/api/v1/archive/repair').then(() => say('The archive is read; what is missing or damaged comes from the other servers.')).catch((error) => say(['Not repaired: ', foreign(error.message)]));
  const submit = async (event) => {
    event.preventDefault();
    try {
      // Everything that every member holds goes into segments first, whatever its age: else the copy would lack the season's end.
      const moved = await post('/api/v1/cleanup', { all: true });
      if (moved.state === 'running') return say('The log is being moved into the archive first: say it again when the cleanup below is done.');
      if (moved.success === false) return say(['Not copied: ', foreign(moved.problem ?? '')]);
      const made = await post('/api/v1/archive', { out: out.value.trim() });
      say([`${count(made.events, 'event')} (${bytes(made.bytes)}) copied into `, foreign(made.path), '. To check the copy where it lies: litemesh archive verify']);
      return undefined;
    } catch (error) {
      return say(['Not copied: ', foreign(error.message)]);
    }
  };
  return el('form', { class: 'row-form', 'aria-label': 'Archive', on: { submit } },
    el('div', {}, el('label', { for: 'archive-out' }, 'Archive the season: copy all that every server holds into a folder of this machine'), out),
    el('button', { class: 'button', type: 'submit' }, 'Copy'), has('post', '/api/v1/archive/repair') ? button('Check and repair the archive', repair, { key: 'archive-repair' }) : null);
}

function cleanup(view) {
  if (!view.state) return el('p', { class: 'empty' }, 'No cleanup has run since the start.');
  const level = { done: 'well', running: 'busy', planned: 'busy', failed: 'trouble' }[view.state] ?? 'unknown';
  return [
    el('p', {}, badge(level, view.state), ' ', `${count(view.removed, 'event')} of ${number(view.wanted)} moved into the archive`, view.ended ? [', ', ago(view.ended)] : null, '.'),
    view.state === 'running' ? el('progress', { max: Math.max(1, view.wanted), value: view.removed, 'aria-label': 'Cleanup' }) : null,
    view.problem ? el('p', {}, badge('trouble', foreign(view.problem))) : null,
    view.blocked > 0 ? el('p', {}, `${count(view.blocked, 'event')} ${view.blocked === 1 ? 'waits' : 'wait'} until these hold them too: `, view.blocking.map((peer, at) => [at ? ', ' : '', foreign(peer.name)]), '.') : null,
  ];
}

function cleanupForm(say, ask) {
  const days = el('input', { id: 'cleanup-days', type: 'number', min: 0, max: 3650, value: 30, required: true });
  const plan = async () => {
    try {
      const view = await post('/api/v1/cleanup', { days_to_keep: Number(days.value), dry_run: true });
      say(`${count(view.wanted, 'event')} would move into the archive${view.blocked > 0 ? `; ${number(view.blocked)} more wait until other servers hold them too` : ''}. Nothing was moved.`);
    } catch (error) {
      say(['No plan: ', foreign(error.message)]);
    }
  };
  const submit = async (event) => {
    event.preventDefault();
    try {
      const done = await post('/api/v1/cleanup', { days_to_keep: Number(days.value) });
      say(done.success === false ? ['Not cleaned up: ', foreign(done.problem ?? '')] : `${count(done.removed ?? 0, 'event')} moved out of the log; nothing that anybody needs was dropped.`);
    } catch (error) {
      say(['Not cleaned up: ', foreign(error.message)]);
    }
    ask.soon();
    ask();
  };
  return el('form', { class: 'row-form', 'aria-label': 'Cleanup', on: { submit } },
    el('div', { class: 'narrow' }, el('label', { for: 'cleanup-days' }, 'Days to keep in the log'), days),
    button('What would it move?', plan, { key: 'cleanup-plan' }), el('button', { class: 'button', type: 'submit' }, 'Clean up'));
}

/** A panel that shows what an endpoint gives, or that this version does not have it. */
function panel(root, title, path, draw, { pick = (answer) => answer, more = [], below = [] } = {}) {
  const place = el('div', {});
  const known = has('get', path);
  root.append(el('section', { class: 'panel' }, heading(2, title, ...(known ? more : [])), known ? place : el('p', { class: 'empty' }, 'Not available on this version.'), known ? below : null));
  const again = live(place, draw);
  return async () => {
    if (known) again(pick(await get(path)));
  };
}

export const page = {
  path: '/care',
  title: 'Upkeep',
  build(root, { say }) {
    root.append(el('h1', {}, 'Upkeep'));
    const asks = [];
    const ask = every(5000, () => Promise.allSettled(asks.map((one) => one())));
    const test = () => post('/api/v1/alerts/test').then((answer) => say(foreign(tested(answer.channels ?? [])))).catch((error) => say(['Not sent: ', foreign(error.message)]));
    asks.push(panel(root, 'Who holds what', '/api/v1/receipts', receipts));
    asks.push(panel(root, 'Checks', '/api/v1/doctor', checks, { pick: (answer) => answer.checks }));
    asks.push(panel(root, 'Alerts', '/api/v1/alerts', alerts, { more: has('post', '/api/v1/alerts/test') ? [button('Send a test', test, { key: 'test-alert' })] : [] }));
    asks.push(panel(root, 'Disk and archive', '/api/v1/disk', disk, { below: has('post', '/api/v1/archive') ? [archiveForm(say)] : [] }));
    asks.push(panel(root, 'Cleanup', '/api/v1/cleanup', cleanup, { below: [cleanupForm(say, ask)] }));
    asks.push(joinPanel(root));
    return { update: ask };
  },
};
