// All groups of the network: yours, and those that you may ask to join.

import { path, post } from '../api.js';
import { button, h, name, words } from '../dom.js';
import { by, list, text } from '../list.js';
import { act, notice } from '../notices.js';
import { loadGroups, on, quietly, state } from '../store.js';

/** Where a group is shown. */
export const groupLink = (group, part = 'files') => `#/groups/${encodeURIComponent(group)}/${part}`;

export function groups() {
  const search = h('input', { type: 'search', placeholder: 'Search groups', 'aria-label': 'Search groups' });
  const asked = new Set();
  const table = list({
    id: 'groups',
    label: 'Groups',
    keyOf: (row) => row.group,
    open: (row) => (row.member ? (location.hash = groupLink(row.group)) : null),
    sorted: { key: 'group' },
    columns: [
      { title: 'Group', key: 'group', kind: 'wide', sort: by('group'), fill: nameCell },
      { title: 'Owner', key: 'owner', kind: 'mid', sort: by('owner'), fill: (cell, row) => cell.replaceChildren(name(row.owner)) },
      { title: 'You', key: 'member', kind: 'short', fill: text((row) => (row.member ? (row.owner === state.session?.user ? 'Owner' : 'Member') : '')) },
      { title: 'Actions', kind: 'acts', quiet: true, fill: actions },
    ],
  });
  table.empty(h('p', null, 'No group here yet. Create one, and tell friends its name: they ask to join, and you let them in.'));

  function nameCell(cell, row) {
    cell.replaceChildren(row.member ? h('a', { href: groupLink(row.group), tabindex: -1 }, name(row.group)) : name(row.group));
  }

  function actions(cell, row) {
    cell.replaceChildren();
    if (row.member) return;
    const ask = button(asked.has(row.group) ? 'Asked' : 'Ask to join', () => act(ask, () => join(row)), { 'aria-label': `Ask to join ${row.group}` });
    ask.disabled = asked.has(row.group);
    cell.append(ask);
  }

  async function join(row) {
    await post(path('groups', row.group, 'join'));
    asked.add(row.group);
    notice(words`You asked to join ${row.group}; its owner decides.`, 'good');
    show();
  }

  function show() {
    const sought = search.value.toLowerCase();
    // Copies, so that a row whose action changed is drawn again.
    table.set(state.groups.filter(({ group }) => group.toLowerCase().includes(sought)).map((row) => ({ ...row })));
  }

  search.addEventListener('input', show);
  const ends = [on('groups', show), () => table.end()];
  quietly(loadGroups);
  show();
  return {
    title: 'Groups',
    bar: [search, createForm()],
    element: table.element,
    search,
    end: () => ends.forEach((end) => end()),
  };
}

function createForm() {
  const input = h('input', { placeholder: 'New group', 'aria-label': 'Name of the new group', maxlength: 64, required: true });
  const submit = h('button', { class: 'main', type: 'submit' }, 'Create group');
  return h('form', {
    class: 'inline',
    onsubmit: (event) => {
      event.preventDefault();
      act(submit, async () => {
        const group = input.value.trim();
        await post(path('groups'), { group });
        input.value = '';
        await loadGroups();
        location.hash = groupLink(group);
      });
    },
  }, input, submit);
}
