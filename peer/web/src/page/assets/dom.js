// Elements, made by hand. A string is always a text node here: whatever a name from the network holds, it never becomes markup.

const SVG = 'http://www.w3.org/2000/svg';

// Pictures of 16 by 16, drawn with a stroke.
const ICONS = {
  down: 'M8 2v9M4 7l4 4 4-4M3 14h10',
  up: 'M8 13V4M4 8l4-4 4 4M3 2h10',
  top: 'M3 2h10M8 14V5M4 9l4-4 4 4',
  bottom: 'M3 14h10M8 2v9M4 7l4 4 4-4',
  group: 'M6 8a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM1 14c0-3 2-5 5-5s5 2 5 5M11 2a3 3 0 0 1 0 6M12 9c2 0 3 2 3 5',
  file: 'M4 1h6l3 3v11H4zM10 1v3h3',
  gear: 'M8 10a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM8 1v2M8 13v2M1 8h2M13 8h2M3 3l1.5 1.5M11.5 11.5L13 13M3 13l1.5-1.5M11.5 4.5L13 3',
  pause: 'M5 3v10M11 3v10',
  play: 'M4 2l9 6-9 6z',
  close: 'M3 3l10 10M13 3L3 13',
  check: 'M2 8l4 5 8-10',
  warn: 'M8 2l7 12H1zM8 6v4M8 12v.5',
  plus: 'M8 2v12M2 8h12',
  sort: 'M4 6l4-4 4 4M4 10l4 4 4-4',
  again: 'M13 8a5 5 0 1 1-2-4M13 1v4H9',
  move: 'M1 3h5l2 2h7v9H1zM6 9h5M9 7l2 2-2 2',
  out: 'M6 2H2v12h4M10 4l4 4-4 4M14 8H6',
};

/** Makes an element. `on…` are listeners, `class` and the rest attributes; `false`, `null` and `undefined` are left out. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** A picture that says nothing to a screen reader: the words stand beside it, or in a label. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  for (const [key, value] of [['viewBox', '0 0 16 16'], ['aria-hidden', 'true'], ['class', 'icon']]) svg.setAttribute(key, value);
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', ICONS[name]);
  svg.append(path);
  return svg;
}

/** A button with a picture, and with words that may be for screen readers alone. */
export function button(words, onclick, { picture, quiet, kind, ...attributes } = {}) {
  const label = quiet ? { 'aria-label': plain(words), title: plain(words) } : {};
  return h('button', { type: 'button', class: kind ?? (quiet ? 'quiet' : 'plain'), onclick, ...label, ...attributes },
    picture && icon(picture), quiet ? null : h('span', null, words));
}

/** A text with what is hidden in it shown, as the prompt shows it. */
export function plain(text) {
  return String(text).replace(/[^\P{Cc}\n\t]|[\p{Cf}\p{Zl}\p{Zp}\p{Co}]/gu, (hidden) => `\\u{${hidden.codePointAt(0).toString(16)}}`);
}

/** A name from the network: set apart, so that its direction does not turn what stands around it. */
export function name(text, attributes) {
  return h('bdi', { title: plain(text), ...attributes }, plain(text));
}

/**
 * A sentence with names in it. What others named is set apart from our words, in its own direction, so that a file called “x was deleted,
 * press OK” is not read as ours. Made by `words` and `told`.
 */
class Words {
  constructor(parts) {
    this.parts = parts;
  }

  /** For the page. */
  nodes() {
    return this.parts.map((part) => (typeof part === 'string' ? plain(part) : name(part.name, { class: 'named' })));
  }

  /** For what takes text alone: names stand in quotation marks that they cannot close, and do not turn the text around them. */
  get text() {
    const quoted = (text) => `\u2068“${plain(text).replace(/[“”]/g, '"')}”\u2069`;
    return this.parts.map((part) => (typeof part === 'string' ? plain(part) : quoted(part.name))).join('');
  }
}

/** A sentence of the page's: words`${file} is complete.` */
export function words(strings, ...values) {
  const parts = (value) => (value instanceof Words ? value.parts : [{ name: String(value) }]);
  return new Words(strings.flatMap((text, at) => (at < values.length ? [text, ...parts(values[at])] : [text])));
}

/** A sentence of the client's, in which these names may stand. */
export function told(text, names) {
  const found = [...new Set(names.filter((one) => typeof one === 'string' && one))].sort((one, other) => other.length - one.length);
  if (!found.length) return new Words([text]);
  const escaped = found.map((one) => one.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('|');
  // Not within a word.
  const parts = text.split(new RegExp(`(?<![\\p{L}\\p{N}])(${escaped})(?![\\p{L}\\p{N}])`, 'u'));
  return new Words(parts.map((part, at) => (at % 2 ? { name: part } : part)));
}

/** Either as it is put into an element. */
export const spoken = (what) => (what instanceof Words ? what : new Words([String(what)]));

/** A field with its label, and room for what is wrong with it. */
export function field(label, input, hint) {
  const id = `f${(field.next = (field.next ?? 0) + 1)}`;
  input.id = id;
  if (hint) input.setAttribute('aria-describedby', `${id}h`);
  return h('div', { class: 'field' }, h('label', { for: id }, label), input, hint && h('small', { id: `${id}h` }, hint));
}

/** Sets a text only where it is another one: a screen reader hears what changes, and the browser lays out nothing twice. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Brings the children of `parent` in step with `items`. An element stays while its key does, with its focus. */
export function keyed(parent, items, keyOf, make, update) {
  const before = parent.byKey ?? new Map();
  const now = new Map();
  let at = parent.firstChild;
  const seen = new Map();
  for (const item of items) {
    // Two may be called alike.
    const name = keyOf(item);
    const nth = seen.get(name) ?? 0;
    seen.set(name, nth + 1);
    const key = nth ? `${nth} ${name}` : name;
    const element = before.get(key) ?? make(item);
    before.delete(key);
    now.set(key, element);
    if (element === at) at = at.nextSibling;
    else parent.insertBefore(element, at);
    update?.(element, item);
  }
  for (const element of before.values()) element.remove();
  parent.byKey = now;
}
