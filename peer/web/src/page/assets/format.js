// Sizes, rates and times as people read them.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** Bytes: "1.4 GiB". */
export function size(bytes) {
  if (bytes == null) return '–';
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** Bytes per second. */
export function rate(bytes) {
  return bytes ? `${size(bytes)}/s` : '–';
}

/** Seconds: "2 h 5 min". */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return '–';
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.round(hours / 24)} days`;
}

/** A number of things: "1 file", "2,000 files". */
export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString('en')} ${number === 1 ? one : many}`;
}

/** Bytes per second to be edited: read again, they are as many. */
export function exact(bytes) {
  return parseSize(size(bytes)) === bytes ? `${size(bytes)}/s` : String(bytes);
}

/** Reads "2.5 MiB", "800k" or "1000000" as bytes; `null` if it is no size. */
export function parseSize(text) {
  const match = /^\s*([\d.]+)\s*([kmgt]?)(i?b)?(\/s)?\s*$/i.exec(text);
  if (!match || Number.isNaN(Number(match[1]))) return null;
  return Math.round(Number(match[1]) * 1024 ** ['', 'k', 'm', 'g', 't'].indexOf(match[2].toLowerCase()));
}
