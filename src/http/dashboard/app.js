// The frame of the dashboard: sign-in, the pages and which one is shown, the status that is asked for every few seconds,
// and the verdict on top. Everything else is a page in a file of its own.

import { every, forgetToken, get, has, keepToken, learn, takeTokenFromLink, token } from './api.js';
import { el, foreign, foreignText, live, sign } from './dom.js';
import { page as activity } from './activity.js';
import { page as bundles } from './bundles.js';
import { page as care } from './care.js';
import { page as conflicts } from './conflicts.js';
import { page as data } from './data.js';
import { page as invite } from './invite.js';
import { page as overview } from './overview.js';
import { page as reliability } from './reliability.js';
import { page as runs } from './runs.js';
import { page as servers } from './servers.js';
import { page as shelf } from './shelf.js';
import { page as travel } from './travel.js';
import { silence, verdict } from './verdict.js';
import { page as verify } from './verify.js';
import { keepTime, short } from './words.js';

/** Between two looks at the node, ms. */
const LOOK_EVERY = 2500;

const PAGES = [overview, servers, data, conflicts, shelf, activity, travel, bundles, verify, runs, reliability, care, invite];

const at = (id) => document.getElementById(id);
const state = { status: null, heard: 0, drift: null, alerts: [], shown: null, timer: 0, looking: false };

/** Says for a moment what was done. */
export function say(words) {
  const toast = at('toast');
  toast.replaceChildren(el('p', {}, words));
  toast.classList.add('shown');
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => toast.classList.remove('shown'), 6000);
}

function pageOf(path) {
  return PAGES.find((page) => page.path === path || (page.path !== '/' && path.startsWith(`${page.path}/`))) ?? overview;
}

