// What lost: both values side by side with their authors, and one click to put the other back. Also rows that look like
// one. Used by app.js.

import { get, has, post } from './api.js';
import { badge, button, el, foreign, heading, live, value } from './dom.js';
import { ago, number } from './words.js';

/** Conflicts on one page of this page. */
const PAGE = 25;

/** Conflicts that this page holds at most; older ones are listed by `litemesh conflicts`. */
const KEPT = 3000;

/** Between two readings where their number stays the same, ms. */
const AGAIN = 10_000;

/** Conflicts asked for at once; the node gives the oldest first. */
const ASKED = 1000;

const KINDS = {
  cell: 'Same cell written twice', delete: 'Delete against a change', write: 'Change against a delete', id: 'Same id, different rows',
  merge: 'Became one row', split: 'Taken apart', suspect: 'Written to a moved id',
};

/** What happened, and whether somebody has to do something about it. */
const EXPLAINED = {
  cell: 'Both wrote this cell without knowing of each other. The later one is shown.',
  delete: 'One deleted the row while another one changed it: it lives on, with the change.',
  write: 'One changed the row while another one deleted it: in this table a delete wins.',
  id: 'Two servers gave one id to two different rows. Both rows are there; whatever refers to them follows. Nothing to do.',
  merge: 'Two rows had the same key, or somebody said that they are one: they became one row.',
  split: 'Somebody took them apart, or their key was changed: they are two rows again. Nothing to do.',
  suspect: 'The id of this row belonged to another row until shortly before: the application may have meant that one.',
};

/** Whether a person may still want to decide it. */
function isOpen(conflict) {
  return !conflict.now && ['cell', 'delete', 'write', 'suspect', 'ring'].includes(conflict.kind);
}

/** What the node says of rows by their identity, for people. */
function plainly(conflict) {
  const first = (text) => text.split(' ')[0];
  const born = (author) => (author.node === 'genesis' ? 'the row that was there from the start' : author.node ? `the row of ${author.node}` : 'the other row');
  if (conflict.kind === 'id') {
    const [id, now] = [first(conflict.winner.value), conflict.loser.value.split(' became ')[1] ?? conflict.id];
    return [`Id ${id} stays with ${born(conflict.winner)}`, `${born(conflict.loser).replace(/^t/, 'T')} has id ${now} now`];
  }
  if (conflict.kind === 'merge') return [`One row, together with ${born(conflict.winner)}`, conflict.loser.value];
  if (conflict.kind === 'split') return [`A row of its own, apart from ${born(conflict.winner)}`, ''];
  return null;
}

/** What can be put back, in a word for the button; null where nothing can. */
function undo(conflict) {
  if (conflict.kind === 'cell') return 'Put this back';
  if (conflict.kind === 'suspect') return 'Move it there';
  if (conflict.kind === 'delete') return 'Delete it after all';
  if (conflict.kind === 'write') return 'Put this back';
  return null;
}

function side(words, authored, ...more) {
  if (authored.told !== undefined) return el('div', { class: 'side-by' }, el('p', { class: 'label' }, words), authored.told ? el('p', {}, foreign(authored.told)) : el('p', { class: 'quiet' }, '–'), more);
  const empty = !authored.value && !authored.node;
  return el('div', { class: 'side-by' },
    el('p', { class: 'label' }, words),
    empty ? el('p', { class: 'quiet' }, '–') : el('p', {}, value(authored.value)),
    authored.node ? el('p', { class: 'quiet small' }, 'by ', foreign(authored.node), authored.time ? [', ', ago(authored.time)] : null) : null,
    more);
}

function card(conflict, parted, restore, split) {
  const word = conflict.now && conflict.now === conflict.loser.value ? null : undo(conflict);
  const words = plainly(conflict);
  const told = (authored, at) => (words ? { value: '', node: '', told: words[at] } : authored);
  const place = `${conflict.database}.${conflict.table}`;
  const id = conflict.id || conflict.row;
  const history = `#/activity?${new URLSearchParams({ row: `${place} ${id}` })}`;
  return el('li', { class: 'card', data: { number: conflict.number } },
    el('div', { class: 'card-head' },
      el('h2', {}, el('span', { class: 'quiet' }, `#${conflict.number} `), foreign(place), ' ', el('a', { href: history, title: 'Every version of this row', key: `history-${conflict.number}` }, foreign(id)), conflict.column ? [' · ', foreign(conflict.column)] : null),
      el('p', { class: 'quiet small' }, KINDS[conflict.kind] ?? conflict.kind, ', seen ', ago(conflict.seen))),
    el('div', { class: 'sides' },
      side(words ? 'Now' : conflict.now ? 'Shown then' : 'Shown', told(conflict.winner, 0)),
      side(words ? (conflict.kind === 'merge' ? 'Values that gave way' : 'The other one') : 'Lost', told(conflict.loser, 1), conflict.kind === 'merge' && !parted ? button('They are two rows', () => split(conflict), { key: `split-${conflict.number}`, label: `Take the rows of conflict ${conflict.number} apart` }) : null, word ? button(word, () => restore(conflict), { key: `restore-${conflict.number}`, label: `${word}: conflict ${conflict.number}` }) : null)),
    conflict.now ? el('p', {}, badge('well', 'Settled'), ' The cell was written again since; now it shows ', value(conflict.now), '.') : null,
    EXPLAINED[conflict.kind] ? el('p', { class: 'quiet small' }, EXPLAINED[conflict.kind]) : el('p', { class: 'quiet small' }, foreign(conflict.reason)));
}

