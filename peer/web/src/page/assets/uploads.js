// Files that go from the browser to the client, one after the other. They go on while other views are shown.

import { path, upload } from './api.js';
import { words } from './dom.js';
import { notice, reason } from './notices.js';
import { tell } from './store.js';

/** `{ group, file, folder, name, sent, size }`, the one that goes now first. */
export const uploads = [];
let going = null;

/** Puts files in line for a group; they are copied into `folder`, or the download folder. */
export function send(group, files, folder) {
  for (const file of files) uploads.push({ group, file, folder, name: file.name, size: file.size, sent: 0 });
  tell('uploads');
  if (!going) next();
}

/** Takes one out of the line, also while it goes. */
export function drop(one) {
  if (one === uploads[0] && going) going.cancel();
  else uploads.splice(uploads.indexOf(one), 1);
  tell('uploads');
}

async function next() {
  while (uploads.length) {
    const one = uploads[0];
    const folder = one.folder ? `?folder=${encodeURIComponent(one.folder)}` : '';
    going = upload(path('groups', one.group, 'files', one.name) + folder, one.file, (sent) => {
      one.sent = sent;
      tell('uploads');
    });
    try {
      await going.done;
      notice(words`${one.name} is shared in ${one.group} now.`, 'good');
      tell('shared', one.group);
    } catch (error) {
      if (error.name !== 'AbortError') notice(words`${one.name} is not shared: ${reason(error)}`, 'bad');
    }
    uploads.shift();
    tell('uploads');
  }
  going = null;
}

addEventListener('beforeunload', (event) => uploads.length && event.preventDefault());
