// A group: its files and who shares them, its members, and who asks to join.

import { get, path, post, remove } from '../api.js';
import { button, field, h, keyed, name, plain, say, words } from '../dom.js';
import { pathInput } from '../folders.js';
import { count, size } from '../format.js';
import { by, list, text } from '../list.js';
import { act, notice } from '../notices.js';
import { ask, facts, panel, sure } from '../panel.js';
import { keyOf, loadDownloads, loadGroups, on, quietly, state } from '../store.js';
import { drop, send, uploads } from '../uploads.js';
import { groupLink } from './groups.js';

/** The links between the parts of a group. */
function parts(group, here) {
  const link = (part, title) => h('a', { href: groupLink(group, part), 'aria-current': part === here && 'page' }, title);
  return h('div', { class: 'parts', role: 'group', 'aria-label': 'Parts of the group' }, link('files', 'Files'), link('members', 'Members'));
}

export function group([name, part]) {
  return part === 'members' ? members(name) : files(name);
}

function files(group) {
  const search = h('input', { type: 'search', placeholder: 'Search files', 'aria-label': 'Search files' });
  const total = h('p', { class: 'total', role: 'status' });
  const going = h('div', { class: 'going' });
  const details = panel(() => table.focus());
  let all = [];
  const table = list({
    id: 'files',
    label: `Files of ${group}`,
    keyOf: (file) => file.name,
    open,
    sorted: { key: 'name' },
    columns: [
      { title: 'Name', key: 'name', kind: 'wide', sort: by('name'), fill: (cell, file) => cell.replaceChildren(name(file.name)) },
      { title: 'Size', key: 'size', kind: 'num', sort: by('size'), fill: text((file) => size(file.size)) },
      { title: 'Sharers', key: 'sharers', kind: 'num', sort: by('sharers'), fill: text((file) => count(file.sharers, 'sharer')) },
      { title: 'Here', kind: 'acts', quiet: true, fill: here },
    ],
  });
  table.empty(h('p', null, 'No files here.'), h('p', null, 'Drop files on this page to share them, or use “Share files”.'));

  function here(cell, file) {
    const download = state.downloads.find((row) => keyOf(row) === keyOf({ group, file: file.name }));
    if (download && download.state !== 'C') cell.replaceChildren(h('a', { href: '#/downloads' }, `${download.percent} %`));
    else if (file.shared_here || download) cell.replaceChildren(h('span', { class: 'badge' }, file.shared_here ? 'Shared here' : 'Downloaded'));
    else {
      const fetch = button('Download', () => act(fetch, () => begin(file)), { picture: 'down', 'aria-label': `Download ${plain(file.name)}` });
      cell.replaceChildren(fetch);
    }
  }

  async function begin(file, folder, overwrite = false) {
    const begun = await post(path('downloads'), { group, file: file.name, ...(folder ? { folder } : {}), overwrite });
    notice(begun.complete ? words`${file.name} is here already: ${begun.path}` : words`${file.name} is on its way.`, 'good');
    await loadDownloads();
  }

  function downloadTo(file) {
    const { input, element } = pathInput({});
    const over = h('input', { type: 'checkbox' });
    ask(words`Download ${file.name}`, [field('Folder', input, 'Empty: the download folder.'), element,
      h('label', { class: 'check' }, over, 'Replace a file of that name')], 'Download', () => begin(file, input.value.trim(), over.checked));
  }

  function open(file) {
    const peers = h('ul', { class: 'peers' });
    const stop = () => sure('Stop sharing', words`${file.name} stays on this machine, and is no longer shared in ${group}.`, 'Stop sharing', async () => {
      await remove(path('groups', group, 'files', file.name));
      details.close();
      await load();
    });
    details.show(name(file.name), facts(['Size', `${size(file.size)} (${count(file.size, 'byte')})`], ['SHA-1', h('code', null, file.sha1)]),
      h('div', { class: 'buttons' }, button('Download to…', () => downloadTo(file), { picture: 'down' }),
        file.shared_here !== false && button('Stop sharing', stop, { kind: 'danger' })),
      h('h3', null, 'Who has it'), peers);
    quietly(async () => {
      const found = (await get(path('groups', group, 'files', file.name, 'peers'))).peers;
      peers.replaceChildren(...found.map(peer), ...(found.length ? [] : [h('li', null, 'Nobody who is online.')]));
    });
  }

  function peer(row) {
    const much = row.percent == null ? '' : `${row.percent} %`;
    return h('li', null, name(row.user), h('small', null, row.self ? 'this client' : row.address), h('span', { class: 'num' }, much));
  }

  function show() {
    const sought = search.value.toLowerCase();
    const found = all.filter((file) => file.name.toLowerCase().includes(sought));
    table.set(found);
    say(total, `${count(found.length, 'file')}, ${size(found.reduce((sum, file) => sum + file.size, 0))}`);
  }

  async function load() {
    all = (await get(path('groups', group, 'files'))).files;
    show();
  }

  /** Downloads moved: only rows whose state says so are drawn again. */
  function moved() {
    const rows = new Map(state.downloads.filter((row) => row.group === group).map((row) => [row.file, `${row.state}${row.percent}`]));
    all = all.map((file) => (rows.get(file.name) === file.moved ? file : { ...file, moved: rows.get(file.name) }));
    show();
  }

  function line(one) {
    return h('div', { class: 'sent' }, name(one.name), h('progress', { max: one.size || 1, 'aria-label': `Sending ${one.name}` }), h('small'),
      button(`Cancel ${one.name}`, () => drop(one), { picture: 'close', quiet: true }));
  }

  function sending() {
    keyed(going, uploads.filter((one) => one.group === group), (one) => one, line, (element, one) => {
      element.querySelector('progress').value = one.sent;
      say(element.querySelector('small'), `${size(one.sent)} of ${size(one.size)}`);
    });
  }

  const share = button('Share files', () => shareDialog(group, load), { picture: 'up', kind: 'main' });
  const element = h('div', { class: 'split' }, h('div', { class: 'side' }, going, table.element), details.element);
  const dropped = dropZone(element, (found) => send(group, found, folderFor.last));
  search.addEventListener('input', show);
  const ends = [on('resync', () => quietly(load)), on('downloads', moved), on('uploads', sending), on('shared', () => quietly(load)),
    () => table.end(), dropped];
  quietly(load);
  sending();
  return { title: group, bar: [parts(group, 'files'), total, search, share], element, search, end: () => ends.forEach((end) => end()) };
}

