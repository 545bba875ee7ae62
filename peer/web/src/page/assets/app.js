// The page: trades the code of a link for a key, shows who is here, and a view for what stands behind the `#` of the address.

import { hooks, trade } from './api.js';
import { h, icon, keyed, name, plain, say, told, words } from './dom.js';
import { rate } from './format.js';
import { load, tabs } from './key.js';
import { announce, failed, notice } from './notices.js';
import { closeAll } from './panel.js';
import { lock, looked, on, refreshed, state } from './store.js';
import { downloads } from './views/downloads.js';
import { group } from './views/group.js';
import { groupLink, groups } from './views/groups.js';
import { settings } from './views/settings.js';
import { shares } from './views/shares.js';
import { locked, signin, waiting } from './views/signin.js';

const app = document.getElementById('app');
// What `shoal web` puts behind the `#`.
const CODE = /^#[0-9a-f]{32}$/;

// Events that somebody has to do something about, and those that are welcome.
const BAD = ['failed', 'share_lost', 'session_ended'];
const GOOD = ['complete', 'joined', 'resumed', 'share_back', 'tracker_found'];

const PAGES = [
  { at: 'downloads', title: 'Downloads', picture: 'down', view: downloads },
  { at: 'groups', title: 'Groups', picture: 'group', view: groups },
  { at: 'shares', title: 'Shares', picture: 'up', view: shares },
  { at: 'settings', title: 'Settings', picture: 'gear', view: settings },
];

let view = null;
let frame = null;
let refused = null;

/** The view that the address names, and what it is of. */
function wanted() {
  const parts = location.hash.replace(/^#\/?/, '').split('/').filter(Boolean).map(decode);
  if (parts[0] === 'groups' && parts.length > 1) return [group, parts.slice(1), 'groups'];
  const page = PAGES.find(({ at }) => at === parts[0]) ?? PAGES[0];
  return [page.view, parts.slice(1), page.at];
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The parts around every view. */
function makeFrame() {
  const links = PAGES.map(({ at, title, picture }) => h('a', { href: `#/${at}`, 'data-at': at }, icon(picture), h('span', null, title)));
  const own = h('div', { class: 'own' });
  const who = h('p', { class: 'who' });
  const link = h('p', { class: 'link', role: 'status' });
  const title = h('h1', { tabindex: -1 });
  const bar = h('div', { class: 'tools' });
  const body = h('div', { class: 'body' });
  const banner = h('p', { class: 'banner', role: 'alert', hidden: true });
  const element = h('div', { class: 'frame' },
    h('nav', { 'aria-label': 'Pages' }, h('p', { class: 'brand' }, h('img', { src: '/assets/icon.svg', alt: '', width: 22, height: 22 }), 'Shoal'),
      h('div', { class: 'pages' }, links), h('div', { class: 'groups' }, h('h2', null, 'Your groups'), own), h('div', { class: 'foot' }, link, who)),
    h('main', { id: 'main' }, banner, h('header', null, title, bar), body));
  return { element, links, own, who, link, title, bar, body, banner };
}

function show() {
  const user = state.session?.user;
  if (state.link === 'locked' || !state.session || !user) return bare();
  if (!frame) {
    frame = makeFrame();
    app.replaceChildren(frame.element);
    route();
  }
  surround();
}

/** What is shown while nobody is logged in. A form that somebody fills in stays. */
function bare() {
  closeAll();
  view?.end();
  view = frame = null;
  const kind = state.link === 'locked' ? 'locked' : state.session ? 'signin' : 'waiting';
  if (app.dataset.bare === kind && kind === 'signin') return;
  app.dataset.bare = kind;
  app.replaceChildren({ locked: () => locked(refused ?? state.why), signin, waiting }[kind]());
  document.title = 'Shoal';
  app.querySelector('input')?.focus();
}

/** Brings what surrounds the view up to date. */
function surround() {
  delete app.dataset.bare;
  const away = state.link === 'away';
  frame.banner.hidden = !away;
  if (away) say(frame.banner, state.why ?? 'The client does not answer; trying again.');
  const down = state.downloads.reduce((sum, row) => sum + (row.state === 'D' ? row.rate : 0), 0);
  say(frame.link, away ? 'Not connected' : down > 0 ? `↓ ${rate(down)}` : 'Connected');
  frame.who.replaceChildren(name(state.session.user));
  keyed(frame.own, state.groups.filter(({ member }) => member), (row) => row.group,
    (row) => h('a', { href: groupLink(row.group) }, name(row.group)), mark);
}

function mark(element) {
  const here = location.hash.startsWith(element.getAttribute('href').replace(/\/files$/, '/'));
  if (here) element.setAttribute('aria-current', 'page');
  else element.removeAttribute('aria-current');
}

/** Shows the view of the address. */
function route() {
  if (!frame) return;
  closeAll();
  view?.end();
  const [make, parts, at] = wanted();
  view = make(parts);
  for (const link of frame.links) {
    if (link.dataset.at === at) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  frame.title.replaceChildren(name(view.title));
  frame.bar.replaceChildren(...view.bar);
  frame.body.replaceChildren(view.element);
  document.title = `${plain(view.title)} – Shoal`;
  for (const element of frame.own.children) mark(element);
}

function followed() {
  route();
  frame?.title.focus();
}

// What of an event is a name, or holds one.
const NAMES = ['path', 'file', 'group', 'user', 'from', 'to', 'source', 'mirror'];

/** Says what happened; outside of the page too, if nobody looks at it. */
function happened(event) {
  const { text, group, user, file } = event;
  const all = told(text, NAMES.map((field) => event[field]));
  const [what, href] = {
    join_request: () => [words`${user} asks to join ${group}.`, groupLink(group, 'members')],
    complete: () => [words`${file} is complete.`, '#/downloads'],
    failed: () => [all, '#/downloads'],
  }[event.event]?.() ?? [all];
  notice(what, BAD.includes(event.event) ? 'bad' : GOOD.includes(event.event) ? 'good' : '', href);
  if (document.hidden && href && globalThis.Notification?.permission === 'granted') new Notification('Shoal', { body: what.text });
}

/** A newer program may need a newer page. */
function versioned(version) {
  const here = document.querySelector('meta[name=version]').content;
  if (!version || version === here || versioned.said) return;
  versioned.said = true;
  notice(`The client is now version ${version}. Load this page again.`, 'bad');
}

async function begin() {
  hooks.locked = lock;
  hooks.version = versioned;
  if (CODE.test(location.hash)) {
    const code = location.hash.slice(1);
    // It is good once: it must not stay in the history.
    history.replaceState(null, '', '/');
    await trade(code).catch(async (error) => (refused = await load() ? null : error.message));
  }
  for (const topic of ['link', 'session', 'groups', 'downloads']) on(topic, topic === 'link' || topic === 'session' ? show : () => frame && surround());
  on('problem', failed);
  on('link', () => state.link === 'open' && frame && announce('Connected'));
  on('event', happened);
  addEventListener('hashchange', () => (CODE.test(location.hash) ? location.reload() : followed()));
  document.querySelector('.skip').addEventListener('click', (event) => {
    event.preventDefault();
    const main = document.getElementById('main');
    main.tabIndex = -1;
    main.focus();
  });
  addEventListener('keydown', (event) => {
    if (event.key === '/' && view?.search && !event.target.closest('input, textarea, select, dialog')) {
      event.preventDefault();
      view.search.focus();
    }
  });
  document.addEventListener('visibilitychange', () => looked(document.hidden));
  // Another tab has got a key.
  tabs.addEventListener('message', () => refreshed());
  show();
  refreshed();
}

begin();
