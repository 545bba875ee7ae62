// Downloads, as they move.

import { get, patch, path, post } from '../api.js';
import { button, field, h, keyed, name, plain, say, told, words } from '../dom.js';
import { pieceMap, rateGraph } from '../draw.js';
import { pathInput } from '../folders.js';
import { count, duration, exact, parseSize, rate, size } from '../format.js';
import { by, list, text } from '../list.js';
import { act } from '../notices.js';
import { ask, facts, panel, sure } from '../panel.js';
import { keyOf, loadDownloads, on, quietly, sentence, state } from '../store.js';

/** Milliseconds after which a download is explained again although it does the same. */
const EXPLAINED_FOR = 10_000;

/** What a download does, in a word. */
function stateOf(row) {
  if (row.state !== 'D') return { C: 'Complete', P: 'Paused', F: 'Failed' }[row.state];
  if (row.queued != null) return `Queued (${row.queued})`;
  return row.rate > 0 ? 'Downloading' : 'Waiting';
}

const at = (row, ...more) => path('downloads', row.group, row.file, ...more);

async function order(row, what) {
  await post(at(row, what));
  await loadDownloads();
}

/** Pause or resume, and cancel: the same in a row and in the details. */
function controls(row, quiet) {
  const runs = row.state === 'D';
  const make = (words, picture, action) => {
    const made = button(quiet ? `${words} ${row.file}` : words, () => act(made, action), { picture, quiet });
    return made;
  };
  const kept = () => (row.files ? words`Files of ${row.file} that are whole stay; the rest is removed.` : words`What is there of ${row.file} is removed.`);
  const cancel = () => (row.state === 'C' ? order(row, 'cancel') : sure('Cancel the download', kept(), 'Cancel download', () => order(row, 'cancel')));
  return [
    row.state !== 'C' && (runs ? make('Pause', 'pause', () => order(row, 'pause')) : make('Resume', 'play', () => order(row, 'resume'))),
    make(row.state === 'C' ? 'Take off the list' : 'Cancel', 'close', cancel),
  ].filter(Boolean);
}

export function downloads() {
  const search = h('input', { type: 'search', placeholder: 'Search downloads', 'aria-label': 'Search downloads' });
  const graph = rateGraph();
  const sum = h('p', { class: 'total' });
  const detail = details(() => table.focus());
  const table = list({
    id: 'downloads',
    label: 'Downloads',
    kind: 'tall',
    keyOf,
    open: detail.open,
    columns: [
      { title: 'File', key: 'file', kind: 'wide', sort: by('file'), fill: nameCell },
      { title: 'Progress', key: 'percent', kind: 'bar', sort: by('percent'), fill: progressCell },
      { title: 'Size', key: 'size', kind: 'num rest', sort: by('size'), fill: text((row) => size(row.size)) },
      { title: 'Rate', key: 'rate', kind: 'num', sort: by('rate'), fill: text((row) => (row.state === 'D' ? rate(row.rate) : '')) },
      { title: 'Left', key: 'left', kind: 'num rest', fill: text((row) => (row.state === 'D' && row.rate ? duration(row.left) : '')) },
      { title: 'Actions', kind: 'acts', quiet: true, fill: acts },
    ],
  });
  table.empty(h('p', null, 'No downloads. '), h('p', null, h('a', { href: '#/groups' }, 'Choose a file in one of your groups.')));

  function nameCell(cell, row) {
    const why = row.error ?? row.activity;
    cell.replaceChildren(name(row.file), h('small', { class: row.error ? 'problem' : '' }, name(row.group), ...(why ? [' · ', ...told(why, [row.file, row.group]).nodes()] : [])));
  }

  function progressCell(cell, row) {
    const bar = cell.firstChild ?? cell.appendChild(h('progress', { max: 100 }));
    const words = bar.nextSibling ?? cell.appendChild(h('small'));
    bar.value = row.percent;
    bar.setAttribute('aria-label', plain(row.file));
    bar.className = row.state;
    const files = row.files?.done == null || row.state === 'C' ? '' : `, ${row.files.done} of ${row.files.chosen} files`;
    say(words, row.state === 'C' ? 'Complete' : `${stateOf(row)}, ${row.percent} %${files}`);
  }

  /** The buttons stay while the state does, so that the focus does. */
  function acts(cell, row) {
    const key = `${keyOf(row)} ${row.state}`;
    if (cell.key === key) return;
    cell.key = key;
    const focused = cell.contains(document.activeElement) ? [...cell.children].indexOf(document.activeElement) : -1;
    cell.replaceChildren(...controls(row, true));
    if (focused >= 0) (cell.children[focused] ?? cell.lastChild).focus();
  }

  function show() {
    const words = search.value.toLowerCase();
    table.set(state.downloads.filter(({ file }) => file.toLowerCase().includes(words)));
    const running = state.downloads.filter((row) => row.state === 'D');
    say(sum, `${count(state.downloads.length, 'download')}, ${running.length} running`);
    graph.element.hidden = !running.length;
    if (running.length) graph.draw(state.rates);
    detail.moved();
  }

  search.addEventListener('input', show);
  const ends = [on('downloads', show), () => table.end()];
  const element = h('div', { class: 'split' }, h('div', { class: 'side' }, graph.element, table.element), detail.element);
  // The graph needs to know its width: it is drawn when it is there.
  requestAnimationFrame(show);
  return { title: 'Downloads', bar: [sum, search], element, search, end: () => ends.forEach((end) => end()) };
}

