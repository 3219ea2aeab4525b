// Where numbers stand in a picture, and the numbers that stand beside an axis.

/** @typedef {{place: (value: number) => number, value: (place: number) => number, ticks: number[]}} Scale */

/**
 * Equal ratios at equal distances.
 * @param {number[]} values @param {number} from @param {number} to Places of the ends.
 * @returns {Scale}
 */
export function logScale(values, from, to) {
  const known = values.filter((value) => value > 0);
  const low = Math.min(...known, Infinity);
  const high = Math.max(...known, -Infinity);
  const [least, most] = known.length ? [low / 1.5, high * 1.6] : [1, 100];
  const span = Math.log(most / least);
  const coarse = ticksOf(least, most, [1, 2, 5]);
  const ticks = coarse.length > 2 ? coarse : ticksOf(least, most, [1, 1.5, 2, 3, 4, 5, 7]);
  return {
    place: (value) => from + (to - from) * (Math.log(Math.max(value, least / 10) / least) / span),
    value: (place) => least * Math.exp((span * (place - from)) / (to - from)),
    ticks,
  };
}

/** @param {number} least @param {number} most @param {number[]} steps Of each power of ten. */
function ticksOf(least, most, steps) {
  const powers = Array.from({ length: Math.ceil(Math.log10(most / least)) + 2 }, (_, n) => 10 ** (Math.floor(Math.log10(least)) + n));
  return powers.flatMap((power) => steps.map((step) => Number((step * power).toPrecision(2)))).filter((tick) => tick >= least && tick <= most);
}

const NEAREST = 3e-4;

/**
 * Of agreement: each nine as far from the last as the one before, with 1 at the end.
 * @param {number[]} values @param {number} from @param {number} to
 * @returns {Scale}
 */
export function ninesScale(values, from, to) {
  const least = Math.max(0, Math.min(0.9, ...values) - 0.03);
  const depth = (/** @type {number} */ value) => -Math.log10(1 - Math.min(Math.max(value, 0), 1) + NEAREST);
  const [low, high] = [depth(least), depth(1)];
  return {
    place: (value) => from + (to - from) * ((depth(value) - low) / (high - low)),
    value: (place) => {
      const given = 1 + NEAREST - 10 ** -(low + ((place - from) / (to - from)) * (high - low));
      return Math.min(Math.max(given, 0), 1);
    },
    ticks: [0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1].filter((tick) => tick >= least),
  };
}

/**
 * Those of points that no other is at least as good as in both: least x (or most), most y.
 * @template {{x: number, y: number}} Point
 * @param {Point[]} points @param {boolean} isLessBetter
 * @returns {Point[]} From the best x on.
 */
export function front(points, isLessBetter) {
  const sign = isLessBetter ? 1 : -1;
  const ordered = [...points].sort((a, b) => sign * (a.x - b.x) || b.y - a.y);
  let best = -Infinity;
  return ordered.filter(({ y }) => {
    const isBetter = y > best;
    best = Math.max(best, y);
    return isBetter;
  });
}
