// Numbers, times and amounts as people say them. Used by everything that writes sentences.

import { el } from './dom.js';

export function number(count) {
  return Number(count).toLocaleString('en');
}

/** "1 row", "2 rows". */
export function count(amount, one, many = `${one}s`) {
  return `${number(amount)} ${Number(amount) === 1 ? one : many}`;
}

export function bytes(amount) {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let [left, unit] = [Number(amount), 0];
  while (left >= 1000 && unit < units.length - 1) {
    left /= 1000;
    unit += 1;
  }
  return `${unit === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)} ${units[unit]}`;
}

/** A span of seconds, in its two greatest units at most. */
export function span(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) {
    const [hours, minutes] = [Math.floor(s / 3600), Math.floor((s % 3600) / 60)];
    return minutes && hours < 10 ? `${hours} h ${minutes} min` : `${hours} h`;
  }
  return `${Math.floor(s / 86400)} days`;
}

/** How long something took. */
export function took(seconds) {
  if (seconds < 0.001) return 'under 1 ms';
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 60 ? `${seconds.toFixed(seconds < 10 ? 1 : 0)} s` : span(seconds);
}

/** A time of the node (RFC 3339, or UTC as SQLite writes it) in ms; NaN when there is none. */
export function moment(text) {
  if (!text) return NaN;
  const plain = /^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?$/.test(text);
  return Date.parse(plain ? `${text.replace(' ', 'T')}Z` : text);
}

export function agoWords(text, now = Date.now()) {
  const at = moment(text);
  if (Number.isNaN(at)) return 'never';
  const seconds = (now - at) / 1000;
  if (seconds < 5) return 'just now';
  return `${span(seconds)} ago`;
}

/** When something was; the words follow the clock, the exact time is in the title. */
export function ago(text) {
  const at = moment(text);
  if (Number.isNaN(at)) return el('span', { class: 'quiet' }, 'never');
  const iso = new Date(at).toISOString();
  return el('time', { datetime: iso, title: clock(text), data: { ago: iso } }, agoWords(text));
}

/** The local time, with the day where it is not today. */
export function clock(text) {
  const at = new Date(moment(text));
  if (Number.isNaN(at.getTime())) return '';
  const time = at.toLocaleTimeString('en-GB');
  const today = at.toDateString() === new Date().toDateString();
  return today ? time : `${at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', year: 'numeric' })}, ${time}`;
}

export function when(text) {
  const at = moment(text);
  if (Number.isNaN(at)) return el('span', { class: 'quiet' }, '–');
  return el('time', { datetime: new Date(at).toISOString(), title: agoWords(text) }, clock(text));
}

/** Lets all "3 min ago" follow the clock. */
export function keepTime() {
  for (const time of document.querySelectorAll('time[data-ago]')) {
    const words = agoWords(time.dataset.ago);
    if (time.textContent !== words) time.textContent = words;
  }
}

export function percent(part) {
  return `${(Number(part) * 100).toFixed(Number(part) > 0.99 && Number(part) < 1 ? 1 : 0)} %`;
}

/** Enough of an id for people. */
export function short(id) {
  return String(id).slice(0, 8);
}

/** "a, b and c". */
export function list(words) {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words[words.length - 1]}`;
}
