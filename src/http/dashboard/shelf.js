// The shelf: rows that live but cannot be shown in the application now, why, and what they hold. Used by app.js.

import { get, post } from './api.js';
import { button, el, foreign, live, value } from './dom.js';

/** What stands in the row's way, and what a person can do about it. */
function advice(row, same) {
  const place = `${row.database}.${row.table}`;
  const holder = () => el('a', { href: `#/activity?${new URLSearchParams({ row: `${place} ${row.holder}` })}`, title: 'Every version of that row' }, 'row ', foreign(row.holder));
  if (row.key?.length) {
    const key = () => foreign(row.key.join(', '));
    const held = row.key.map((column) => row.cells.find(([name]) => name === column)?.[1] ?? '').filter(Boolean);
    return [
      el('p', {}, 'In the application ', holder(), ' has the same ', el('strong', {}, key()), held.length ? [' (', held.map((text, at) => [at ? ', ' : '', value(text)]), ')'] : null, '; only one row can.'),
      el('ul', { class: 'todo-list' },
        el('li', {}, el('strong', {}, 'They are two things: '), 'give ', holder(), ' another ', key(), ' in the application, or delete it there. This one comes back at once.'),
        el('li', {}, el('strong', {}, 'They are the same thing: '), button('Make them one row', () => same(row), { key: `same-${row.row}`, label: `Make row ${row.id || row.row} and row ${row.holder} one` }))),
    ];
  }
  const reason = el('p', {}, foreign(row.reason.charAt(0).toUpperCase() + row.reason.slice(1)), '.');
  const todo = row.holder ? ['Bring ', holder(), ' back, or free it first: this one follows by itself.'] : ['Look at what SQLite refuses, mend it in the application (on all servers), then: Try again now.'];
  return [reason, el('p', {}, el('span', { class: 'todo-mark' }, 'To do: '), todo)];
}

function card(row, same) {
  const place = `${row.database}.${row.table}`;
  return el('li', { class: 'card' },
    el('div', { class: 'card-head' }, el('h2', {}, foreign(place), ' ', foreign(row.id || row.row))),
    advice(row, same),
    el('details', { key: `shelf-${row.row}` }, el('summary', {}, 'What it holds'),
      el('dl', { class: 'cells' }, row.cells.map(([column, text]) => [el('dt', {}, foreign(column)), el('dd', {}, value(text))]))),
    el('p', { class: 'quiet small' }, el('a', { href: `#/activity?${new URLSearchParams({ row: `${place} ${row.row}` })}` }, 'Every version of this row')));
}

export const page = {
  path: '/shelf',
  title: 'Shelf',
  build(root, { say, look }) {
    const place = el('div', {});
    const retry = () => post('/api/v1/shelf/retry').then((answer) => { say([foreign(answer.said)]); shelved = -1; look(); }).catch((error) => say(`Not tried: ${error.message}.`));
    const same = async (row) => {
      try {
        const decision = await post('/api/v1/merge', { db: row.database, table: row.table, id: row.holder, other: row.row });
        say([foreign(decision.said)]);
        shelved = -1;
        look();
      } catch (error) {
        say(['Not joined: ', foreign(error.message)]);
      }
    };
    let shelved = -1;
    const draw = live(place, (shelf) => (shelf.length === 0 ? el('section', { class: 'panel' }, el('p', { class: 'empty' }, 'The shelf is empty: every live row is shown in the application.')) : el('ul', { class: 'cards' }, shelf.map((row) => card(row, same)))));
    root.append(
      el('div', { class: 'title-line' }, el('h1', {}, 'Shelf'), el('div', { class: 'actions' }, button('Try again now', retry, { key: 'retry' }))),
      el('p', { class: 'lead' }, 'Rows that live but cannot be shown in the application now. Nothing is lost: each comes back by itself when what stands in its way is gone.'),
      place);
    return {
      update(status) {
        const now = status.databases.reduce((sum, database) => sum + database.shelved, 0);
        if (now === shelved) return;
        shelved = now;
        get('/api/v1/shelf').then((answer) => draw(answer.shelf)).catch((error) => say(`The shelf cannot be read: ${error.message}.`));
      },
    };
  },
};
