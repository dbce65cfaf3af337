// Inviting a server: a one-time code, as text and as a picture for a camera, and what to do with it. Used by app.js.

import { post } from './api.js';
import { badge, button, el, foreign, heading, svg } from './dom.js';
import { clock } from './words.js';

/** Modules of white round the picture; readers need four. */
const MARGIN = 4;

const LIVES = [['3600', '1 hour'], ['86400', '1 day'], ['604800', '7 days']];
const ROLES = [['member', 'Member: reads and writes'], ['read-only', 'Read-only: gets everything, sends nothing'], ['admin', 'Admin: may let others in']];

/** One path of squares: dark on white whatever the colours of the page are, for cameras. */
function picture(lines) {
  const size = lines.length + 2 * MARGIN;
  let path = '';
  lines.forEach((line, y) => {
    for (const run of line.matchAll(/1+/g)) path += `M${run.index + MARGIN} ${y + MARGIN}h${run[0].length}v1h-${run[0].length}z`;
  });
  return svg('svg', { viewBox: `0 0 ${size} ${size}`, class: 'qr', role: 'img', 'aria-label': 'The join code as a QR picture', 'shape-rendering': 'crispEdges' },
    svg('rect', { width: size, height: size, fill: '#fff' }), svg('path', { d: path, fill: '#000' }));
}

function choice(id, options, chosen) {
  return el('select', { id, name: id }, options.map(([value, words]) => el('option', { value, selected: value === chosen }, words)));
}

/** What is typed on the new server, in this order. */
function commands(code) {
  return [`litemesh join ${code} --plan`, `litemesh join ${code} --yes`, 'litemesh run'];
}

function made(invite, say) {
  const copied = (text, what) => () => navigator.clipboard.writeText(text)
    .then(() => say(`${what} is in the clipboard.`), () => say('The browser does not let the page copy: select the text by hand.'));
  const [plan, yes, run] = commands(invite.code);
  const short = (text) => el('pre', { class: 'command', tabindex: '0' }, text.replace(invite.code, 'CODE'));
  return [
    el('div', { class: 'invite' },
      invite.qr ? el('figure', { class: 'qr-frame' }, picture(invite.qr)) : null,
      el('div', { class: 'invite-words' },
        el('h2', { tabindex: '-1', id: 'invite-made' }, 'The join code'),
        el('p', {}, `Good for one server until ${clock(invite.expires)}. Whoever has it can join: give it only to whom you mean.`),
        el('code', { class: 'code', tabindex: '0' }, foreign(invite.code)),
        el('div', { class: 'actions' }, button('Copy the code', copied(invite.code, 'The code'), { kind: 'primary', key: 'copy' })),
        el('h3', {}, 'On the new server, in the folder of its application'),
        el('ol', { class: 'steps' },
          el('li', {}, short(plan), el('p', { class: 'quiet' }, 'Shows what would happen to the rows that are there, and touches none. ', button('Copy this command', copied(plan, 'The first command'), { kind: 'plain', key: 'copy-plan' }))),
          el('li', {}, short(yes), el('p', { class: 'quiet' }, 'Does it. ', button('Copy this command', copied(yes, 'The second command'), { kind: 'plain', key: 'copy-yes' }))),
          el('li', {}, short(run), el('p', { class: 'quiet' }, 'Leave it running beside the application.'))))),
  ];
}

export const page = {
  path: '/invite',
  title: 'Invite',
  build(root, { say }) {
    const [role, life] = [choice('invite-role', ROLES, 'member'), choice('invite-life', LIVES, '86400')];
    const place = el('section', { class: 'panel', hidden: true });
    const problem = el('p', { class: 'door-error', role: 'alert' });
    const joined = el('p', { role: 'status', 'aria-live': 'polite', class: 'joined' });
    let [members, since] = [0, null];
    const submit = async (event) => {
      event.preventDefault();
      problem.textContent = '';
      try {
        const invite = await post('/api/v1/invites', { role: role.value, expires_s: Number(life.value) });
        place.hidden = false;
        place.replaceChildren(...made(invite, say), joined);
        since = members;
        joined.replaceChildren(badge('busy', 'Waiting for the new server…'));
        document.getElementById('invite-made').focus();
      } catch (error) {
        problem.textContent = `No code was made: ${error.message}.`;
      }
    };
    root.append(
      el('h1', {}, 'Invite a server'),
      el('section', { class: 'panel' },
        heading(2, 'A new code'),
        el('form', { class: 'row-form', on: { submit } },
          el('div', {}, el('label', { for: 'invite-role' }, 'What the new server may do'), role),
          el('div', {}, el('label', { for: 'invite-life' }, 'Good for'), life),
          el('button', { class: 'button primary', type: 'submit' }, 'Make a code')),
        problem),
      place);
    return {
      update(status) {
        members = status.cluster.members;
        if (since === null || members <= since) return;
        joined.replaceChildren(badge('well', 'A server has joined'), ' ', el('a', { href: '#/servers' }, 'See it'));
      },
    };
  },
};
