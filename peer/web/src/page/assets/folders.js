// Paths on this machine: typed, with what may be reached as suggestions.

import { get, path } from './api.js';
import { h } from './dom.js';

let made = 0;

/** An input for a path below the allowed folders; `files` suggests files too. */
export function pathInput({ files, ...attributes }) {
  const id = `paths${(made += 1)}`;
  const options = h('datalist', { id });
  const input = h('input', { list: id, autocomplete: 'off', spellcheck: 'false', placeholder: '/…', ...attributes });
  let shown = null;

  async function suggest() {
    const folder = input.value.slice(0, input.value.lastIndexOf('/') + 1);
    if (folder === shown) return;
    shown = folder;
    // A folder that may not be reached has no suggestions; what is wrong with it is said when it is used.
    const found = await (folder ? below(folder, files) : roots()).catch(() => []);
    if (shown === folder) options.replaceChildren(...found.map((value) => h('option', { value })));
  }

  input.addEventListener('focus', suggest);
  input.addEventListener('input', suggest);
  return { input, element: options };
}

async function roots() {
  return (await get(path('roots'))).roots.map((root) => `${root.path}/`);
}

async function below(folder, files) {
  const found = await get(`${path('roots', 'list')}?path=${encodeURIComponent(folder)}`);
  const folders = (found.folders ?? []).map((name) => `${folder}${name}/`);
  return files ? [...folders, ...(found.files ?? []).map(({ name }) => folder + name)] : folders;
}
