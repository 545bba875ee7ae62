// A list of any length. Only the rows that can be seen are in the document, a few more for a quick scroll, and the one that has the
// focus; they move by one transform each. To a screen reader it is a grid that says how many rows there are.

import { h, icon, say } from './dom.js';

// Rows beyond each edge.
const SPARE = 6;

/**
 * Makes a list.
 *
 * `label` names it; `columns` are `{ title, kind, key, sort, fill(cell, item) }`, where `sort(one, other)` makes the title a button and
 * `kind` is a class of its cells; `keyOf(item)` names a row; `open(item)` is what Enter and a click do; `sorted` is the first order, `{ key, down }`,
 * unless another one was chosen in this browser for the list of that `id`.
 */
export function list({ id, label, columns, keyOf, open, sorted, kind = '' }) {
  const rows = h('div', { class: 'rows', role: 'rowgroup' });
  const scroller = h('div', { class: 'scroller', role: 'presentation' }, rows);
  const nothing = h('div', { class: 'empty', hidden: true });
  const head = h('div', { role: 'row', class: 'head', 'aria-rowindex': 1 });
  const grid = h('div', { role: 'grid', class: `list ${kind}`, 'aria-label': label },
    h('div', { role: 'rowgroup' }, head), scroller, nothing);
  const shown = new Map();
  const spare = [];
  let items = [];
  let order = remembered(id) ?? sorted ?? null;
  let height = 44;
  let active = 0;
  let activeKey = null;
  let drawing = 0;

  const titles = columns.map(title);
  head.append(...titles);

  function title(column) {
    const cell = h('div', { role: 'columnheader', class: column.kind });
    if (column.sort) cell.append(h('button', { type: 'button', class: 'title', onclick: () => sortBy(column) }, column.title, icon('sort')));
    else cell.append(h('span', { class: column.quiet ? 'unseen' : '' }, column.title));
    return cell;
  }

  function sortBy(column) {
    order = { key: column.key, down: order?.key === column.key && !order.down };
    if (id) localStorage.setItem(`shoal-order-${id}`, JSON.stringify(order));
    arrange();
  }

  /** Sorts, keeps the row that is active, and draws. */
  function arrange() {
    const column = order && columns.find(({ key }) => key === order.key);
    columns.forEach(({ key }, at) => {
      const direction = !column || key !== column.key ? 'none' : order.down ? 'descending' : 'ascending';
      if (columns[at].sort) titles[at].setAttribute('aria-sort', direction);
    });
    if (column) items = [...items].sort(order.down ? (one, other) => column.sort(other, one) : column.sort);
    const found = activeKey === null ? -1 : items.findIndex((item) => keyOf(item) === activeKey);
    active = found >= 0 ? found : Math.min(active, Math.max(0, items.length - 1));
    grid.setAttribute('aria-rowcount', items.length + 1);
    nothing.hidden = items.length > 0;
    scroller.hidden = items.length === 0;
    draw();
  }

  function makeRow() {
    const cells = columns.map((column) => h('div', { role: 'gridcell', class: column.kind }));
    const row = h('div', { role: 'row', class: 'row' }, cells);
    row.cells = cells;
    return row;
  }

  function fill(row, at) {
    const item = items[at];
    if (row.at !== at || row.height !== height) {
      row.at = at;
      row.height = height;
      row.style.transform = `translateY(${at * height}px)`;
      row.setAttribute('aria-rowindex', at + 2);
    }
    if (row.item !== item) {
      row.item = item;
      columns.forEach((column, index) => column.fill(row.cells[index], item));
    }
    row.tabIndex = at === active ? 0 : -1;
    for (const control of row.querySelectorAll('button')) control.tabIndex = row.tabIndex;
  }

  function draw() {
    drawing = 0;
    rows.style.height = `${items.length * height}px`;
    const first = Math.max(0, Math.floor(scroller.scrollTop / height) - SPARE);
    const last = Math.min(items.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / height) + SPARE);
    const places = new Set(items.length ? [active] : []);
    for (let at = first; at < last; at += 1) places.add(at);
    let isLost = false;
    const keys = new Set([...places].map((at) => keyOf(items[at])));
    for (const [key, row] of shown) {
      if (keys.has(key)) continue;
      shown.delete(key);
      if (row.contains(document.activeElement)) {
        // It is not another item's with the focus in it.
        row.remove();
        isLost = true;
      } else {
        spare.push(row);
      }
    }
    for (const at of places) place(at);
    // What is left over is few: it goes, so that the document stays small.
    for (const row of spare.splice(0)) row.remove();
    if (isLost && items.length) shown.get(keyOf(items[active]))?.focus({ preventScroll: true });
  }

  function place(at) {
    // A row is its item's, wherever that moves: so are its focus and its clicks.
    const key = keyOf(items[at]);
    let row = shown.get(key);
    if (!row) {
      row = spare.pop() ?? makeRow();
      shown.set(key, row);
      if (!row.isConnected) rows.append(row);
    }
    fill(row, at);
  }

  function later() {
    drawing ||= requestAnimationFrame(draw);
  }

  /** Makes a row the active one, brings it into sight, and gives it the focus. */
  function activate(at, focus = true) {
    active = Math.max(0, Math.min(items.length - 1, at));
    activeKey = items.length ? keyOf(items[active]) : null;
    const top = active * height;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    if (top + height > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + height - scroller.clientHeight;
    draw();
    if (focus) shown.get(activeKey)?.focus({ preventScroll: true });
  }

  function pressed(event) {
    const page = Math.max(1, Math.floor(scroller.clientHeight / height) - 1);
    const to = { ArrowDown: active + 1, ArrowUp: active - 1, PageDown: active + page, PageUp: active - page, Home: 0, End: items.length - 1 };
    if (event.key in to && items.length && !event.altKey && !event.metaKey) {
      event.preventDefault();
      activate(to[event.key]);
    } else if (event.key === 'Enter' && items.length && event.target === shown.get(keyOf(items[active]))) {
      event.preventDefault();
      open?.(items[active]);
    }
  }

  scroller.addEventListener('scroll', later, { passive: true });
  scroller.addEventListener('keydown', pressed);
  scroller.addEventListener('focusin', (event) => {
    const row = event.target.closest('.row');
    if (!row || !items[row.at] || row.at === active && activeKey !== null) return;
    active = row.at;
    activeKey = keyOf(items[active]);
    later();
  });
  scroller.addEventListener('click', (event) => {
    const row = event.target.closest('.row');
    if (!row || event.target.closest('button, a')) return;
    activate(row.at);
    open?.(items[row.at]);
  });
  // A row is as high as the style says, which is more where the page is narrow.
  const sized = new ResizeObserver(() => {
    height = parseFloat(getComputedStyle(rows).getPropertyValue('--row')) || height;
    later();
  });
  sized.observe(scroller);

  return {
    element: grid,
    /** Takes the rows; those with a known key stay where they are. */
    set(all) {
      items = all;
      arrange();
    },
    /** What stands there without rows. */
    empty(...what) {
      nothing.replaceChildren(...what);
    },
    focus: () => activate(active),
    get count() {
      return items.length;
    },
    end: () => sized.disconnect(),
  };
}

/** The order that was chosen for a list before. */
function remembered(id) {
  try {
    return JSON.parse(localStorage.getItem(`shoal-order-${id}`));
  } catch {
    return null;
  }
}

/** Compares two values of a field: numbers by size, texts as people sort them. */
export function by(field) {
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: 'base' });
  return (one, other) => {
    const [a, b] = [one[field] ?? 0, other[field] ?? 0];
    return typeof a === 'number' ? a - b : collator.compare(a, b);
  };
}

/** Fills a cell with a text. */
export const text = (of) => (cell, item) => say(cell, of(item));
