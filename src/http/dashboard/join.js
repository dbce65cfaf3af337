// How this server joined: the plan of what happened to the rows that were here, table by table, and how far a join is.
// Used by care.js.

import { get, has } from './api.js';
import { badge, el, foreign, heading, live, table } from './dom.js';
import { bytes, count, number, percent, span } from './words.js';

function joining(view) {
  if (!view) return null;
  const part = view.rows ? view.rows_done / view.rows : 0;
  const done = view.stage === 'complete';
  return el('div', { class: 'progress' },
    el('p', {}, badge(done ? 'well' : 'busy', done ? 'Joined' : `Joining: ${view.stage}`), ` ${number(view.rows_done)} of ${count(view.rows, 'row')}, ${bytes(view.bytes)}, history ${view.history_percent} %, ${span(view.running_ms / 1000)}`),
    done ? null : el('progress', { max: 1, value: part, 'aria-label': `Join: ${percent(part)}` }));
}

const COUNTS = [
  ['equal', 'Equal'], ['only_here', 'Only here'], ['only_there', 'Only there'], ['newer_there', 'Newer there'], ['edited_here', 'Edited here'],
  ['same_id_different', 'Same id, different'], ['cells_lost', 'Values that gave way'],
];

function tables(database) {
  const rows = database.tables.filter((row) => row.here > 0 || row.there > 0);
  const used = COUNTS.filter(([name]) => rows.some((row) => row[name] > 0));
  return [
    el('h3', {}, foreign(database.name), ' ', el('span', { class: 'quiet' }, `read as ${{ copy: 'a copy', independent: 'rows of its own', base: 'a copy of an older file', first: 'the first of its kind' }[database.meeting] ?? database.meeting}`)),
    table({
      caption: `What the join did to the tables of ${database.name}`, hideCaption: true, empty: 'Both sides were empty.', rows,
      columns: [
        { head: 'Table', cell: (row) => [foreign(row.table), row.accounts ? el('span', { class: 'quiet small' }, ' accounts') : null] },
        ...used.map(([name, head]) => ({ head, number: true, cell: (row) => number(row[name]) })),
        { head: 'Ids that moved', cell: (row) => (row.moves.length ? row.moves.map((move) => `${count(move.rows, 'row')} by +${number(move.by)}`).join(', ') : '–') },
      ],
    }),
  ];
}

function draw({ plan, view }) {
  return [
    joining(view),
    plan ? [
      plan.warnings.length ? el('ul', { class: 'plain-list' }, plan.warnings.map((warning) => el('li', {}, badge('attention', foreign(warning))))) : null,
      plan.databases.map(tables),
    ] : el('p', { class: 'empty' }, 'No plan of a join lies on this server: it founded the cluster, or had no rows when it joined. The plan for a new server is shown there by litemesh join CODE --plan.'),
  ];
}

export function joinPanel(root) {
  const place = el('div', {});
  root.append(el('section', { class: 'panel' }, heading(2, 'Join'), place));
  const again = live(place, draw);
  return async () => {
    const plan = has('get', '/api/v1/join') ? (await get('/api/v1/join')).plan : null;
    const status = await get('/api/v1/status');
    again({ plan, view: status.joining });
  };
}
