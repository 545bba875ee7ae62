// What the page knows of the client, and who wants to hear when it changes. It comes from the API and from its events alone: nothing is
// asked for again and again.

import { get, path } from './api.js';
import { told } from './dom.js';
import { load } from './key.js';
import { follow } from './stream.js';

/** Seconds of rates that are kept for the graph. */
export const HISTORY = 300;

export const state = {
  /** 'locked' without a key, else 'connecting', 'open' or 'away'. */
  link: 'connecting',
  /** Why it is away or locked, if that is known. */
  why: null,
  /** Who is logged in, and where; `null` until it is known. */
  session: null,
  groups: [],
  downloads: [],
  /** Bytes per second of all downloads together: `{ at, down }`, the newest last. */
  rates: [],
};

const listeners = new Map();

/** Calls `listener` whenever `topic` changes; gives what ends that. */
export function on(topic, listener) {
  if (!listeners.has(topic)) listeners.set(topic, new Set());
  listeners.get(topic).add(listener);
  return () => listeners.get(topic).delete(listener);
}

export function tell(topic, value) {
  for (const listener of [...(listeners.get(topic) ?? [])]) {
    try {
      listener(value);
    } catch (error) {
      // A view that fails must not end the stream of events.
      reportError(error);
    }
  }
}

function setLink(link, why = null) {
  if (state.link === link && state.why === why) return;
  state.link = link;
  state.why = why;
  tell('link');
}

/** Names a download, or a file of a group. */
export const keyOf = ({ group, file }) => JSON.stringify([group, file]);

function setDownloads(rows) {
  // Progress says less than the list: what it leaves out stays as it was.
  const before = new Map(state.downloads.map((row) => [keyOf(row), row]));
  state.downloads = rows.map((row) => complete({ ...steady(before.get(keyOf(row))), ...row }));
  const down = rows.reduce((sum, row) => sum + (row.state === 'D' ? row.rate : 0), 0);
  const now = Date.now() / 1000;
  state.rates = state.rates.filter(({ at }) => at > now - HISTORY);
  state.rates.push({ at: now, down });
  tell('downloads');
}

/** Of an earlier row, what does not change. */
function steady(row) {
  return row ? { size: row.size } : {};
}

/** How much is there and how long the rest takes, where the row does not say. */
function complete(row) {
  const verified = row.verified ?? ((row.size ?? 0) * row.percent) / 100;
  const left = row.seconds_left ?? (row.state === 'D' && row.rate > 0 ? (row.size - verified) / row.rate : null);
  return { ...row, verified, left };
}

export async function loadSession() {
  const session = await get(path('session'));
  const changed = state.session?.user !== session.user;
  state.session = session;
  if (changed) state.groups = [];
  tell('session');
}

export async function loadGroups() {
  state.groups = (await get(path('groups'))).groups;
  tell('groups');
}

export async function loadDownloads() {
  setDownloads((await get(path('downloads'))).downloads);
}

/** Why downloads or shares (`kind`) are as they are: sentences by what `keyOf` names. */
export async function explained(kind) {
  const found = await get(path('explain'));
  return new Map(found.explanations.filter((one) => one.kind === kind && one.file && one.level !== 'well').map((one) => [keyOf(one), sentence(one)]));
}

/** An explanation with its next step. */
export const sentence = ({ text, next, group, file }) => told(next ? `${text} Next: ${next.replace(/\.?$/, '.')}` : text, [group, file]);

/** Looks at everything again. */
export async function loadAll() {
  await loadSession();
  if (state.session.user) await Promise.all([loadGroups(), loadDownloads()]);
  tell('resync');
}

/** What has to be looked at again after an event. */
const AFTER = {
  joined: loadGroups,
  renamed: loadAll,
  resumed: loadAll,
  session_ended: loadAll,
  resync: loadAll,
  missed: loadAll,
};

function happened(event, data) {
  if (event === 'progress') {
    // A download that is new here: only the list says how large it is.
    const known = new Set(state.downloads.map(keyOf));
    setDownloads(data.downloads);
    if (data.downloads.some((row) => row.size === undefined && !known.has(keyOf(row)))) quietly(loadDownloads);
    return;
  }
  if (AFTER[event]) quietly(AFTER[event]);
  if (data.text) tell('event', data);
}

/** Does something that fails only while the client is away: then everything is loaded again anyway. */
export function quietly(action) {
  return action().catch((error) => {
    if (error.name !== 'Away' && error.name !== 'Locked') tell('problem', error);
  });
}

let stream = null;

/** Begins to follow the client; it needs a key. */
export async function connect() {
  stream?.stop();
  stream = null;
  if (!await load()) return setLink('locked');
  stream?.stop();
  setLink('connecting');
  stream = follow({
    open: () => (setLink('open'), quietly(loadAll)),
    lost: (error) => setLink('away', error?.name === 'Away' ? error.message : null),
    event: happened,
  });
}

/** There may be another key: follows with it, out of sight only if this tab did already. */
export async function refreshed() {
  if (stream || !document.hidden || !await load()) await connect();
}

let release = () => {};

/** Follows on out of sight only as the one tab that does, and if its user wants to be told. */
async function rest() {
  const wanted = globalThis.Notification?.permission === 'granted';
  const alone = wanted && await new Promise((taken) => {
    navigator.locks.request('shoal-told', { ifAvailable: true }, (lock) => {
      taken(!!lock);
      return lock && new Promise((done) => (release = done));
    });
  });
  if (alone || !document.hidden) return;
  stream?.stop();
  stream = null;
}

/** The client does not know the key; a look at the page asks it again. */
export function lock(why) {
  stream?.stop();
  stream = null;
  state.session = null;
  setLink('locked', why || null);
}

/**
 * The page went out of sight, or somebody looks at it again. A browser has six connections per address: of the tabs that nobody sees one
 * alone follows the client, and only to tell its user what happens. After a look, what no event tells may be different.
 */
export function looked(hidden) {
  if (hidden) return void rest();
  release();
  if (!stream) connect();
  else if (state.link === 'away') stream?.hurry();
  else if (state.link === 'open') quietly(loadAll);
}