/** The folder that files were copied into last. */
const folderFor = { last: '' };

/** Shares by a path, or by a copy of files that the browser can reach. */
function shareDialog(group, load) {
  const here = pathInput({ files: true });
  const into = pathInput({});
  into.input.value = folderFor.last;
  const chosen = h('input', { type: 'file', multiple: true });
  ask(words`Share in ${group}`, [
    field('A file on this machine', here.input, 'It is shared where it is.'), here.element,
    h('p', { class: 'or' }, 'or'),
    field('Files to send', chosen, 'They are copied, then shared.'),
    field('Copied into', into.input, 'Empty: the download folder.'), into.element,
  ], 'Share', async () => {
    const place = here.input.value.trim();
    if (!place && !chosen.files.length) throw new Error('Type a path, or choose files.');
    folderFor.last = into.input.value.trim();
    if (chosen.files.length) send(group, [...chosen.files], folderFor.last);
    if (!place) return;
    await post(path('groups', group, 'files'), { path: place });
    notice(words`${place} is shared in ${group} now.`, 'good');
    await load();
  });
}

/** Takes files that are dropped anywhere on the page; gives what ends that. */
function dropZone(element, take) {
  const files = (event) => event.dataTransfer?.types.includes('Files');
  const over = (event) => {
    if (!files(event)) return;
    event.preventDefault();
    element.classList.add('over');
  };
  const out = (event) => event.relatedTarget ?? element.classList.remove('over');
  const dropped = (event) => {
    if (!files(event)) return;
    event.preventDefault();
    element.classList.remove('over');
    const entries = [...event.dataTransfer.items ?? []].map((item) => item.webkitGetAsEntry?.());
    const folders = entries.filter((entry) => entry?.isDirectory).map((entry) => entry.name);
    for (const folder of folders) notice(words`${folder} is a folder, and was not sent: open it, and drop the files in it.`, 'bad');
    take([...event.dataTransfer.files].filter((file) => !folders.includes(file.name)));
  };
  const all = { dragover: over, dragleave: out, drop: dropped };
  for (const [kind, listener] of Object.entries(all)) addEventListener(kind, listener);
  return () => Object.entries(all).forEach(([kind, listener]) => removeEventListener(kind, listener));
}

function members(group) {
  const people = h('ul', { class: 'people', 'aria-label': 'Members' });
  const asking = h('ul', { class: 'people', 'aria-label': 'Join requests' });
  const requests = h('section', { hidden: true }, h('h2', null, 'Ask to join'), asking);
  const owner = () => state.groups.find((row) => row.group === group)?.owner;

  async function load() {
    const found = (await get(path('groups', group, 'members'))).members;
    keyed(people, found, (user) => user, (user) => h('li', null, name(user), user === owner() && h('small', null, 'owner')));
    if (owner() !== state.session?.user) return;
    const asked = (await get(path('groups', group, 'requests'))).requests;
    requests.hidden = !asked.length;
    keyed(asking, asked, (user) => user, request);
  }

  function request(user) {
    const decide = (accept) => async () => {
      await post(path('groups', group, 'requests', user), { accept });
      notice(accept ? words`${user} is a member of ${group} now.` : words`${user} was refused.`, 'good');
      await load();
    };
    const yes = button('Accept', () => act(yes, decide(true)), { kind: 'main', picture: 'check', 'aria-label': `Accept ${plain(user)}` });
    const no = button('Reject', () => act(no, decide(false)), { 'aria-label': `Reject ${plain(user)}` });
    return h('li', null, name(user), yes, no);
  }

  const leave = button('Leave group', () => sure('Leave group', words`You leave ${group} and stop sharing in it.`, 'Leave', async () => {
    await post(path('groups', group, 'leave'));
    // What is here is no longer told: nothing here may ask for it.
    ends.splice(0).forEach((end) => end());
    location.hash = '#/groups';
    await loadGroups();
  }), { picture: 'out' });
  const ends = [on('resync', () => quietly(load)), on('groups', () => quietly(load)),
    on('event', (event) => event.event === 'join_request' && event.group === group && quietly(load))];
  quietly(load);
  return {
    title: group,
    bar: [parts(group, 'members'), leave],
    element: h('div', { class: 'page' }, requests, h('section', null, h('h2', null, 'Members'), people)),
    end: () => ends.forEach((end) => end()),
  };
}
