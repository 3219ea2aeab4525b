// Numbers as people read them. What is not known is a dash.

export const NONE = "–";

const MIB = 1024 * 1024;

/** @param {number | null | undefined} value @param {(value: number) => string} write */
const known = (value, write) => (value === null || value === undefined ? NONE : write(value));

/** Three digits that count. @param {number} value */
function threeDigits(value) {
  const size = Math.abs(value);
  const places = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}

/** Milliseconds, without the unit. @param {number | null | undefined} ms */
export const millis = (ms) => known(ms, threeDigits);

/** Mebibytes, without the unit. @param {number | null | undefined} bytes */
export const mebibytes = (bytes) =>
  known(bytes, (value) => (value / MIB).toLocaleString("en", { maximumFractionDigits: value < 10 * MIB ? 1 : 0 }));

/** Something a second. @param {number | null | undefined} rate */
export const perSecond = (rate) => known(rate, (value) => (value === 0 ? "0" : threeDigits(value)));

/** A share or a measure near 1. @param {number | null | undefined} value */
export const share = (value) => known(value, (given) => given.toFixed(4));

/** A probability in percent. @param {number | null | undefined} p */
export const percent = (p) => known(p, (given) => `${(given * 100).toFixed(given < 0.1 ? 2 : 1)} %`);

/** Any measure. @param {number | null | undefined} value */
export const measure = (value) =>
  known(value, (given) => (given !== 0 && Math.abs(given) < 1e-3 ? given.toExponential(2) : given.toFixed(4)));

/** @param {number} value */
export const count = (value) => value.toLocaleString("en");

/** "1 variant", "2 variants". @param {number} value @param {string} one */
export const counted = (value, one) => `${count(value)} ${one}${value === 1 ? "" : "s"}`;

/** A moment, of the day if it is today. @param {number} seconds Since 1970. */
export function moment(seconds) {
  const at = new Date(seconds * 1000);
  const time = at.toLocaleTimeString("en-GB");
  // The Swedish way to write a day is that of ISO 8601, and in the same zone as the time.
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString("sv-SE")} ${time}`;
}

/** "a, b and c". @param {string[]} words */
export function listed(words) {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;
}
