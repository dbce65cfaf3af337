// The shelf: rows that live but cannot be shown in the application now, why, and what they hold. Used by app.js.

import { get, post } from './api.js';
import { button, el, foreign, live, value } from './dom.js';

function card(row) {
  const place = `${row.database}.${row.table}`;
  return el('li', { class: 'card' },
    el('div', { class: 'card-head' }, el('h2', {}, foreign(place), ' ', foreign(row.id || row.row))),
    el('p', {}, foreign(row.reason.charAt(0).toUpperCase() + row.reason.slice(1)), '.'),
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
    let shelved = -1;
    const draw = live(place, (shelf) => (shelf.length === 0 ? el('section', { class: 'panel' }, el('p', { class: 'empty' }, 'The shelf is empty: every live row is shown in the application.')) : el('ul', { class: 'cards' }, shelf.map(card))));
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
