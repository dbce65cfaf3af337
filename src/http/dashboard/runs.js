// Runs of every kind, the node's own and the user's jobs: what is under way and how far, how each kind stands, and the
// history. Used by app.js.

import { every, get, has } from './api.js';
import { badge, button, el, foreign, heading, live, table } from './dom.js';
import { ago, bytes, count, number, short, took, when } from './words.js';

const PAGE = 50;

const STATUS = { success: ['well', 'done'], error: ['trouble', 'failed'], in_progress: ['busy', 'under way'], pending: ['unknown', 'not yet'] };

function status(word) {
  const [level, words] = STATUS[word] ?? ['unknown', word];
  return badge(level, words);
}

/** Servers are subjects of runs by the beginning of their keys; people know their names. */
const names = new Map();

const kindOf = (run) => [foreign(run.sync_type), run.subject ? [' ', el('span', { class: 'quiet' }, foreign(names.get(run.subject) ?? run.subject))] : null];

function underWay(run) {
  const known = run.records_total !== null && run.records_total > 0;
  const done = run.records_processed ?? 0;
  return el('li', { class: 'run' },
    el('div', { class: 'card-head' }, el('h3', {}, kindOf(run)), el('span', { class: 'quiet small' }, foreign(run.service_instance), ', since ', ago(run.sync_timestamp))),
    el('div', { class: 'progress' },
      el('progress', known ? { max: run.records_total, value: done, 'aria-label': `Progress of ${run.sync_type}` } : { 'aria-label': `${run.sync_type} is under way` }),
      el('span', { class: 'small quiet' }, known ? `${number(done)} of ${count(run.records_total, 'record')} (${Math.floor((100 * done) / run.records_total)} %)` : count(done, 'record'),
        run.message ? [' · ', foreign(run.message)] : null, run.heartbeat_at ? [' · last sign ', ago(run.heartbeat_at)] : null)));
}

/** One line for each kind with each server: before a server's name was known its runs were filed under its key. */
function together(list) {
  const found = new Map();
  const latest = (one, other, name) => (String(one[name] ?? '') >= String(other[name] ?? '') ? one : other);
  for (const kind of list) {
    const subject = names.get(kind.subject) ?? kind.subject;
    const key = `${kind.sync_type} ${subject}`;
    const other = found.get(key);
    if (!other) {
      found.set(key, { ...kind, subject });
      continue;
    }
    found.set(key, {
      ...latest(kind, other, 'last_attempt_timestamp'),
      subject,
      last_sync_timestamp: latest(kind, other, 'last_sync_timestamp').last_sync_timestamp,
      last_error_message: kind.last_error_message ?? other.last_error_message,
      successful_sync_count: kind.successful_sync_count + other.successful_sync_count,
      failed_sync_count: kind.failed_sync_count + other.failed_sync_count,
      total_records_processed: kind.total_records_processed + other.total_records_processed,
    });
  }
  return [...found.values()];
}

function kinds(list) {
  return table({
    caption: 'How each kind stands',
    hideCaption: true,
    empty: 'Nothing has run yet.',
    rows: list,
    key: (kind) => `${kind.sync_type} ${kind.subject}`,
    columns: [
      { head: 'Kind', cell: kindOf },
      { head: 'Last', cell: (kind) => status(kind.last_sync_status) },
      { head: 'Ended well', cell: (kind) => ago(kind.last_sync_timestamp) },
      { head: 'Well', number: true, cell: (kind) => number(kind.successful_sync_count) },
      { head: 'Failed', number: true, cell: (kind) => number(kind.failed_sync_count) },
      { head: 'Records', number: true, cell: (kind) => number(kind.total_records_processed) },
      { head: 'Reached', cell: (kind) => (kind.watermark ? foreign(kind.watermark) : el('span', { class: 'quiet' }, '–')) },
      { head: 'Last error', cell: (kind) => (kind.last_error_message ? foreign(kind.last_error_message) : el('span', { class: 'quiet' }, 'none')) },
    ],
  });
}

