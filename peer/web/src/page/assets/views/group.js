// A group's files, with who shares them.

import { get, path } from '../api.js';
import { h, name } from '../dom.js';
import { count, size } from '../format.js';
import { by, list, text } from '../list.js';
import { on, quietly } from '../store.js';

export function group([group]) {
  const search = h('input', { type: 'search', placeholder: 'Search files', 'aria-label': 'Search files' });
  const total = h('p', { class: 'total', role: 'status' });
  let files = [];
  const table = list({
    label: `Files of ${group}`,
    keyOf: (file) => file.name,
    sorted: { key: 'name' },
    columns: [
      { title: 'Name', key: 'name', kind: 'wide', sort: by('name'), fill: (cell, file) => cell.replaceChildren(name(file.name)) },
      { title: 'Size', key: 'size', kind: 'num', sort: by('size'), fill: text((file) => size(file.size)) },
      { title: 'Sharers', key: 'sharers', kind: 'num', sort: by('sharers'), fill: text((file) => String(file.sharers)) },
    ],
  });
  table.empty(h('p', null, 'No files yet.'));

  function show() {
    const words = search.value.toLowerCase();
    const found = files.filter((file) => file.name.toLowerCase().includes(words));
    table.set(found);
    const all = found.reduce((sum, file) => sum + file.size, 0);
    total.textContent = `${count(found.length, 'file')}, ${size(all)}`;
  }

  async function load() {
    files = (await get(path('groups', group, 'files'))).files;
    show();
  }

  search.addEventListener('input', show);
  const ends = [on('resync', () => quietly(load)), () => table.end()];
  quietly(load);
  return { title: group, bar: [search, total], element: table.element, search, end: () => ends.forEach((end) => end()) };
}
