// Taking back what one event wrote: first what would happen, then, after a yes, the deed. Nothing that others wrote since
// is overwritten. Used by activity.js.

import { has, post } from './api.js';
import { badge, button, el, foreign, table, value } from './dom.js';
import { count } from './words.js';

export const canUndo = () => has('post', '/api/v1/undo');

const WORDS = { 'set back': 'set back', delete: 'deleted', revive: 'comes back', id: 'gets its id back', split: 'taken apart', merge: 'joined', keep: 'left alone' };

function preview(view) {
  return [
    el('p', {}, foreign(view.what)),
    el('p', {}, badge(view.rows > 0 ? 'busy' : 'unknown', `${count(view.rows, 'row')} would change`), view.kept > 0 ? [' ', badge('attention', `${count(view.kept, 'thing')} left alone, because somebody wrote there since`)] : null),
    view.remarks.map((remark) => el('p', { class: 'quiet' }, foreign(remark))),
    table({
      caption: 'What would change', hideCaption: true, empty: 'Nothing would change.', rows: view.list,
      columns: [
        { head: 'Row', cell: (row) => foreign(`${row.database}.${row.table} ${row.id || row.row}`) },
        { head: 'What', cell: (row) => WORDS[row.action] ?? row.action },
        { head: 'Values', wide: true, cell: (row) => [...row.cells.map((cell) => el('p', {}, el('span', { class: 'quiet' }, foreign(cell.column), ' '), value(cell.from), ' → ', value(cell.to))), ...row.kept.map((kept) => el('p', { class: 'quiet small' }, foreign(kept.why)))] },
      ],
    }),
    view.more > 0 ? el('p', { class: 'quiet' }, `and ${count(view.more, 'more row')}`) : null,
  ];
}

/** Opens the dialog for one event. */
export async function undo(change, say) {
  const box = el('dialog', { class: 'dialog', 'aria-labelledby': 'undo-title' });
  const body = el('div', { class: 'stack' }, el('p', { class: 'quiet' }, 'Looking at what would change…'));
  const close = () => box.close();
  const actions = el('div', { class: 'actions' }, button('Cancel', close));
  box.append(el('h2', { id: 'undo-title' }, 'Take this back?'), body, actions);
  box.addEventListener('close', () => box.remove());
  document.body.append(box);
  box.showModal();
  const failed = (error) => body.replaceChildren(el('p', {}, badge('trouble', foreign(error.message))));
  const deed = async (event) => {
    event.currentTarget.disabled = true;
    try {
      const done = await post('/api/v1/undo', { change, yes: true });
      say(`${count(done.rows, 'row')} changed. The undo is an event like any other, and can be taken back too.`);
      close();
    } catch (error) {
      failed(error);
    }
  };
  try {
    const view = await post('/api/v1/undo', { change, yes: false });
    body.replaceChildren(...preview(view).flat(Infinity).filter(Boolean));
    if (view.rows > 0) actions.append(button('Take it back', deed, { kind: 'primary', key: 'undo-yes' }));
  } catch (error) {
    failed(error);
  }
}
