// What the page says by itself: notices that go away, errors that stay until they are closed, and the same for screen readers.

import { button, h, icon, spoken, told } from './dom.js';

// How long a notice stays, in milliseconds; and how many are there at once.
const STAYS = 7_000;
const MOST = 4;

const region = document.getElementById('toasts');

/** Says something to a screen reader alone. */
export function announce(text, urgent) {
  const speaker = document.getElementById(urgent ? 'assertive' : 'polite');
  // The same text twice is heard twice only if it goes in between.
  speaker.textContent = '';
  speaker.textContent = text;
}

/** Shows a notice, a text or words with names: `kind` is 'good' or 'bad', `href` where it leads. What is bad stays until it is closed. */
export function notice(what, kind, href) {
  const said = spoken(what);
  const picture = icon(kind === 'good' ? 'check' : 'warn');
  const element = h('div', { class: `toast ${kind ?? ''}` }, picture, h('p', null, href ? h('a', { href }, said.nodes()) : said.nodes()),
    button('Close this notice', () => element.remove(), { picture: 'close', quiet: true }));
  region.append(element);
  while (region.children.length > MOST) region.firstChild.remove();
  announce(said.text, kind === 'bad');
  if (kind === 'bad') return;
  const leave = () => {
    if (element.matches(':hover, :focus-within')) setTimeout(leave, STAYS);
    else element.remove();
  };
  setTimeout(leave, STAYS);
}

/** What an error says; the names in it are those of what was asked for. */
export const reason = (error) => told(error.message, error.names ?? []);

/** Shows why something was not done. */
export function failed(error) {
  if (error.name !== 'AbortError') notice(reason(error), 'bad');
}

/** Does something for a click; the button rests meanwhile, and an error is shown. */
export async function act(element, action) {
  if (element.getAttribute('aria-busy') === 'true') return;
  element.setAttribute('aria-busy', 'true');
  try {
    await action();
  } catch (error) {
    failed(error);
  } finally {
    element.removeAttribute('aria-busy');
  }
}
