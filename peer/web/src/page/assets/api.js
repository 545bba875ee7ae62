// The client's API: one function per way of asking. The token is kept in this origin's storage and sent in a header, so that no other
// page can use it; there is no cookie.

const KEPT = 'shoal-token';

/** A refusal: what happened and what to do, in the client's words. */
export class Refused extends Error {
  constructor(status, text, code) {
    super(text);
    this.name = 'Refused';
    this.status = status;
    this.code = code;
  }
}

/** The client cannot be reached; it may be starting again. */
export class Away extends Error {
  constructor() {
    super('The client does not answer; trying again.');
    this.name = 'Away';
  }
}

export const token = {
  get: () => localStorage.getItem(KEPT),
  set: (value) => localStorage.setItem(KEPT, value),
  drop: () => localStorage.removeItem(KEPT),
};

/** What is to happen when the token is good no more, and when an answer names a version. */
export const hooks = { locked() {}, version() {} };

/** The path of something below `/api/1/`; every part is a name. */
export function path(...parts) {
  return `/api/1/${parts.map(encodeURIComponent).join('/')}`;
}

/** The headers of a request. */
export function headers(more) {
  return { authorization: `Bearer ${token.get() ?? ''}`, ...more };
}

async function call(method, where, body, signal) {
  const options = { method, headers: headers(), signal, cache: 'no-store' };
  if (body !== undefined) {
    options.headers['content-type'] = 'application/json';
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(where, options);
  } catch (error) {
    throw error.name === 'AbortError' ? error : new Away();
  }
  hooks.version(answer.headers.get('shoal-version'));
  return read(answer.status, await answer.text());
}

/** What an answer says. */
function read(status, text) {
  let said = {};
  try {
    said = JSON.parse(text || '{}');
  } catch {
    // It is no answer of the API; its status says enough.
  }
  if (status === 401) {
    token.drop();
    hooks.locked();
  }
  if (status >= 400 || said.ok === false) throw new Refused(status, said.error ?? `The client answers ${status}.`, said.code);
  return said;
}

export const get = (where, signal) => call('GET', where, undefined, signal);
export const post = (where, body = {}) => call('POST', where, body);
export const put = (where, body) => call('PUT', where, body);
export const patch = (where, body) => call('PATCH', where, body);
export const remove = (where) => call('DELETE', where);

/** Trades the code of a link for a token. */
export async function trade(code) {
  const answer = await call('POST', '/api/1/token', { code });
  token.set(answer.token);
}

/** Sends a file; `progress` is called with the bytes that are gone. `XMLHttpRequest` alone says how far that is. */
export function upload(where, file, progress) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.open('PUT', where);
    for (const [header, value] of Object.entries(headers())) request.setRequestHeader(header, value);
    request.setRequestHeader('content-type', 'application/octet-stream');
    request.upload.onprogress = (event) => progress(event.loaded);
    request.onerror = () => reject(new Away());
    request.onabort = () => reject(new DOMException('cancelled', 'AbortError'));
    request.onload = () => {
      try {
        resolve(read(request.status, request.responseText));
      } catch (error) {
        reject(error);
      }
    };
    request.send(file);
  });
  return { done, cancel: () => request.abort() };
}