function route() {
  const [path, query] = location.hash.replace(/^#/, '').split('?');
  return { path: path || '/', query: new URLSearchParams(query ?? '') };
}

/** Older programs lack the endpoints that some pages stand on. */
function available(page) {
  return !page.needs || has(...page.needs);
}

function absent(main, page) {
  main.append(el('h1', {}, page.title), el('section', { class: 'panel' }, el('p', { class: 'empty' }, 'Not available on this version: update litemesh on this machine.')));
  return null;
}

function show() {
  if (!token()) return;
  const here = route();
  const page = pageOf(here.path);
  const main = at('main');
  const turned = state.shown?.page !== page;
  state.shown?.leave?.();
  main.replaceChildren();
  const built = available(page) ? page.build(main, { query: here.query, path: here.path, say, look }) : absent(main, page);
  state.shown = { page, update: built?.update, leave: built?.leave };
  document.title = `${page.title} · litemesh`;
  fold(true);
  at('verdict').classList.toggle('brief', page !== overview);
  drawNav();
  if (state.status) built?.update?.(state.status);
  if (turned && state.turned) main.focus({ preventScroll: true });
  if (turned) window.scrollTo(0, 0);
  state.turned = true;
}

/** Where it is narrow the list of pages is behind a button. */
function fold(folded) {
  at('menu').setAttribute('aria-expanded', String(!folded));
  at('pages').classList.toggle('open', !folded);
}

const count = (status, name) => status.databases.reduce((sum, database) => sum + database[name], 0);

function drawNav() {
  const numbers = state.status ? { '/conflicts': count(state.status, 'conflicts'), '/shelf': count(state.status, 'shelved') } : {};
  const shown = state.shown?.page.path;
  const pages = PAGES.filter(available).map((page) => [page.path, page.title, numbers[page.path] ?? 0, page.path === shown]);
  drawNavList(pages);
  at('menu-page').textContent = state.shown?.page.title ?? '';
}

const drawNavList = live(at('nav'), (pages) => pages.map(([path, title, number, current]) => el('li', {},
  el('a', { href: `#${path}`, key: `nav-${path}`, 'aria-current': current ? 'page' : null }, title,
    number > 0 ? el('span', { class: 'nav-number' }, String(number)) : null))));

function findingOf(one) {
  return el('li', { class: `finding ${one.level}` }, sign(one.level), el('div', { class: 'finding-words' },
    el('p', { class: 'finding-what' }, foreign(one.what)),
    one.why ? el('p', { class: 'finding-why' }, foreign(one.why)) : null,
    one.todo ? el('p', { class: 'finding-todo' }, el('span', { class: 'todo-mark' }, 'To do: '), foreign(one.todo), ' ', one.to ? el('a', { href: one.to, key: `go-${one.what}` }, 'Go there') : null) : null));
}

const verdictHead = el('div', { class: 'verdict-head', role: 'status', 'aria-live': 'polite', 'aria-atomic': 'true' });
const verdictList = el('ul', { class: 'findings' });
const drawHead = live(verdictHead, ({ level, headline, words, named }) => [
  sign(level),
  el('div', {}, el('p', { class: 'verdict-headline' }, foreign(headline)), words ? el('p', { class: 'verdict-words' }, foreign(words)) : null,
    named.length ? el('p', { class: 'verdict-names' }, named.map((what, at) => [at ? ' · ' : '', foreign(what)])) : null),
]);
const drawFindings = live(verdictList, (found) => found.map(findingOf));

function drawVerdict(result) {
  at('verdict').dataset.level = result.level;
  const problems = result.found.filter((one) => one.level !== 'busy');
  drawHead({ level: result.level, headline: result.headline, words: result.words, named: problems.length > 1 ? problems.map((one) => one.what) : [] });
  drawFindings(result.found);
  verdictList.hidden = result.found.length === 0;
}

/** What only some versions can say; it changes slowly. */
const more = every(6000, async () => {
  if (has('get', '/api/v1/drift')) state.drift = await get('/api/v1/drift', { limit: 1 });
  if (has('get', '/api/v1/alerts')) state.alerts = (await get('/api/v1/alerts')).alerts;
});

/** Asks the node how it is, and lets everything that is shown follow. */
async function look() {
  clearTimeout(state.timer);
  if (state.looking || !token()) return;
  state.looking = true;
  try {
    const status = await get('/api/v1/status');
    await more();
    Object.assign(state, { status, heard: Date.now() });
    document.body.classList.remove('silent');
    at('cluster-name').replaceChildren(foreign(status.cluster.name));
    at('whoami').replaceChildren('This is ', el('strong', {}, foreign(status.node.name)), el('br'), `${status.node.version} · ${short(status.node.id)}`);
    at('whoami').title = foreignText(status.node.id);
    drawVerdict(verdict(status, { drift: state.drift, alerts: state.alerts }));
    drawNav();
    state.shown?.update?.(status);
  } catch (error) {
    if (error.signedOut) {
      signOut(error.message);
    } else {
      document.body.classList.add('silent');
      drawVerdict(error.unreachable || !state.status ? silence(state.heard || Date.now()) : { ...silence(state.heard), words: error.message });
    }
  } finally {
    state.looking = false;
    if (!document.hidden) state.timer = setTimeout(look, LOOK_EVERY);
  }
}

function signOut(words = '') {
  clearTimeout(state.timer);
  forgetToken();
  state.shown?.leave?.();
  Object.assign(state, { status: null, shown: null, drift: null, alerts: [], turned: false });
  at('main').replaceChildren();
  at('frame').hidden = true;
  at('door').hidden = false;
  at('door-error').textContent = words;
  at('door-token').value = '';
  at('door-token').focus();
  document.title = 'Sign in · litemesh';
}

async function enter() {
  try {
    await learn();
  } catch (error) {
    signOut(error.signedOut ? 'That is not this node’s token. Read it again from the file api-token.' : `Not signed in: ${error.message}.`);
    return;
  }
  at('door').hidden = true;
  at('frame').hidden = false;
  show();
  look();
}

function begin() {
  at('verdict').append(verdictHead, verdictList, el('a', { class: 'verdict-more', href: '#/' }, 'What and why'));
  takeTokenFromLink();
  at('door-form').addEventListener('submit', (event) => {
    event.preventDefault();
    keepToken(at('door-token').value);
    enter();
  });
  at('sign-out').addEventListener('click', () => signOut());
  at('menu').addEventListener('click', () => fold(at('menu').getAttribute('aria-expanded') === 'true'));
  at('pages').addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || at('menu').getAttribute('aria-expanded') !== 'true') return;
    fold(true);
    at('menu').focus();
  });
  at('skip').addEventListener('click', () => at('main').focus());
  window.addEventListener('hashchange', () => {
    const before = token();
    takeTokenFromLink();
    if (token() !== before) enter();
    else show();
  });
  document.addEventListener('visibilitychange', () => !document.hidden && look());
  setInterval(keepTime, 5000);
  if (token()) enter();
  else signOut();
}

begin();
