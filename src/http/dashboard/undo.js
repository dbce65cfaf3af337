// Taking back: first what would happen, then, after a yes, the deed. What concerns many rows needs more than a click: their
// number is typed. Nothing that others wrote since is overwritten. Used by activity.js and travel.js.

import { has, post } from './api.js';
import { badge, button, el, foreign, table, value } from './dom.js';
import { count, number } from './words.js';

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

/** The fields of a deliberate yes: who, why, and the number of rows; `press` can be pressed when that is right. */
function confirmation(rows, press) {
  const typed = el('input', { id: 'sure-rows', inputmode: 'numeric', autocomplete: 'off' });
  const by = el('input', { id: 'sure-by', maxlength: 60, autocomplete: 'off' });
  const why = el('input', { id: 'sure-why', maxlength: 200, autocomplete: 'off' });
  const look = () => { press.disabled = typed.value.replace(/\D/g, '') !== String(rows); };
  typed.addEventListener('input', look);
  look();
  return {
    fields: el('div', { class: 'row-form' },
      el('div', { class: 'narrow' }, el('label', { for: 'sure-rows' }, `Type ${rows} to confirm`), typed),
      el('div', {}, el('label', { for: 'sure-by' }, 'Your name (for the log)'), by),
      el('div', {}, el('label', { for: 'sure-why' }, 'Why (for the log)'), why)),
    read: () => ({ by: by.value.trim(), reason: why.value.trim() }),
  };
}

/** Opens the dialog for an order: `path` gives its preview, and with `yes` does it. */
export async function takeBack({ title, path, order, say, deliberate = false }) {
  const before = document.activeElement;
  const box = el('dialog', { class: 'dialog', 'aria-labelledby': 'undo-title' });
  const body = el('div', { class: 'stack', role: 'status', 'aria-live': 'polite' }, el('p', { class: 'quiet' }, 'Looking at what would change…'));
  const sure = el('div', {});
  const close = () => box.close();
  const actions = el('div', { class: 'actions' }, button('Cancel', close, { key: 'undo-no' }));
  box.append(el('h2', { id: 'undo-title' }, foreign(title)), body, sure, actions);
  box.addEventListener('close', () => {
    box.remove();
    before?.focus?.();
  });
  document.body.append(box);
  box.showModal();
  const failed = (error) => body.replaceChildren(el('p', { role: 'alert' }, badge('trouble', foreign(error.message))));
  let asked = null;
  const deed = async (event) => {
    const pressed = event.currentTarget;
    pressed.disabled = true;
    try {
      const done = await post(path, { ...order, ...(asked?.read() ?? {}), yes: true });
      say(`${count(done.rows, 'row')} changed. This is an event like any other, and can be taken back too.`);
      close();
    } catch (error) {
      failed(error);
      pressed.disabled = false;
    }
  };
  try {
    const view = await post(path, { ...order, yes: false });
    body.replaceChildren(...preview(view).flat(Infinity).filter(Boolean));
    if (view.rows === 0) return;
    const press = button(deliberate ? `Change ${number(view.rows)} ${view.rows === 1 ? 'row' : 'rows'}` : 'Take it back', deed, { kind: 'primary', key: 'undo-yes' });
    if (deliberate) {
      asked = confirmation(view.rows, press);
      sure.append(asked.fields);
    }
    actions.append(press);
  } catch (error) {
    failed(error);
  }
}

/** The dialog for one event. */
export function undo(change, say) {
  return takeBack({ title: 'Take this back?', path: '/api/v1/undo', order: { change }, say });
}