function history(runs) {
  return table({
    caption: 'History, newest first',
    hideCaption: true,
    empty: 'No run fits.',
    rows: runs,
    key: (run) => run.id,
    columns: [
      { head: 'Kind', cell: (run) => [kindOf(run), run.runs > 1 ? el('span', { class: 'quiet small' }, ` × ${number(run.runs)}`) : null] },
      { head: 'Status', cell: (run) => status(run.status) },
      { head: 'Began', cell: (run) => when(run.sync_timestamp) },
      { head: 'Took', number: true, cell: (run) => (run.duration_seconds === null ? '–' : took(run.duration_seconds)) },
      { head: 'Records', number: true, cell: (run) => (run.records_processed === null ? '–' : number(run.records_processed)) },
      { head: 'Bytes', number: true, cell: (run) => (run.bytes ? bytes(run.bytes) : '–') },
      { head: 'Note', cell: (run) => (run.error_message ? [run.error_message.startsWith(run.error_class) ? null : el('strong', {}, foreign(`${run.error_class ?? 'error'} `)), foreign(run.error_message)] : run.message ? foreign(run.message) : el('span', { class: 'quiet' }, '–')) },
    ],
  });
}

export const page = {
  path: '/runs',
  title: 'Runs',
  needs: ['get', '/api/v1/runs'],
  build(root) {
    const [now, stand, past] = [el('div', {}), el('div', {}), el('div', {})];
    const said = el('p', { class: 'quiet small', role: 'status' });
    const kind = el('select', { id: 'run-kind' }, el('option', { value: '' }, 'Every kind'));
    const state = el('select', { id: 'run-state' }, [['', 'Every status'], ['error', 'Failed'], ['success', 'Done'], ['in_progress', 'Under way']].map(([value, words]) => el('option', { value }, words)));
    let limit = PAGE;
    const drawNow = live(now, (runs) => (runs.length === 0 ? el('p', { class: 'empty' }, 'Nothing is under way.') : el('ul', { class: 'cards' }, runs.map(underWay))));
    const drawKinds = live(stand, kinds);
    const drawPast = live(past, ({ runs, more }) => [history(runs), more ? button('Show more', () => { limit += PAGE; ask.soon(); ask(); }, { key: 'more-runs' }) : null]);
    const ask = every(2000, async () => {
      const [under, page] = await Promise.all([get('/api/v1/runs', { status: 'in_progress', limit: 20 }), get('/api/v1/runs', { kind: kind.value, status: state.value, limit })]);
      drawNow(under.runs.filter((run) => run.sync_type !== 'connection'));
      drawPast({ runs: page.runs, more: page.next_before !== null });
      if (!has('get', '/api/v1/runs/kinds')) return;
      const { kinds: all } = await get('/api/v1/runs/kinds');
      drawKinds(together(all));
      for (const name of new Set(all.map((one) => one.sync_type))) {
        if (!Array.from(kind.options).some((option) => option.value === name)) kind.append(el('option', { value: name }, name));
      }
    });
    const again = () => { limit = PAGE; ask.soon(); ask(); };
    kind.addEventListener('change', again);
    state.addEventListener('change', again);
    root.append(
      el('h1', {}, 'Runs'),
      el('section', { class: 'panel' }, heading(2, 'Under way', said), now),
      el('section', { class: 'panel' }, heading(2, 'How each kind stands'), stand),
      el('section', { class: 'panel' }, heading(2, 'History'), el('div', { class: 'row-form' },
        el('div', { class: 'narrow' }, el('label', { for: 'run-kind' }, 'Kind'), kind), el('div', { class: 'narrow' }, el('label', { for: 'run-state' }, 'Status'), state)), past));
    return {
      update(status) {
        for (const peer of status.peers) names.set(peer.id, peer.name).set(short(peer.id), peer.name);
        ask();
      },
    };
  },
};
