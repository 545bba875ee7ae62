// The client's API: one function per way of asking. What is sent and what comes goes to and from the client alone: see key.js.

import { check, forget, keep, nonce, passFor } from './key.js';

/** A refusal: what happened and what to do, in the client's words. `names` are those of what was asked for; they may stand in it. */
export class Refused extends Error {
  constructor(status, text, code, names = []) {
    super(text);
    this.name = 'Refused';
    this.names = names;
    this.status = status;
    this.code = code;
  }
}

/** The client cannot be reached; it may be starting again. */
export class Away extends Error {
  constructor(text = 'The client does not answer; trying again.') {
    super(text);
    this.name = 'Away';
  }
}

/** What is to happen when the client does not know this browser, and when an answer names a version. */
export const hooks = { locked() {}, version() {} };

/** The path of something below `/api/1/`; every part is a name. */
export function path(...parts) {
  return `/api/1/${parts.map(encodeURIComponent).join('/')}`;
}

/** The headers of a request, and what checks that the client answers it; `anew` has the client prove itself first. */
async function headers(more, anew) {
  const { token, run } = await passFor(anew);
  const asked = nonce();
  return [{ authorization: `Bearer ${token}`, 'shoal-nonce': asked, ...more }, (proof) => check(proof, asked, run)];
}

/** Asks, and checks that the client answers. */
export async function ask(where, options, anew) {
  try {
    for (let again = false; ; again = true) {
      const [own, checked] = await headers(options.headers, anew || again);
      const answer = await fetch(where, { ...options, headers: own, cache: 'no-store' });
      // A client that was started again does not know the pass of the one before.
      if (answer.status === 401 && !again) continue;
      const proof = answer.headers.get('shoal-proof');
      // A client that has too many callers says no more than that.
      if (!proof && answer.status === 503) throw new Away();
      await checked(proof);
      return answer;
    }
  } catch (error) {
    throw lost(error);
  }
}

/** What it means that there is no answer. */
function lost(error) {
  if (error.name === 'AbortError') return error;
  forget();
  if (error.name === 'Locked') hooks.locked(error.message);
  return error.name === 'Locked' ? error : new Away(error.name === 'Stranger' ? error.message : undefined);
}

async function call(method, where, body, signal) {
  const options = { method, signal };
  if (body !== undefined) {
    options.headers = { 'content-type': 'application/json' };
    options.body = JSON.stringify(body);
  }
  const answer = await ask(where, options, method !== 'GET');
  hooks.version(answer.headers.get('shoal-version'));
  const text = await answer.text().catch((error) => {
    throw lost(error);
  });
  return read(answer.status, text, [...named(where), ...Object.values(body ?? {})]);
}

/** The names in an address: of a group, and of a file or a user. */
const named = (where) => where.split('?')[0].split('/').slice(4).map(decodeURIComponent);

/** What an answer says. */
function read(status, text, names) {
  let said = {};
  try {
    said = JSON.parse(text || '{}');
  } catch {
    // It is no answer of the API; its status says enough.
  }
  if (status >= 400 || said.ok === false) throw new Refused(status, said.error ?? `The client answers ${status}.`, said.code, names);
  return said;
}

export const get = (where, signal) => call('GET', where, undefined, signal);
export const post = (where, body = {}) => call('POST', where, body);
export const put = (where, body) => call('PUT', where, body);
export const patch = (where, body) => call('PATCH', where, body);
export const remove = (where) => call('DELETE', where);

/** Trades the code of a link for a key. */
export async function trade(code) {
  const options = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ code, page: true }), cache: 'no-store' };
  const answer = await fetch('/api/1/token', options).catch(() => {
    throw new Away();
  });
  const { id, key } = read(answer.status, await answer.text());
  await keep(id, key);
}

/** Sends a file; `progress` is called with the bytes that are gone. `XMLHttpRequest` alone says how far that is. */
export function upload(where, file, progress) {
  const request = new XMLHttpRequest();
  const cancelled = () => new DOMException('cancelled', 'AbortError');
  let stopped = false;
  const done = (async () => {
    const [own, checked] = await headers({ 'content-type': 'application/octet-stream' }, true).catch((error) => {
      throw lost(error);
    });
    if (stopped) throw cancelled();
    await new Promise((resolve, reject) => {
      request.open('PUT', where);
      for (const [header, value] of Object.entries(own)) request.setRequestHeader(header, value);
      request.upload.onprogress = (event) => progress(event.loaded);
      request.onerror = () => reject(new Away());
      request.onabort = () => reject(cancelled());
      request.onload = resolve;
      request.send(file);
    });
    await checked(request.getResponseHeader('shoal-proof')).catch((error) => {
      throw lost(error);
    });
    return read(request.status, request.responseText, named(where));
  })();
  return { done, cancel: () => ((stopped = true), request.abort()) };
}
