// Limits, settings, and the account.

import { get, path, post, put, remove } from '../api.js';
import { button, field, h, keyed, name, say } from '../dom.js';
import { pathInput } from '../folders.js';
import { exact, parseSize, size } from '../format.js';
import { act, notice } from '../notices.js';
import { ask } from '../panel.js';
import { loadAll, on, quietly, state } from '../store.js';

const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'];

/** The days that `mon-fri,sun` or `daily` names. */
function daysOf(text) {
  if (text === 'daily') return DAYS;
  return text.split(',').flatMap((part) => {
    const [first, last = first] = part.split('-').map((day) => DAYS.indexOf(day));
    return DAYS.slice(first, last + 1);
  });
}

/** A rate that is typed; without one, what holds at other times holds. */
function rateInput(label) {
  return h('input', { placeholder: 'as usual', inputmode: 'decimal', 'aria-label': label });
}

function bytesOf(input) {
  const bytes = input.value.trim() ? parseSize(input.value) : 0;
  if (bytes === null) throw new Error(`“${input.value}” is no rate; give one such as 500k or 2 MiB/s, or nothing for no limit.`);
  return bytes;
}

const limited = (bytes) => (bytes ? `${size(bytes)}/s` : 'no limit');
const show = (input, bytes) => (input.value = bytes ? exact(bytes) : '');
const usual = (input) => (input.value.trim() ? bytesOf(input) : null);

/** What ends the listeners of the view. */
const ends = [];

/** A part of the page with a button that sets what is typed there. */
function section(title, content, load, save) {
  const set = h('button', { type: 'submit' }, 'Save');
  const submit = (event) => {
    event.preventDefault();
    act(set, async () => (await save(), (edited = false), notice('Saved.', 'good')));
  };
  // What was not loaded must not be saved: it would wipe what is set.
  const fields = h('fieldset', { disabled: true }, content, set);
  let edited = false;
  const loaded = async () => {
    if (edited) return;
    await load();
    fields.disabled = false;
  };
  quietly(loaded);
  ends.push(on('resync', () => quietly(loaded)));
  const change = () => (edited = true);
  const clicked = (event) => event.target.closest('button[type=button]') && change();
  return h('form', { class: 'card', onsubmit: submit, oninput: change, onclick: clicked }, h('h2', null, title), fields);
}

export function settings() {
  ends.splice(0).forEach((end) => end());
  const element = h('div', { class: 'page' }, limits(), folders(), account());
  return { title: 'Settings', bar: [], element, end: () => ends.splice(0).forEach((end) => end()) };
}

function limits() {
  const [up, down] = [h('input', { placeholder: 'no limit' }), h('input', { placeholder: 'no limit' })];
  const windows = h('ul', { class: 'windows', 'aria-label': 'Other limits by time of day' });
  const now = h('p', { class: 'total' });
  let rows = [];

  function line(row) {
    const days = DAYS.map((day) => {
      const box = h('input', { type: 'checkbox', 'aria-label': day });
      box.checked = daysOf(row.days).includes(day);
      box.onchange = () => (row.days = DAYS.filter((one, at) => days[at].firstChild.checked).join(','));
      return h('label', { class: 'day' }, box, day);
    });
    const time = (key, label) => {
      const input = h('input', { type: 'time', required: true, 'aria-label': label, onchange: () => (row[key] = input.value) });
      // The end of the day is the next one's beginning.
      input.value = row[key] === '24:00' ? '00:00' : row[key];
      return input;
    };
    row.inputs = [rateInput('Upload limit then'), rateInput('Download limit then')];
    for (const [at, bytes] of [row.up, row.down].entries()) row.inputs[at].value = bytes == null ? '' : exact(bytes);
    return h('li', null, h('div', { class: 'days' }, days), h('div', { class: 'inline' }, time('from', 'From'), time('to', 'To')),
      h('div', { class: 'inline' }, '↑', row.inputs[0], '↓', row.inputs[1], button('Remove', () => ((rows = rows.filter((one) => one !== row)), list()), { picture: 'close', quiet: true })));
  }

  const list = () => keyed(windows, rows, (row) => row, line);
  const add = button('Add a time of day', () => (rows.push({ days: 'mon-fri', from: '08:00', to: '18:00', up: null, down: null }), list()), { picture: 'plus' });
  let [before, windowsBefore] = [{}, ''];
  const typed = () => rows.map(({ days, from, to, inputs }) => ({ days, from, to, up: usual(inputs[0]), down: usual(inputs[1]) }));
  const load = async () => {
    const found = await get(path('limits'));
    show(up, found.up);
    show(down, found.down);
    rows = found.schedule ?? [];
    say(now, `Now: ↑ ${limited(found.up_now)}, ↓ ${limited(found.down_now)}. Times are those of the client’s machine, and it is ${found.clock} there.`);
    list();
    [before, windowsBefore] = [{ up: up.value, down: down.value }, JSON.stringify(typed())];
  };
  return section('Limits', [h('div', { class: 'pair' }, field('Upload limit', up, 'Such as 500k or 2 MiB/s.'), field('Download limit', down, 'Per second, for all together.')), windows, now, add], load, async () => {
    // Only what was changed here: the rest may have been changed elsewhere.
    const change = {};
    for (const [key, input] of [['up', up], ['down', down]]) if (input.value !== before[key]) change[key] = bytesOf(input);
    const schedule = typed();
    if (JSON.stringify(schedule) !== windowsBefore) change.schedule = schedule;
    await put(path('limits'), change);
    [before, windowsBefore] = [{ up: up.value, down: down.value }, JSON.stringify(schedule)];
  });
}

