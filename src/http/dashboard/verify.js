// Verification and drift: compare the files with the log, see what differed and why, repair it; and check every hash
// and signature of the log. Used by app.js.

import { every, get, has, post } from './api.js';
import { badge, button, el, foreign, heading, live, table, value } from './dom.js';
import { ago, count, number, percent, when } from './words.js';

const TIERS = [
  ['count', 'Count: how many rows there are'], ['ids', 'Ids: which rows there are'],
  ['checksum', 'Checksum: sums over ranges of rows'], ['full', 'Full: every value of every row'],
];
const STATES = { waiting: ['unknown', 'waits'], running: ['busy', 'running'], done: ['well', 'done'], failed: ['trouble', 'failed'] };

function state(run) {
  if (run.state === 'running') {
    return el('div', { class: 'progress' }, el('progress', { max: 1, value: run.progress, 'aria-label': `Verification ${run.number}` }), el('span', { class: 'quiet small' }, percent(run.progress)));
  }
  if (run.state === 'done' && run.drift > 0) return badge(run.drift > run.healed ? 'trouble' : 'attention', run.drift > run.healed ? 'differs' : 'repaired');
  if (run.state === 'done') return badge('well', 'equal');
  const [level, words] = STATES[run.state] ?? ['unknown', run.state];
  return [badge(level, words), run.reason ? el('p', { class: 'small' }, foreign(run.reason)) : null];
}

function runs(list) {
  return table({
    caption: 'Verifications, newest first',
    hideCaption: true,
    empty: 'None has run yet.',
    rows: list,
    key: (run) => run.number,
    columns: [
      { head: 'Verification', cell: (run) => [`#${run.number} `, foreign(run.database)] },
      { head: 'Result', cell: state },
      { head: 'Depth', cell: (run) => run.tier },
      { head: 'Began', cell: (run) => when(run.started) },
      { head: 'Rows', number: true, cell: (run) => number(run.rows) },
      { head: 'Differ', number: true, cell: (run) => number(run.drift) },
      { head: 'Repaired', number: true, cell: (run) => number(run.healed) },
      { head: 'By', cell: (run) => (run.by_hand ? 'a person' : 'itself') },
    ],
  });
}

function drift(page) {
  const waiting = page.waiting > 0
    ? badge('trouble', `${count(page.waiting, 'difference')} ${page.waiting === 1 ? 'waits' : 'wait'} for you: verify with repair`)
    : badge('well', 'Nothing waits for you');
  return [
    el('p', {}, waiting),
    page.patterns.sentences.length ? el('ul', { class: 'plain-list' }, page.patterns.sentences.map((sentence) => el('li', {}, foreign(sentence)))) : null,
    table({
      caption: `Differences on ${page.node}, newest first`,
      hideCaption: true,
      empty: 'File and log never differed on this server.',
      rows: [...page.drift].reverse(),
      key: (one) => one.number,
      columns: [
        { head: 'Row', cell: (one) => [foreign(`${one.database}${one.table ? `.${one.table}` : ''}`), ' ', one.id ? el('a', { href: `#/activity?${new URLSearchParams({ row: `${one.database}.${one.table} ${one.id}` })}` }, foreign(one.id)) : null] },
        { head: 'Found', cell: (one) => ago(one.found) },
        { head: 'Likely cause', cell: (one) => foreign(one.cause.replace(/-/g, ' ')) },
        { head: 'What became of it', cell: (one) => badge(one.action === 'waits' ? 'trouble' : one.healed ? 'well' : 'busy', foreign(one.action.replace(/-/g, ' '))) },
        {
          head: 'File and log', wide: true,
          cell: (one) => el('details', { key: `drift-${one.number}` }, el('summary', {}, foreign(one.sentence)),
            el('dl', { class: 'cells' }, one.values.map(([column, file, log]) => [el('dt', {}, foreign(column)), el('dd', {}, 'file ', value(file), ' · log ', value(log))]))),
        },
      ],
    }),
  ];
}

function missing(words) {
  return el('p', { class: 'empty' }, `${words}: not available on this version.`);
}

/** Checks every chain of hashes and every signature of the log. */
function logPanel() {
  const result = el('div', { role: 'status', 'aria-live': 'polite' });
  const check = async (event) => {
    const pressed = event.currentTarget;
    pressed.disabled = true;
    result.replaceChildren(el('p', {}, badge('busy', 'Reading the whole log…')));
    try {
      const report = await post('/api/v1/log/verify');
      result.replaceChildren(report.faults.length === 0
        ? el('p', {}, badge('well', `${count(report.events, 'event')} of ${count(report.origins, 'author')}: every hash and signature is right`))
        : el('ul', { class: 'plain-list' }, report.faults.map((fault) => el('li', {}, badge('trouble', foreign(fault))))));
    } catch (error) {
      result.replaceChildren(el('p', {}, badge('trouble', ['Not checked: ', foreign(error.message)])));
    } finally {
      pressed.disabled = false;
    }
  };
  return el('section', { class: 'panel' }, heading(2, 'The event log'),
    el('p', { class: 'quiet' }, 'Every event is signed by its author and holds the hash of the one before: nobody can change history unseen.'),
    el('div', { class: 'actions' }, button('Check the log', check, { key: 'check-log' })), result);
}

export const page = {
  path: '/verify',
  title: 'Verify',
  build(root, { say }) {
    const known = has('get', '/api/v1/verify');
    const [list, differences] = [el('div', {}), el('div', {})];
    const tier = el('select', { id: 'verify-tier' }, TIERS.map(([word, words]) => el('option', { value: word, selected: word === 'full' }, words)));
    const database = el('select', { id: 'verify-db' }, el('option', { value: '' }, 'All databases'));
    const repair = el('input', { id: 'verify-repair', type: 'checkbox' });
    const drawRuns = live(list, runs);
    const drawDrift = live(differences, drift);
    const ask = every(1500, async () => {
      if (known) drawRuns((await get('/api/v1/verify', { limit: 20 })).runs);
      if (has('get', '/api/v1/drift')) drawDrift(await get('/api/v1/drift', { limit: 100 }));
    });
    const submit = async (event) => {
      event.preventDefault();
      try {
        await post('/api/v1/verify', { tier: tier.value, repair: repair.checked, ...(database.value ? { db: database.value } : {}) });
        say('The verification is in line; its progress is shown below.');
        ask.soon();
        ask();
      } catch (error) {
        say(['Not verified: ', foreign(error.message)]);
      }
    };
    root.append(
      el('h1', {}, 'Verify'),
      el('section', { class: 'panel' }, heading(2, 'Compare the files with the log'),
        known ? el('form', { class: 'row-form', on: { submit } },
          el('div', {}, el('label', { for: 'verify-tier' }, 'How deep'), tier),
          el('div', { class: 'narrow' }, el('label', { for: 'verify-db' }, 'Which'), database),
          el('div', { class: 'check' }, repair, el('label', { for: 'verify-repair' }, 'Repair what differs')),
          el('button', { class: 'button primary', type: 'submit' }, 'Verify')) : missing('Verification of the files'),
        list),
      el('section', { class: 'panel' }, heading(2, 'Drift'), has('get', '/api/v1/drift') ? differences : missing('The drift history')),
      logPanel());
    return {
      update(status) {
        for (const { name } of status.databases) {
          if (!Array.from(database.options).some((option) => option.value === name)) database.append(el('option', { value: name }, name));
        }
        ask();
      },
    };
  },
};
