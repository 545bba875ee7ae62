// The key that this browser and its client know. It is never sent, and the browser's storage gives it to nobody: who answers at this port
// first proves to know it. Then the client gets a pass, which is good as long as that client runs. So another user of this machine who
// takes the port while the client is down learns nothing.

const STORE = 'keys';
const HMAC = { name: 'HMAC', hash: 'SHA-256' };

/** Other tabs hear there that there is another key. */
export const tabs = new BroadcastChannel('shoal-key');

/** `{ id, secret }`, where `secret` can be used and not be read. */
let key = null;
let pass = null;

/** What answers here is not the client that gave the key, or does not know the key any more. */
export class Unknown extends Error {
  constructor(name, text) {
    super(text);
    this.name = name;
  }
}

const hex = (buffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
const bytes = (text) => new Uint8Array((String(text).match(/[0-9a-f]{2}/g) ?? []).map((pair) => parseInt(pair, 16)));
const encoded = (text) => new TextEncoder().encode(text);

/** Does something with the browser's storage of this origin. */
function stored(mode, action) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open('shoal', 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const transaction = opening.result.transaction(STORE, mode);
      const asked = action(transaction.objectStore(STORE));
      transaction.oncomplete = () => (opening.result.close(), resolve(asked.result));
      transaction.onabort = () => (opening.result.close(), reject(transaction.error));
    };
  });
}

/** Looks for the key of this browser; whether there is one. */
export async function load() {
  const found = await stored('readonly', (store) => store.get('key')).catch(() => null);
  if (found && found.id !== key?.id) [key, pass] = [found, null];
  return key !== null;
}

/** Keeps a key that the client gave. Where the browser keeps nothing, as in a private window, it holds until the page is left. */
export async function keep(id, secret) {
  key = { id, secret: await crypto.subtle.importKey('raw', bytes(secret), HMAC, false, ['sign', 'verify']) };
  pass = null;
  await stored('readwrite', (store) => store.put(key, 'key')).catch(() => {});
  tabs.postMessage('another');
}

/** A text that no answer before had. */
export const nonce = () => hex(crypto.getRandomValues(new Uint8Array(16)));

/** Checks that an answer comes from that run of the client: it holds a proof for the nonce of its request. */
export async function check(proof, asked, run) {
  if (proof && await crypto.subtle.verify('HMAC', key.secret, bytes(proof), encoded(`client\n${asked}\n${run}`))) return;
  forget();
  throw new Unknown('Stranger', 'What answers at this address is not your client; nothing was sent to it. Trying again.');
}

/** Has the client prove itself, and makes a pass for it. */
async function prove() {
  const asked = nonce();
  const options = { method: 'POST', headers: { 'content-type': 'application/json' }, cache: 'no-store', body: JSON.stringify({ id: key.id, nonce: asked }) };
  const answer = await fetch('/api/1/proof', options);
  const said = await answer.json().catch(() => ({}));
  // In our words: it may be anyone who says so.
  if (answer.status === 403) throw new Unknown('Locked', 'The client at this address does not know this browser.');
  await check(said.proof, asked, said.run);
  return { run: said.run, token: `${key.id}.${hex(await crypto.subtle.sign('HMAC', key.secret, encoded(`page\n${said.run}`)))}` };
}

/** The pass for the client that answers now, and its run; `anew` has it prove itself again first. */
export async function passFor(anew) {
  if (!key) throw new Unknown('Locked', '');
  if (anew) pass = null;
  const made = pass ?? await prove();
  pass = made;
  return made;
}

/** The client may be another one from now on. */
export function forget() {
  pass = null;
}
