// Bundles: rows carried by stick or mail where there is no network. Save what a server lacks as a file; look into a file
// that was brought, and take it. Used by app.js.

import { download, get, has, upload } from './api.js';
import { badge, button, el, foreign, heading, live, table } from './dom.js';
import { ago, bytes, clock, count, number } from './words.js';

const DOWNLOAD = '/api/v1/bundle/download';
const INSPECT = '/api/v1/bundle/upload/inspect';
const IMPORT = '/api/v1/bundle/upload/import';

/** A name that every file system takes. */
function fileName(from, to) {
  const plain = (name) => name.replace(/[^A-Za-z0-9-]+/g, '-').replace(/^-+|-+$/g, '').slice(0, 40) || 'server';
  const time = new Date().toISOString().slice(0, 16).replace(/[-:]/g, '').replace('T', '-');
  return `${plain(from)}-to-${to ? plain(to) : 'all'}-${time}.litemesh`;
}

/** Hands the browser a file to keep. */
function keep(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = el('a', { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function peersTable({ peers }, save) {
  return table({
    caption: 'For one server alone: only what it is not known to hold',
    empty: 'No other server yet: invite one first.',
    rows: peers,
    key: (peer) => peer.id,
    columns: [
      { head: 'Server', cell: (peer) => foreign(peer.name) },
      { head: 'Lacks', cell: (peer) => (peer.lacks === 0 ? badge('well', 'nothing') : badge('attention', count(peer.lacks, 'event'))) },
      { head: 'As of', cell: (peer) => (peer.as_of ? ago(peer.as_of) : el('span', { class: 'quiet' }, 'it never said')) },
      { head: 'Bundle', action: true, cell: (peer) => (peer.lacks === 0 ? el('span', { class: 'quiet' }, 'not needed') : button('Save what it lacks', () => save(peer), { key: `save-${peer.id}`, label: `Save what ${peer.name} lacks as a file` })) },
    ],
  });
}

function exportPanel() {
  const said = el('div', { class: 'said', role: 'status', 'aria-live': 'polite' });
  const tell = (level, ...words) => said.replaceChildren(el('p', {}, badge(level, words)));
  let own = 'server';
  const save = async (peer) => {
    tell('busy', 'Writing the bundle…');
    try {
      const blob = await download(DOWNLOAD, peer ? { for: peer.id } : {}, (done) => tell('busy', `Writing the bundle: ${bytes(done)}…`));
      const name = fileName(own, peer?.name);
      keep(blob, name);
      tell('well', el('code', {}, name), ` (${bytes(blob.size)}) is saved. Carry it to `, peer ? foreign(peer.name) : 'any server', ', open its dashboard there, and take it under Bundles.');
    } catch (error) {
      tell('trouble', 'No bundle was saved: ', foreign(error.message));
    }
  };
  const place = el('div', {});
  const draw = live(place, (view) => peersTable(view, save));
  return {
    panel: el('section', { class: 'panel', id: 'save' },
      heading(2, 'Take rows from here to another server'),
      el('p', { class: 'quiet' }, 'A bundle is a file that only members of this cluster can read. Nothing happens when it is taken twice, or late.'),
      place,
      el('div', { class: 'actions' }, button('Save everything, for any server', () => save(null), { key: 'save-all' })), said),
    update(name, view) {
      own = name;
      draw(view);
    },
  };
}

/** What a bundle says of itself. */
function inside(view) {
  return [
    el('p', {}, 'Made on ', el('strong', {}, foreign(view.exporter)), ` at ${clock(view.created)}, `, view.made_for ? ['for ', foreign(view.made_for)] : 'for all servers', `; ${bytes(view.bytes)}, ${count(view.events, 'event')}.`),
    el('p', {}, view.new_events > 0 ? badge('busy', `${count(view.new_events, 'event')} of it ${view.new_events === 1 ? 'is' : 'are'} new here`) : badge('well', 'This server has all of it already')),
    view.new_members.length ? el('p', {}, 'Servers that this one did not know: ', foreign(view.new_members.join(', ')), '.') : null,
    view.gaps.length ? el('ul', { class: 'plain-list' }, view.gaps.map((gap) => el('li', {}, badge('attention', foreign(gap))))) : null,
    table({
      caption: 'What it holds, table by table', empty: 'It holds no change of a row.', rows: view.tables,
      columns: [
        { head: 'Table', cell: (row) => foreign(`${row.database}.${row.table}`) },
        { head: 'Changes', number: true, cell: (row) => number(row.changes) },
        { head: 'New rows among them', number: true, cell: (row) => number(row.inserts) },
      ],
    }),
  ];
}

function importPanel(look) {
  const file = el('input', { id: 'bundle-file', type: 'file', accept: '.litemesh' });
  const found = el('div', { role: 'status', 'aria-live': 'polite' });
  const show = (...parts) => found.replaceChildren(...parts.flat(Infinity).filter(Boolean));
  const refused = (error) => show(el('p', {}, badge('trouble', ['Not taken: ', foreign(error.message)])), el('p', { class: 'quiet' }, 'Nothing of it was stored.'));
  const take = async (chosen, pressed) => {
    pressed.disabled = true;
    try {
      const done = await upload(IMPORT, chosen);
      show(el('p', {}, badge('well', done.taken > 0 ? `${count(done.taken, 'event')} taken. The application shows them now, or in a moment.` : 'Nothing new was in it; nothing changed.')),
        done.gaps.length ? el('ul', { class: 'plain-list' }, done.gaps.map((gap) => el('li', {}, badge('attention', foreign(gap))))) : null);
      file.value = '';
      look();
    } catch (error) {
      refused(error);
    }
  };
  const open = async (event) => {
    event.preventDefault();
    const chosen = file.files[0];
    if (!chosen) {
      show(el('p', {}, badge('attention', 'Choose the file first: its name ends with .litemesh.')));
      return;
    }
    show(el('p', {}, badge('busy', `Reading ${bytes(chosen.size)}…`)));
    try {
      const view = await upload(INSPECT, chosen);
      show(inside(view), view.new_events > 0 || view.new_members.length > 0
        ? el('div', { class: 'actions' }, button(`Take ${count(view.new_events, 'event')}`, (pressed) => take(chosen, pressed.currentTarget), { kind: 'primary', key: 'take' })) : null);
    } catch (error) {
      refused(error);
    }
  };
  file.addEventListener('change', () => show());
  return el('section', { class: 'panel', id: 'take' },
    heading(2, 'Take a bundle that was brought here'),
    el('p', { class: 'quiet' }, 'First you see who made it and what is in it; nothing is stored before you say so.'),
    el('form', { class: 'row-form', 'aria-label': 'Take a bundle', on: { submit: open } },
      el('div', {}, el('label', { for: 'bundle-file' }, 'The file'), file),
      el('button', { class: 'button primary', type: 'submit' }, 'Look inside')), found);
}

export const page = {
  path: '/bundles',
  title: 'Bundles',
  needs: ['get', DOWNLOAD],
  build(root, { look }) {
    const out = exportPanel();
    root.append(
      el('h1', {}, 'Bundles'),
      el('p', { class: 'lead' }, 'Where no network reaches, rows travel as a file: on a stick, by mail, by phone.'),
      out.panel, importPanel(look));
    return {
      async update(status) {
        if (!has('get', '/api/v1/receipts')) return;
        const view = await get('/api/v1/receipts').catch(() => null);
        if (view) out.update(status.node.name, { peers: view.peers });
      },
    };
  },
};