/** The details of one download, which move with it. */
function details(closed) {
  const map = pieceMap();
  const sources = h('ul', { class: 'peers' });
  const why = h('p', { class: 'why' });
  const moving = h('div');
  const buttons = h('div', { class: 'buttons' });
  const pieces = h('p', { class: 'total' });
  const priority = h('select', null, ['high', 'normal', 'low'].map((value) => h('option', { value }, value)));
  const limit = h('input', { placeholder: 'none', inputmode: 'decimal' });
  const view = panel(closed);
  let key = null;
  let asked = false;
  let explained = null;

  const row = () => state.downloads.find((one) => keyOf(one) === key);

  function open(download) {
    key = keyOf(download);
    explained = null;
    // Nothing of the one before stays.
    why.replaceChildren();
    say(pieces, '');
    map.draw({ count: 0, have: '' });
    map.element.removeAttribute('aria-label');
    showSources([]);
    priority.value = download.priority ?? 'normal';
    limit.value = download.limit ? exact(download.limit) : '';
    view.show(name(download.file), why, moving, buttons, h('h3', null, 'Pieces'), map.element, pieces, settings(), h('h3', null, 'Sources'), sources);
    moved();
  }

  function settings() {
    const apply = button('Set', () => act(apply, async () => {
      const bytes = limit.value.trim() ? parseSize(limit.value) : 0;
      if (bytes === null) throw new Error('Give a rate such as 500k or 2 MiB/s, or nothing for no limit.');
      await patch(at(row()), { priority: priority.value, limit: bytes });
      await loadDownloads();
    }));
    return h('div', { class: 'inline set' }, field('Priority', priority), field('Limit per second', limit), apply);
  }

  /** To an end of the queue, among those of its priority. */
  function queueTo(end) {
    const made = button(`${end === 'first' ? 'First' : 'Last'} in the queue`, () => act(made, async () => {
      await patch(at(row()), { queue: end });
      await loadDownloads();
    }), { picture: end === 'first' ? 'top' : 'bottom' });
    return made;
  }

  function moveTo(download) {
    const folder = pathInput({ required: true });
    ask(words`Move ${download.file}`, [field('Folder', folder.input), folder.element], 'Move', async () => {
      await post(at(download, 'move'), { folder: folder.input.value.trim() });
      await loadDownloads();
    });
  }

  /** What the progress says, at once; what only the client can tell, when it has answered. */
  function moved() {
    const download = row();
    if (!view.open) return;
    if (!download) return view.close();
    moving.replaceChildren(facts(
      ['State', `${stateOf(download)}${download.state === 'D' ? `, ${download.percent} %` : ''}`],
      ['There', `${size(download.verified)} of ${size(download.size)}`],
      download.state === 'D' && ['Rate', `${rate(download.rate)}, ${duration(download.left)} left`],
      ['Group', name(download.group)],
      ['Path', h('code', null, plain(download.path))]));
    // They are for this download.
    const now = `${key} ${download.state}`;
    if (buttons.key !== now) {
      buttons.key = now;
      const more = download.state === 'C' ? [button('Move to…', () => moveTo(row()), { picture: 'move' })] : ['first', 'last'].map(queueTo);
      buttons.replaceChildren(...controls(download), ...more);
    }
    if (!asked) quietly(look);
  }

  async function look() {
    asked = true;
    const of = key;
    try {
      const found = await get(at(row()));
      if (key !== of || !view.open) return;
      await explain(found);
      if (key !== of) return;
      if (found.pieces) {
        map.draw(found.pieces);
        say(pieces, map.element.getAttribute('aria-label'));
      }
      showSources(found.sources ?? []);
    } finally {
      asked = false;
      // Another one is shown by now: it waited.
      if (key !== of && view.open && row()) quietly(look);
    }
  }

  function showSources(all) {
    keyed(sources, all, (one) => `${one.user} ${one.address}`, source, (element, one) => {
      say(element.lastChild, one.rate ? rate(one.rate) : one.state ?? '');
    });
  }

  /** Why it is as it is, and what to do. */
  async function explain(found) {
    const now = [keyOf(found), found.state, found.activity, Math.floor(Date.now() / EXPLAINED_FOR)].join();
    if (now === explained) return;
    explained = now;
    // It may be off the list by now.
    const said = await get(path('explain', found.group, found.file)).catch(() => null);
    const own = said?.explanations.find(({ kind }) => kind === 'download');
    if (key !== keyOf(found)) return;
    const words = own ? sentence(own) : told(found.error ?? found.activity ?? '', [found.file, found.group]);
    why.replaceChildren(...words.nodes());
  }

  function source(one) {
    return h('li', null, name(one.user ?? ''), h('small', null, one.address), h('span', { class: 'num' }));
  }

  return { element: view.element, open, moved };
}
