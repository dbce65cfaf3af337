// How well every server does each operation: scores, rates, failures that read alike, and the last two days hour by hour.
// Used by app.js.

import { every, get } from './api.js';
import { chart, meter } from './charts.js';
import { badge, el, foreign, live, table } from './dom.js';
import { ago, count, list, moment, number, percent, took } from './words.js';

const LEVEL = { excellent: 'well', good: 'well', fair: 'attention', poor: 'trouble' };
const TREND = { improving: ['well', 'improving'], steady: ['unknown', 'steady'], worsening: ['attention', 'worsening'] };

const HOUR_MS = 3_600_000;
const HOURS = 48;
const HOURS_MIN = 12;
const ALONG = 'hour of the day, local time';

/** What the operations are, for people. */
const OPERATIONS = {
  connection: 'being connected', pull: 'getting events from it', receive: 'taking what it sends by itself', reconcile: 'comparing who holds what',
  serve: 'giving it events', announce: 'telling it of news', sync: 'sync asked for by a person', snapshot: 'getting or giving a snapshot',
};

/** Every hour since the first known one, 12 at least and 48 at most; the node leaves out those in which nothing ran. */
function hours(report) {
  const known = new Map(report.hours.map((hour) => [Math.floor(moment(hour.hour) / HOUR_MS), hour]));
  const last = Math.floor(Date.now() / HOUR_MS);
  const length = Math.min(HOURS, Math.max(HOURS_MIN, last + 1 - Math.min(last, ...known.keys())));
  return Array.from({ length }, (_, at) => {
    const slot = last - length + 1 + at;
    const from = new Date(slot * HOUR_MS);
    const hour = known.get(slot);
    const runs = hour ? hour.success_count + hour.failure_count : 0;
    return { label: `${String(from.getHours()).padStart(2, '0')}:00`, at: from, hour, runs };
  });
}

/** A duration on a scale: as many digits as tell two marks apart. */
function tick(seconds) {
  if (seconds === 0) return '0';
  return seconds < 1 ? `${Number((seconds * 1000).toPrecision(2))} ms` : `${Number(seconds.toPrecision(2))} s`;
}

function charts(report) {
  const all = hours(report);
  const titled = (point, values) => ({ label: point.label, title: `${point.at.toLocaleDateString('en-GB', { day: 'numeric', month: 'short' })}, ${point.label}`, values });
  return el('div', { class: 'charts' },
    chart({
      title: 'Runs per hour (number)', along: ALONG, series: [{ name: 'ended well', level: 'well' }, { name: 'failed', level: 'trouble' }],
      points: all.map((point) => titled(point, [point.hour?.success_count ?? 0, point.hour?.failure_count ?? 0])), words: number,
    }),
    chart({
      title: 'Success per hour (% of runs)', along: ALONG, kind: 'lines', top: 1, series: [{ name: 'success', level: 'busy' }],
      points: all.map((point) => titled(point, [point.runs ? point.hour.success_count / point.runs : null])), words: percent,
    }),
    chart({
      title: 'Mean duration per hour (s or ms)', along: ALONG, kind: 'lines', series: [{ name: 'mean duration', level: 'busy' }],
      points: all.map((point) => titled(point, [point.runs ? point.hour.duration_seconds / point.runs : null])), words: tick,
    }));
}

function operations(report) {
  return table({
    caption: 'Operations',
    empty: 'Nothing ran with this server yet.',
    rows: report.operations,
    key: (operation) => `${report.id}-${operation.operation}`,
    columns: [
      { head: 'Operation', cell: (operation) => [operation.operation, OPERATIONS[operation.operation] ? el('p', { class: 'quiet small explained' }, OPERATIONS[operation.operation]) : null] },
      { head: 'Score', cell: (operation) => meter(operation.score, LEVEL[operation.band] ?? 'unknown', `${operation.score.toFixed(2)} ${operation.band}`) },
      { head: 'Success', number: true, cell: (operation) => percent(operation.success_rate) },
      { head: 'Well', number: true, cell: (operation) => number(operation.success_count) },
      { head: 'Failed', number: true, cell: (operation) => number(operation.failure_count) },
      { head: 'Mean', number: true, cell: (operation) => took(operation.avg_duration) },
      { head: 'Last success', cell: (operation) => ago(operation.last_success) },
      { head: 'Last failure', cell: (operation) => [ago(operation.last_failure), operation.last_error ? el('p', { class: 'quiet small' }, foreign(operation.last_error)) : null] },
    ],
  });
}

function patterns(report) {
  if (report.patterns.length === 0) return null;
  return table({
    caption: 'What fails most',
    rows: report.patterns,
    columns: [
      { head: 'Failure', cell: (pattern) => foreign(pattern.pattern) },
      { head: 'In', cell: (pattern) => pattern.operation },
      { head: 'Kind', cell: (pattern) => foreign(pattern.class) },
      { head: 'Times', number: true, cell: (pattern) => number(pattern.count) },
      { head: 'Last', cell: (pattern) => ago(pattern.last_seen) },
    ],
  });
}

function card(report) {
  const [level, words] = TREND[report.trend] ?? TREND.steady;
  return el('section', { class: 'panel', 'aria-label': `Reliability of ${report.server}` },
    el('div', { class: 'heading' }, el('h2', {}, foreign(report.server)), badge(level, words)),
    el('div', { class: 'score-line' }, el('span', { class: 'score' }, report.score.toFixed(2)), meter(report.score, LEVEL[report.band] ?? 'unknown', report.band)),
    charts(report), operations(report), patterns(report));
}

function draw({ servers }) {
  if (servers.length === 0) return el('section', { class: 'panel' }, el('p', { class: 'empty' }, 'No other server yet.'));
  const poor = servers.filter((server) => ['fair', 'poor'].includes(server.band)).map((server) => server.server);
  return [
    el('p', { class: 'lead' }, poor.length ? foreign(`${list(poor)} ${poor.length === 1 ? 'does' : 'do'} worse than the others: see what fails most.`) : `${count(servers.length, 'server')}, all good or better.`, ' A score is the share of runs that ended well, 1.00 at best; what is hours ago counts less.'),
    servers.map(card),
  ];
}

export const page = {
  path: '/reliability',
  title: 'Reliability',
  needs: ['get', '/api/v1/reliability'],
  build(root) {
    const place = el('div', { class: 'stack' });
    root.append(el('h1', {}, 'Reliability'), place);
    const again = live(place, draw);
    return { update: every(10_000, async () => again({ servers: (await get('/api/v1/reliability')).servers, hour: Math.floor(Date.now() / HOUR_MS) })) };
  },
};
