// What opens over or beside a view: a panel with the details of a row, and a dialog that asks.

import { button, h, spoken } from './dom.js';
import { failed, reason } from './notices.js';

/** A panel beside the list; on a narrow page it lies over it. `closed` is called when it goes. */
export function panel(closed) {
  const title = h('h2', { tabindex: -1 });
  const content = h('div', { class: 'content' });
  const element = h('aside', { class: 'panel', hidden: true, 'aria-label': 'Details' },
    h('header', null, title, button('Close the details', close, { picture: 'close', quiet: true })), content);
  element.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    close();
  });

  function close() {
    if (element.hidden) return;
    element.hidden = true;
    closed?.();
  }

  return {
    element,
    content,
    close,
    get open() {
      return !element.hidden;
    },
    show(heading, ...what) {
      title.replaceChildren(heading);
      content.replaceChildren(...what);
      element.hidden = false;
      title.focus();
    },
  };
}

/** Terms and what they are, as `[term, element or text]`. */
export function facts(...rows) {
  return h('dl', null, rows.filter(Boolean).flatMap(([term, value]) => [h('dt', null, term), h('dd', { dir: 'auto' }, value)]));
}

/** Asks in a dialog. `done` is called for its main button, and may refuse: then the dialog stays and says why. */
export function ask(title, content, verb, done, kind = 'main') {
  const problem = h('p', { class: 'problem', role: 'alert' });
  const main = h('button', { type: 'submit', class: kind }, verb);
  const element = h('dialog', { 'aria-label': spoken(title).text, onclose: () => element.remove() },
    h('form', { class: 'ask', onsubmit: submit }, h('h2', null, spoken(title).nodes()), content, problem,
      h('div', { class: 'buttons' }, button('Cancel', () => element.close()), main)));

  async function submit(event) {
    event.preventDefault();
    if (main.disabled) return;
    main.disabled = true;
    problem.textContent = '';
    try {
      await done();
      element.close();
    } catch (error) {
      if (element.open) problem.replaceChildren(...reason(error).nodes());
      else failed(error);
    } finally {
      main.disabled = false;
    }
  }

  document.body.append(element);
  element.showModal();
  return element;
}

/** Closes what asks: what it asks about is no longer shown. */
export const closeAll = () => document.querySelectorAll('dialog[open]').forEach((one) => one.close());

/** Asks whether something that cannot be undone is meant. */
export const sure = (title, text, verb, done) => ask(title, h('p', null, spoken(text).nodes()), verb, done, 'danger');
