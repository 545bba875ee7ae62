// Who is here: without a token the page says how to get one; without a login it asks for an account.

import { path, post } from '../api.js';
import { button, field, h } from '../dom.js';
import { act } from '../notices.js';
import { loadAll, state } from '../store.js';

function gate(title, ...content) {
  return h('main', { id: 'main', class: 'gate', tabindex: -1 }, h('img', { src: '/assets/icon.svg', alt: '', width: 48, height: 48 }),
    h('h1', null, title), content);
}

/** Nothing can be seen without a key. */
export function locked(problem) {
  return gate('Shoal',
    problem && h('p', { class: 'problem', role: 'alert' }, problem),
    h('p', null, 'This page shows a client that runs on this machine. To open it, type'),
    h('pre', null, 'shoal web'),
    h('p', null, 'in a terminal, and follow the link that it shows. The link is good once and for a minute; this browser is known from then on.'));
}

/** The client is asked for the first time. */
export function waiting() {
  return gate('Shoal', h('p', { role: 'status' }, state.link === 'away' ? state.why ?? 'The client does not answer; trying again.' : 'Asking the client…'));
}

/** Log in, or make an account. */
export function signin() {
  const user = h('input', { name: 'user', required: true, autocomplete: 'username', autocapitalize: 'none', spellcheck: 'false', maxlength: 64 });
  const password = h('input', { name: 'password', type: 'password', required: true, autocomplete: 'current-password' });
  const invite = h('input', { name: 'invite', autocomplete: 'off' });
  const keep = h('input', { type: 'checkbox', id: 'keep' });
  const inviteField = field('Invitation', invite, 'Only where the tracker asks for one.');
  const problem = h('p', { class: 'problem', role: 'alert', hidden: true });
  const submit = h('button', { class: 'main', type: 'submit' });
  const other = button('', () => turn(!creating), { kind: 'link' });
  const title = h('h1', null);
  let creating = false;

  function turn(create) {
    creating = create;
    title.textContent = create ? 'Create an account' : 'Sign in';
    submit.textContent = create ? 'Create account' : 'Sign in';
    other.textContent = create ? 'I have an account' : 'Create an account';
    password.autocomplete = create ? 'new-password' : 'current-password';
    inviteField.hidden = !create;
    problem.hidden = true;
  }

  async function enter() {
    const body = { user: user.value.trim(), password: password.value, keep: keep.checked };
    if (creating) Object.assign(body, { create: true }, invite.value ? { invite: invite.value.trim() } : {});
    try {
      await post(path('session'), body);
      password.value = '';
      await loadAll();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      password.focus();
    }
  }

  const form = h('form', {
    class: 'card',
    onsubmit: (event) => {
      event.preventDefault();
      act(submit, enter);
    },
  }, field('User name', user), field('Password', password), inviteField,
  h('label', { class: 'check', for: 'keep' }, keep, h('span', null, 'Stay signed in on this machine'),
    h('small', null, 'Whoever copies the client’s data folder is you until the password changes.')),
  problem, submit, other);
  turn(false);
  const element = gate('', form);
  element.querySelector('h1').replaceWith(title);
  return element;
}