function folders() {
  const folder = pathInput({});
  const active = h('input', { type: 'number', min: 0, placeholder: 'no bound' });
  const command = h('code', null, 'none');
  const told = h('input', { type: 'checkbox', id: 'told', onchange: () => told.checked && Notification.requestPermission().then((answer) => (told.checked = answer === 'granted')) });
  told.checked = globalThis.Notification?.permission === 'granted';
  let before = {};
  const load = async () => {
    const found = await get(path('settings'));
    folder.input.value = found.download_folder ?? '';
    active.value = found.active_downloads || '';
    command.textContent = found.on_complete ?? 'none';
    before = { folder: folder.input.value, active: active.value };
  };
  return section('Downloads', [
    field('Download folder', folder.input), folder.element,
    field('Downloads at a time', active, 'The others wait in the queue.'),
    h('div', { class: 'field' }, h('strong', null, 'Command on completion'), command, h('small', null, 'Only a terminal sets it: ', h('code', null, 'shoal set on_complete …'))),
    h('label', { class: 'check', for: 'told' }, told, 'Tell me when a download ends while another page is in front'),
  ], load, async () => {
    const change = {};
    if (folder.input.value !== before.folder) change.download_folder = folder.input.value.trim();
    if (active.value !== before.active) change.active_downloads = Number(active.value);
    await put(path('settings'), change);
    before = { folder: folder.input.value, active: active.value };
  });
}

function account() {
  const clients = h('ul', { class: 'people', 'aria-label': 'Clients' });
  quietly(async () => {
    const { sessions } = await get(path('sessions'));
    keyed(clients, sessions, (one) => JSON.stringify(one), (one) => h('li', null, h('bdi', null, one.peer), h('small', null, one.self ? 'this client' : one.address)));
  });
  const out = button('Sign out', () => act(out, async () => (await remove(path('session')), loadAll())), { picture: 'out' });
  return h('section', { class: 'card' }, h('h2', null, 'Account'),
    h('p', null, 'Signed in as ', name(state.session.user), '.'), h('h3', null, 'Clients of this account'), clients,
    h('div', { class: 'buttons' }, button('Change password', changePassword), out));
}

function changePassword() {
  const [old, fresh] = ['current-password', 'new-password'].map((autocomplete) => h('input', { type: 'password', required: true, autocomplete }));
  // Password managers know by it whose password this is.
  const user = h('input', { autocomplete: 'username', value: state.session.user, readonly: true, hidden: true });
  ask('Change the password', [user, field('Present password', old), field('New password', fresh)], 'Change', async () => {
    await post(path('session', 'password'), { old: old.value, new: fresh.value });
    notice('The password is another one now.', 'good');
  });
}
