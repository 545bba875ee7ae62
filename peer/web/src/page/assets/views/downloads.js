// Downloads, as they move.

import { h, name, say } from '../dom.js';
import { duration, rate, size } from '../format.js';
import { by, list, text } from '../list.js';
import { keyOf, on, state } from '../store.js';

/** What a download does, in a word. */
export function stateOf(row) {
  if (row.state === 'C') return 'Complete';
  if (row.state === 'P') return 'Paused';
  if (row.state === 'F') return 'Failed';
  if (row.queued != null) return `Queued (${row.queued})`;
  return row.rate > 0 ? 'Downloading' : 'Waiting';
}

export function downloads() {
  const table = list({
    label: 'Downloads',
    keyOf,
    columns: [
      { title: 'File', key: 'file', kind: 'wide', sort: by('file'), fill: nameCell },
      { title: 'State', key: 'state', kind: 'bar', fill: progressCell },
      { title: 'Size', key: 'size', kind: 'num', sort: by('size'), fill: text((row) => size(row.size)) },
      { title: 'Rate', key: 'rate', kind: 'num', sort: by('rate'), fill: text((row) => (row.state === 'D' ? rate(row.rate) : '')) },
      { title: 'Left', key: 'left', kind: 'num', fill: text((row) => (row.state === 'D' ? duration(row.left) : '')) },
    ],
  });
  table.empty(h('p', null, 'No downloads. Choose a file in one of your groups.'));

  function nameCell(cell, row) {
    cell.replaceChildren(name(row.file), h('small', null, name(row.group)));
  }

  function progressCell(cell, row) {
    const bar = cell.firstChild ?? cell.appendChild(h('progress', { max: 100 }));
    const words = bar.nextSibling ?? cell.appendChild(h('small'));
    bar.value = row.percent;
    bar.setAttribute('aria-label', `${row.file}: ${row.percent} %`);
    bar.className = row.state;
    say(words, `${stateOf(row)}, ${row.percent} %`);
  }

  const show = () => table.set(state.downloads);
  const ends = [on('downloads', show), () => table.end()];
  show();
  return { title: 'Downloads', bar: [], element: table.element, end: () => ends.forEach((end) => end()) };
}
