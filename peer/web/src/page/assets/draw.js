// Pictures of numbers: rates over time, and which pieces are there. Each says the same in words.

import { h } from './dom.js';
import { count, rate } from './format.js';
import { HISTORY } from './store.js';

/** A picture that is drawn again when its size changes. */
function picture(kind, draw) {
  const element = h('canvas', { class: kind, role: 'img' });
  let last = null;
  const again = () => last && draw(element, last);
  new ResizeObserver(again).observe(element);
  return {
    element,
    draw(what) {
      last = what;
      draw(element, what);
    },
  };
}

/** A context as sharp as the screen is, its size, and the theme's colours. */
function prepare(element) {
  const scale = devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = element;
  element.width = Math.round(width * scale);
  element.height = Math.round(height * scale);
  const context = element.getContext('2d');
  context.scale(scale, scale);
  const style = getComputedStyle(element);
  return { context, width, height, colour: (name) => style.getPropertyValue(name) };
}

/** The rates of the last five minutes: `{ at, down }` in seconds and bytes per second. */
export function rateGraph() {
  return picture('graph', (element, rates) => {
    const top = Math.max(1, ...rates.map(({ down }) => down));
    const last = rates.at(-1)?.down ?? 0;
    element.setAttribute('aria-label', `Rate of the last five minutes: ${rate(last)} now, ${rate(top > 1 ? top : 0)} at most`);
    if (!element.clientWidth) return;
    const { context, width, height, colour } = prepare(element);
    const now = rates.at(-1)?.at ?? 0;
    const x = (at) => width * (1 - (now - at) / HISTORY);
    const y = (down) => height - 2 - (height - 18) * (down / top);
    context.beginPath();
    context.moveTo(x(rates[0]?.at ?? 0), height);
    for (const { at, down } of rates) context.lineTo(x(at), y(down));
    context.lineTo(width, height);
    context.fillStyle = colour('--soft');
    context.fill();
    context.strokeStyle = colour('--bar');
    context.lineWidth = 1.5;
    context.stroke();
    context.fillStyle = colour('--muted');
    context.font = `11px ${getComputedStyle(element).fontFamily}`;
    context.fillText(`${rate(top > 1 ? top : 0)} at most`, 6, 12);
  });
}

/** Which pieces are there: `{ count, have }`, where `have` is a bitmap in base64, its most significant bit first. */
export function pieceMap() {
  return picture('map', (element, pieces) => {
    const bytes = atob(pieces.have);
    const has = (at) => (bytes.charCodeAt(at >> 3) >> (7 - (at & 7))) & 1;
    let there = 0;
    for (let at = 0; at < pieces.count; at += 1) there += has(at);
    element.setAttribute('aria-label', `${there.toLocaleString('en')} of ${count(pieces.count, 'piece')} there`);
    if (!element.clientWidth) return;
    const { context, width, height, colour } = prepare(element);
    if (!pieces.count) return;
    context.fillStyle = colour('--bar');
    // One column for a piece, or for as many as share one: the fuller it is, the stronger its colour.
    const columns = Math.min(width, pieces.count);
    for (let column = 0; column < columns; column += 1) {
      const from = Math.floor((column * pieces.count) / columns);
      const to = Math.max(from + 1, Math.floor(((column + 1) * pieces.count) / columns));
      let full = 0;
      for (let at = from; at < to; at += 1) full += has(at);
      if (!full) continue;
      context.globalAlpha = 0.25 + (0.75 * full) / (to - from);
      const left = (column * width) / columns;
      context.fillRect(left, 0, Math.max(1, width / columns - (columns < width / 4 ? 1 : 0)), height);
    }
  });
}
