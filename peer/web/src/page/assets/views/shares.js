// What this client shares, and what is wrong with it.

import { get, path, remove } from '../api.js';
import { button, h, name, plain, say, spoken, told, words } from '../dom.js';
import { count, size } from '../format.js';
import { by, list, text } from '../list.js';
import { sure } from '../panel.js';
import { explained, keyOf, on, quietly } from '../store.js';

// Events after which the list is another one.
const TOUCHED = ['share_lost', 'share_back', 'share_checking', 'complete'];

export function shares() {
  const search = h('input', { type: 'search', placeholder: 'Search shares', 'aria-label': 'Search shares' });
  const sum = h('p', { class: 'total', role: 'status' });
  let all = [];
  let why = new Map();
  const table = list({
    id: 'shares',
    label: 'Shares',
    keyOf,
    sorted: { key: 'file' },
    columns: [
      { title: 'File', key: 'file', kind: 'wide', sort: by('file'), fill: nameCell },
      { title: 'Group', key: 'group', kind: 'mid', sort: by('group'), fill: (cell, row) => cell.replaceChildren(name(row.group)) },
      { title: 'Size', key: 'size', kind: 'num', sort: by('size'), fill: text((row) => size(row.size)) },
      { title: 'Actions', kind: 'acts', quiet: true, fill: acts },
    ],
  });
  table.empty(h('p', null, 'Nothing is shared from here. Open one of your groups and drop files on it.'));

  function nameCell(cell, row) {
    const problem = row.problem ?? why.get(keyOf(row));
    const about = problem ? spoken(row.problem ? told(row.problem, [row.file, row.group]) : problem).nodes() : name(row.path);
    cell.replaceChildren(name(row.file), h('small', { class: problem ? 'problem' : '', title: plain(row.path) }, about));
  }

  function acts(cell, row) {
    cell.replaceChildren(button(`Stop sharing ${row.file}`, () => sure('Stop sharing', words`${row.file} stays on this machine, and is no longer shared in ${row.group}.`,
      'Stop sharing', async () => (await remove(path('groups', row.group, 'files', row.file)), load())), { picture: 'close', quiet: true }));
  }

  function show() {
    const words = search.value.toLowerCase();
    const found = all.filter(({ file }) => file.toLowerCase().includes(words));
    table.set(found);
    say(sum, `${count(found.length, 'share')}, ${size(found.reduce((bytes, row) => bytes + row.size, 0))}`);
  }

  async function load() {
    all = (await get(path('shares'))).shares;
    show();
    // A client that cannot explain lists all the same.
    why = await explained('share').catch(() => new Map());
    all = all.map((row) => ({ ...row }));
    show();
  }

  search.addEventListener('input', show);
  const ends = [on('resync', () => quietly(load)), on('event', ({ event }) => TOUCHED.includes(event) && quietly(load)), () => table.end()];
  quietly(load);
  return { title: 'Shares', bar: [sum, search], element: table.element, search, end: () => ends.forEach((end) => end()) };
}
