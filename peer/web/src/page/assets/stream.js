// What happens, as it happens: server-sent events, read by `fetch` because `EventSource` sends no header. A stream that breaks is
// opened again behind the last event that came.

import { ask } from './api.js';
import { forget } from './key.js';

// The first pause before another try, and the longest, in milliseconds.
const PAUSE = 500;
const LONGEST = 15_000;
// The client sends a comment every 15 s; a stream that is silent for longer than two is dead.
const SILENT = 40_000;

/** Reads events until `stop` is called. `on.event(name, data)`, `on.open()`, `on.lost(error)`. */
export function follow(on) {
  let last = null;
  let stopped = false;
  let pause = PAUSE;
  let wake = () => {};
  let abort = new AbortController();

  async function once() {
    abort = new AbortController();
    const more = last === null ? {} : { 'last-event-id': last };
    const answer = await ask('/api/1/events', { headers: more, signal: abort.signal }, true);
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    pause = PAUSE;
    on.open(last !== null);
    await read(answer.body.getReader());
  }

  async function read(reader) {
    const decoder = new TextDecoder();
    let text = '';
    for (;;) {
      const silence = setTimeout(() => abort.abort(), SILENT);
      const { done, value } = await reader.read().finally(() => clearTimeout(silence));
      if (done) return;
      const blocks = (text + decoder.decode(value, { stream: true })).split('\n\n');
      text = blocks.pop();
      blocks.forEach(take);
    }
  }

  function take(block) {
    const fields = {};
    for (const line of block.split('\n')) {
      const colon = line.indexOf(': ');
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 2);
    }
    if (fields.id !== undefined) last = fields.id;
    if (fields.data) on.event(fields.event, JSON.parse(fields.data));
  }

  async function run() {
    while (!stopped) {
      let why = null;
      try {
        await once();
      } catch (error) {
        // However it broke, another try follows.
        why = error;
      }
      if (stopped) return;
      forget();
      on.lost(why);
      // Up to half as long again, so that many pages do not come back at one moment.
      const wait = pause * (1 + Math.random() / 2);
      pause = Math.min(pause * 2, LONGEST);
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        wake = () => (clearTimeout(timer), resolve());
      });
    }
  }

  run();
  return {
    /** Tries again at once: somebody looks at the page. */
    hurry: () => ((pause = PAUSE), wake()),
    stop: () => ((stopped = true), abort.abort(), wake()),
  };
}
