// Asking the node. Keeps the token in this tab's storage, sends it as a bearer, knows which endpoints this version has,
// and turns every failure into one kind of error with words for a person. Used by app.js and all pages.

const KEPT = 'litemesh-token';

let known = null;

/** Why the node did not do it: `code` is stable, `message` is for people. */
export class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  get signedOut() {
    return this.status === 401;
  }

  get unreachable() {
    return this.status === 0;
  }
}

export function token() {
  return sessionStorage.getItem(KEPT);
}

export function keepToken(text) {
  sessionStorage.setItem(KEPT, text.trim());
}

export function forgetToken() {
  sessionStorage.removeItem(KEPT);
  known = null;
}

/** Takes the token out of a link's fragment, so that it stands in no address bar. */
export function takeTokenFromLink() {
  const match = /^#token=([^&]+)(?:&to=(.*))?$/.exec(location.hash);
  if (!match) return;
  keepToken(decodeURIComponent(match[1]));
  history.replaceState(null, '', `${location.pathname}#${match[2] ? decodeURIComponent(match[2]) : '/'}`);
}

async function ask(method, path, body, signal) {
  const headers = { Authorization: `Bearer ${token() ?? ''}` };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const request = { method, headers, cache: 'no-store', credentials: 'omit', redirect: 'error', signal };
  if (body !== undefined) request.body = JSON.stringify(body);
  let answer;
  try {
    answer = await fetch(path, request);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refusal(0, 'unreachable', 'the node does not answer');
  }
  return answer;
}

async function refusal(answer) {
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // Not a problem document: its status says enough.
  }
  return new Refusal(answer.status, problem.code ?? 'unknown', problem.detail ?? `the node answered ${answer.status}`);
}

async function json(answer) {
  if (!answer.ok) throw await refusal(answer);
  return answer.json();
}

function withQuery(path, query) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
}

export async function get(path, query, signal) {
  return json(await ask('GET', withQuery(path, query), undefined, signal));
}

export async function post(path, body) {
  return json(await ask('POST', path, body ?? {}));
}

/** Hands a file in as it is. */
export async function upload(path, file) {
  const headers = { Authorization: `Bearer ${token() ?? ''}`, 'Content-Type': 'application/octet-stream' };
  try {
    return await json(await fetch(path, { method: 'POST', headers, body: file, cache: 'no-store', credentials: 'omit', redirect: 'error' }));
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(0, 'unreachable', 'the file did not get through: is it still there, is the node running, and is there room on its disk?');
  }
}

/** Gets a file; `onBytes` is told how much of it has come. A file that breaks off is an error. */
export async function download(path, query, onBytes) {
  const answer = await ask('GET', withQuery(path, query));
  if (!answer.ok) throw await refusal(answer);
  const pieces = [];
  let bytes = 0;
  const reader = answer.body.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return new Blob(pieces, { type: 'application/octet-stream' });
      pieces.push(value);
      bytes += value.length;
      onBytes(bytes);
    }
  } catch {
    throw new Refusal(0, 'broken_off', 'it broke off on the way: try again');
  }
}

/** Learns which endpoints there are; later ones of this page may be missing in an older program. */
export async function learn() {
  const description = await get('/api/v1/openapi.json');
  known = new Set();
  for (const [path, operations] of Object.entries(description.paths ?? {})) {
    for (const method of Object.keys(operations)) known.add(`${method} ${path.replace(/\{[^}]*\}/g, '{}')}`);
  }
}

/** Whether this version has an endpoint; `{}` stands for a part of the path. */
export function has(method, path) {
  return known?.has(`${method} ${path}`) ?? false;
}

/** Reads server-sent events by fetch, for an EventSource cannot send a token. Ends when the node ends it or `signal` says so. */
export async function follow(path, query, onEvent, signal) {
  const answer = await ask('GET', withQuery(path, query), undefined, signal);
  if (!answer.ok) throw await refusal(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value.replace(/\r/g, '');
    for (let end = held.indexOf('\n\n'); end >= 0; end = held.indexOf('\n\n')) {
      const block = held.slice(0, end);
      held = held.slice(end + 2);
      deliver(block, onEvent);
    }
  }
}

function deliver(block, onEvent) {
  const event = { event: 'message', id: '', data: [] };
  for (const line of block.split('\n')) {
    const colon = line.indexOf(':');
    if (colon <= 0) continue;
    const [name, text] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, '')];
    if (name === 'data') event.data.push(text);
    else if (name === 'event' || name === 'id') event[name] = text;
  }
  if (event.data.length > 0) onEvent({ ...event, data: event.data.join('\n') });
}

/** An action for every look at the node that runs only when `ms` have passed and the last one has ended. */
export function every(ms, action) {
  let [due, running] = [0, false];
  const run = async (...given) => {
    if (running || Date.now() < due) return;
    [due, running] = [Date.now() + ms, true];
    try {
      await action(...given);
    } catch {
      // What could not be asked is asked again at the next look.
    } finally {
      running = false;
    }
  };
  run.soon = () => { due = 0; };
  return run;
}
