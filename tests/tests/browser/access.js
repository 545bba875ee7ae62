// The faults that keep people from using what is seen: the body of a function, which gives them as texts. What the browser tells a screen
// reader is not looked at here: it comes from the browser itself.
const faults = [];
const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !element.closest('.unseen, .skip');
const brief = (element) => element.outerHTML.replace(/\s+/g, ' ').slice(0, 110);
const all = (css) => [...document.querySelectorAll(css)];

// The document: its language, its title, one heading of the first level, no level left out, one main part.
if (!document.documentElement.lang) faults.push('no lang');
if (!document.title.trim()) faults.push('no title');
const mains = all('main').filter(shown);
if (mains.length !== 1) faults.push(`${mains.length} main parts`);
const modal = document.querySelector('dialog[open]');
const headings = [...(modal ?? mains[0] ?? document).querySelectorAll('h1, h2, h3, h4, h5, h6')].filter(shown);
if (!modal && headings.filter(({ tagName }) => tagName === 'H1').length !== 1) faults.push('not one h1');
headings.reduce((before, heading) => {
  const level = Number(heading.tagName[1]);
  if (level > before + 1) faults.push(`a level is left out before ${brief(heading)}`);
  return level;
}, modal ? 1 : 0);

// Ids, and what names them.
const ids = all('[id]').map(({ id }) => id);
for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) faults.push(`two have the id ${id}`);
for (const attribute of ['aria-labelledby', 'aria-describedby', 'aria-controls', 'aria-owns', 'for', 'list']) {
  for (const element of all(`[${attribute}]`)) {
    for (const id of element.getAttribute(attribute).split(/\s+/)) if (!document.getElementById(id)) faults.push(`${attribute} names no ${id}`);
  }
}

// Roles: known ones, within what they need, and attributes that belong to them.
const WITHIN = {
  row: '[role=rowgroup], [role=grid]', rowgroup: '[role=grid]', gridcell: '[role=row]', columnheader: '[role=row]', option: '[role=listbox], datalist', tab: '[role=tablist]',
};
const ROLES = ['grid', 'row', 'rowgroup', 'gridcell', 'columnheader', 'status', 'alert', 'region', 'group', 'presentation', 'img', 'button', 'list', 'listitem'];
for (const element of all('[role]')) {
  const { role } = element;
  if (!ROLES.includes(role)) faults.push(`an unknown role: ${brief(element)}`);
  if (WITHIN[role] && !element.parentElement.closest(WITHIN[role])) faults.push(`not within ${WITHIN[role]}: ${brief(element)}`);
}
for (const element of all('[aria-sort]')) if (element.role !== 'columnheader') faults.push(`aria-sort: ${brief(element)}`);
for (const element of all('[aria-rowcount]')) if (element.role !== 'grid') faults.push(`aria-rowcount: ${brief(element)}`);
for (const list of all('ul, ol')) {
  if ([...list.children].some(({ tagName }) => tagName !== 'LI')) faults.push(`not an li in ${brief(list)}`);
}
for (const item of all('li')) if (!item.closest('ul, ol')) faults.push(`an li without a list: ${brief(item)}`);
for (const part of all('dt, dd')) if (part.parentElement.tagName !== 'DL') faults.push(`without a dl: ${brief(part)}`);
for (const image of all('img:not([alt])')) faults.push(`no alt: ${brief(image)}`);

// Focus: no order of its own, nothing hidden that takes it, nothing within another, and room for a finger (WCAG 2.2, 2.5.8).
const CONTROLS = 'a[href], button, input, select, textarea, summary, [tabindex]';
for (const element of all(CONTROLS)) {
  if (element.tabIndex > 0) faults.push(`a tabindex of its own: ${brief(element)}`);
  if (element.tabIndex >= 0 && element.closest('[aria-hidden=true]')) faults.push(`hidden, and takes the focus: ${brief(element)}`);
}
for (const element of all('a[href], button')) {
  if (element.querySelector('a[href], button, input, select')) faults.push(`a control in a control: ${brief(element)}`);
  const { width, height } = element.getBoundingClientRect();
  const inSentence = element.tagName === 'A' && element.closest('p, .toast, .wide, .acts');
  if (shown(element) && !inSentence && (width < 24 || height < 24)) faults.push(`only ${width} × ${height}: ${brief(element)}`);
}
for (const input of all('input:not([type=hidden], [hidden]), select, textarea')) {
  if (!input.labels?.length && !input.getAttribute('aria-label')) faults.push(`no label: ${brief(input)}`);
}

// Contrast of each text with what lies behind it (WCAG 2.2, 1.4.3), as the browser computed both.
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
canvas.canvas.width = canvas.canvas.height = 1;
function rgba(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
  return [red, green, blue, alpha / 255];
}
const over = ([red, green, blue, alpha], ground) => [red, green, blue].map((value, at) => value * alpha + ground[at] * (1 - alpha));
function groundOf(element) {
  const layers = [];
  for (let one = element; one; one = one.parentElement) {
    layers.push(rgba(getComputedStyle(one).backgroundColor));
    if (layers.at(-1)[3] === 1) break;
  }
  return layers.reverse().reduce((ground, layer) => over(layer, ground), [255, 255, 255]);
}
function luminance(colour) {
  const [red, green, blue] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const judged = new Set();
while (texts.nextNode()) {
  const element = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || judged.has(element) || !shown(element) || element.closest('noscript, option, :disabled')) continue;
  judged.add(element);
  const style = getComputedStyle(element);
  const ground = groundOf(element);
  let alpha = 1;
  for (let one = element; one; one = one.parentElement) alpha *= Number(getComputedStyle(one).opacity);
  const [red, green, blue, own] = rgba(style.color);
  const [light, dark] = [luminance(over([red, green, blue, own * alpha], ground)), luminance(ground)].sort((one, other) => other - one);
  const contrast = (light + 0.05) / (dark + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
  if (contrast < (large ? 3 : 4.5)) faults.push(`contrast ${contrast.toFixed(2)}: ${brief(element)}`);
}
return faults;