/** The newest ones: numbers count up from 1, so the total tells where they begin. */
async function newest(total) {
  const found = [];
  for (;;) {
    const after = found.length ? found[found.length - 1].number : Math.max(0, total - KEPT);
    const { conflicts } = await get('/api/v1/conflicts', { after, limit: ASKED });
    found.push(...conflicts);
    if (conflicts.length < ASKED) return found.reverse();
  }
}

function lookalikes(duplicates, merge) {
  if (duplicates.length === 0) return el('p', { class: 'empty' }, 'No rows look like the same thing twice.');
  return el('ul', { class: 'cards' }, duplicates.map((pair, at) => el('li', { class: 'pair' },
    el('p', {}, el('strong', {}, foreign(`${pair.database}.${pair.table}`)), ' ', foreign(`${pair.one.label} (${pair.one.id})`), ' and ', foreign(`${pair.other.label} (${pair.other.id})`)),
    el('p', { class: 'quiet small' }, foreign(pair.reason), `; ${pair.equal_cells} of ${pair.cells} cells are equal`),
    button('They are one row', () => merge(pair), { key: `merge-${at}`, label: `Make ${pair.one.label} and ${pair.other.label} one row` }))));
}

export const page = {
  path: '/conflicts',
  title: 'Conflicts',
  build(root, { say, look }) {
    const [place, pairs] = [el('div', {}), el('div', {})];
    const filter = el('input', { id: 'conflict-filter', type: 'search', placeholder: 'table, id, column, server or value', autocomplete: 'off' });
    const which = el('select', { id: 'conflict-which' }, el('option', { value: '' }, 'All'), el('option', { value: 'open' }, 'To look at'), el('option', { value: 'settled' }, 'Settled'));
    const counts = (open, settled) => ['All', `To look at (${open})`, `Settled, or nothing to do (${settled})`].forEach((words, at) => { which.options[at].textContent = words; });
    let [known, shownCount, total, read] = [[], PAGE, -1, 0];
    const restore = async (conflict) => {
      try {
        const decision = await post(`/api/v1/conflicts/${conflict.number}/restore`);
        say([foreign(decision.said)]);
        total = -1;
        look();
      } catch (error) {
        say([`Not put back: `, foreign(error.message)]);
      }
    };
    const split = async (conflict) => {
      try {
        const decision = await post('/api/v1/split', { db: conflict.database, table: conflict.table, id: conflict.id });
        say([foreign(decision.said)]);
        total = -1;
        look();
      } catch (error) {
        say(['Not taken apart: ', foreign(error.message)]);
      }
    };
    const merge = async (pair) => {
      try {
        const decision = await post('/api/v1/merge', { db: pair.database, table: pair.table, id: pair.one.id, other: pair.other.id });
        say([foreign(decision.said)]);
        total = -1;
        look();
      } catch (error) {
        say(['Not joined: ', foreign(error.message)]);
      }
    };
    const draw = live(place, ({ found, parted, more, filtered, older }) => [
      found.length === 0 ? el('p', { class: 'empty' }, filtered ? 'No conflict fits.' : 'Nothing lost: no two servers have written the same thing apart.') : el('ul', { class: 'cards' }, found.map((conflict) => card(conflict, parted.includes(conflict.number), restore, split))),
      older > 0 && more === 0 ? el('p', { class: 'empty' }, `${number(older)} older ones: litemesh conflicts list`) : null,
      more > 0 ? button(`Show ${Math.min(more, PAGE)} more of ${more}`, () => { shownCount += PAGE; again(); }, { key: 'more' }) : null,
    ]);
    const drawPairs = live(pairs, (duplicates) => lookalikes(duplicates, merge));
    const again = () => {
      const word = filter.value.trim().toLowerCase();
      const fits = (one) => [one.database, one.table, one.id, one.row, one.column, one.winner.node, one.loser.node, one.winner.value, one.loser.value].some((text) => text.toLowerCase().includes(word));
      const open = known.filter(isOpen).length;
      counts(open, known.length - open);
      const wanted = known.filter((one) => which.value === '' || isOpen(one) === (which.value === 'open'));
      const fitting = word ? wanted.filter(fits) : wanted;
      const parted = known.filter((one) => one.kind === 'merge' && known.some((later) => later.kind === 'split' && later.row === one.row && later.number > one.number)).map((one) => one.number);
      draw({ found: fitting.slice(0, shownCount), parted, more: fitting.length - Math.min(fitting.length, shownCount), filtered: word !== '' || which.value !== '', older: Math.max(0, total - KEPT) });
    };
    which.addEventListener('change', () => { shownCount = PAGE; again(); });
    filter.addEventListener('input', () => { shownCount = PAGE; again(); });
    root.append(
      el('div', { class: 'title-line' }, el('h1', {}, 'Conflicts'), el('div', { class: 'search two' }, el('label', { class: 'hidden-heading', for: 'conflict-which' }, 'Which conflicts'), which, el('label', { class: 'hidden-heading', for: 'conflict-filter' }, 'Find conflicts'), filter)),
      el('p', { class: 'lead' }, 'Two servers changed the same thing without knowing of each other. One value is shown everywhere, the other is kept here, and you can put it back.'),
      place,
      el('section', { class: 'panel' }, heading(2, 'Rows that look like one'), pairs));
    return {
      update(status) {
        const now = status.databases.reduce((sum, database) => sum + database.conflicts, 0);
        // A value that is written over settles a conflict and changes no number.
        if (now === total && Date.now() - read < AGAIN) return;
        [total, read] = [now, Date.now()];
        newest(now).then((found) => { known = found; again(); }).catch((error) => say(`Conflicts cannot be read: ${error.message}.`));
        if (has('get', '/api/v1/duplicates')) get('/api/v1/duplicates', { limit: 50 }).then((answer) => drawPairs(answer.duplicates)).catch(() => {});
      },
    };
  },
};

