// How one variant's agreement went: each step of time with its interval, and the verdicts below.

import { moment, share } from "./format.js";
import { html, useRef, useState } from "./html.js";
import { axes, colour, usePlot } from "./time_plots.js";
import { VERDICTS } from "./words.js";

const HEIGHT = 132;
const STRIP = 7;

/** Steps that are farther apart than so many of them have a gap between them. */
const GAP = 2.5;

/** @type {{origin: string, name: string, colour: string}[]} */
export const ORIGINS = [
  { origin: "live", name: "live requests", colour: "accent" },
  { origin: "probes", name: "probes", colour: "fair" },
];

/** @param {CourseStep} one */
const subject = (one) => `${one.artifact} ${one.reference_artifact}`;

/** @param {string} given Of ``colour``. @param {number} alpha */
const faint = (given, alpha) => given.replace(/^rgb\((.*)\)$/, `rgba($1, ${alpha})`);

/**
 * What uPlot draws: times, and of each origin values, lower and upper ends. Where one origin has nothing at the time of
 * the other, ``undefined`` leaves its line whole; ``null`` breaks it, where there was nothing for a while or another artifact.
 * @param {CourseStep[]} steps @param {number} stepS
 */
export function plotted(steps, stepS) {
  /** @type {Map<number, Map<string, CourseStep | null>>} */
  const byTime = new Map();
  const at = (/** @type {number} */ time) => byTime.get(time) ?? byTime.set(time, new Map()).get(time);
  for (const { origin } of ORIGINS) {
    const own = steps.filter((step) => step.origin === origin).sort((a, b) => a.at - b.at);
    own.forEach((step, index) => {
      const last = own[index - 1];
      if (last && (step.at - last.at > GAP * stepS || subject(step) !== subject(last))) at((step.at + last.at) / 2)?.set(origin, null);
      at(step.at)?.set(origin, step);
    });
  }
  const times = [...byTime.keys()].sort((a, b) => a - b);
  const found = times.map((time) => byTime.get(time) ?? new Map());
  const column = (/** @type {string} */ origin, /** @type {(step: CourseStep) => number} */ take) =>
    found.map((there) => { const step = there.get(origin); return step ? take(step) : step; });
  return {
    found,
    data: [
      times,
      ...ORIGINS.flatMap(({ origin }) => [column(origin, (s) => s.agreement.value), column(origin, (s) => s.agreement.low), column(origin, (s) => s.agreement.high)]),
    ],
  };
}

/**
 * @param {object} props
 * @param {string} props.variant
 * @param {CourseStep[]} props.steps Of this variant.
 * @param {VerdictChange[]} props.changes Likewise, the oldest first.
 * @param {number} props.stepS
 * @param {number} props.floor
 * @param {number} props.seconds How long ago the picture begins.
 */
export function CoursePlot({ variant, steps, changes, stepS, floor, seconds }) {
  const [place, setPlace] = useState(/** @type {number | null} */ (null));
  const now = Date.now() / 1000;
  const { found, data } = plotted(steps, stepS);
  const lowest = Math.min(...steps.map(({ agreement }) => agreement.low), 1);
  const least = Math.max(0, Math.floor((lowest - 0.005) * (lowest > 0.95 ? 100 : 20)) / (lowest > 0.95 ? 100 : 20));
  const given = useRef({ from: 0, now: 0, least, floor, steps, changes });
  given.current = { from: now - seconds, now, least, floor, steps, changes };
  const options = () => optionsOf(given, setPlace);
  const [times, ...columns] = data;
  // Without a time there would be no axis either.
  const holder = usePlot(options, variant, times.length ? data : [[now - seconds, now], ...columns.map(() => [null, null])]);
  const pointed = place === null ? [] : [...(found[place]?.values() ?? [])].flatMap((step) => (step ? [inWords(step)] : []));
  const words = pointed.join("; ") || lastOf(steps);
  const verdicts = changes.map(({ at, verdict }) => `${verdict} from ${moment(at)}`).join(", ");
  return html`<figure class="course"><figcaption><span class="name">${variant}</span> <span class="muted">${words || "Nothing was compared in this time."}</span></figcaption>
    <div ref=${holder} role="img" aria-label=${`Agreement of ${variant}: ${lastOf(steps) || "nothing was compared"}; verdicts: ${verdicts || "no change"}`}></div></figure>`;
}

/** @param {CourseStep} step */
function inWords({ origin, at, agreement }) {
  const name = ORIGINS.find((one) => one.origin === origin)?.name ?? origin;
  return `${moment(at)}, ${name}: ${share(agreement.value)} (${share(agreement.low)} – ${share(agreement.high)}, ${agreement.count} compared)`;
}

/** @param {CourseStep[]} steps */
function lastOf(steps) {
  const last = [...steps].sort((a, b) => b.at - a.at)[0];
  return last ? `last ${inWords(last)}` : "";
}

/** @typedef {{current: {from: number, now: number, least: number, floor: number, steps: CourseStep[], changes: VerdictChange[]}}} Given */

/** @param {Given} given @param {(place: number | null) => void} point */
function optionsOf(given, point) {
  const palette = Object.fromEntries(["accent", "good", "fair", "bad", "other", "muted"].map((name) => [name, colour(name)]));
  const room = { points: { show: false }, width: 0 };
  const shown = ORIGINS.flatMap(({ name, colour: own }) => [
    { label: name, stroke: palette[own], width: 1.6, spanGaps: false, points: { show: true, size: 7, width: 0, fill: palette[own] } },
    { ...room, label: "low" },
    { ...room, label: "high" },
  ]);
  return {
    height: HEIGHT,
    legend: { show: false },
    padding: [6, 8, 0, 0],
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: {
      x: { range: () => [given.current.from, given.current.now] },
      y: { range: () => [given.current.least, 1 + 0.04 * (1 - given.current.least)] },
    },
    axes: axes(48).map((axis, side) => (side ? { ...axis, values: (/** @type {any} */ _, /** @type {number[]} */ ticks) => ticks.map((tick) => (tick > 1 ? "" : String(Number(tick.toFixed(4))))) } : axis)),
    series: [{}, ...shown],
    bands: ORIGINS.map(({ colour: own }, index) => ({ series: [3 + 3 * index, 2 + 3 * index], fill: faint(palette[own], 0.16) })),
    hooks: {
      draw: [(/** @type {any} */ u) => drawAround(u, given.current, palette)],
      setCursor: [(/** @type {any} */ u) => point(u.cursor.left >= 0 ? (u.cursor.idx ?? null) : null)],
    },
  };
}

/** Intervals, the floor, new artifacts and verdicts. @param {any} u @param {Given["current"]} given @param {Record<string, string>} palette */
function drawAround(u, { steps, changes, floor, least, now }, palette) {
  const { ctx, bbox } = u;
  const x = (/** @type {number} */ time) => Math.min(Math.max(u.valToPos(time, "x", true), bbox.left), bbox.left + bbox.width);
  const y = (/** @type {number} */ value) => u.valToPos(value, "y", true);
  const line = (/** @type {number} */ x1, /** @type {number} */ y1, /** @type {number} */ x2, /** @type {number} */ y2) => {
    ctx.beginPath();
    ctx.moveTo(x1, y1);
    ctx.lineTo(x2, y2);
    ctx.stroke();
  };
  ctx.save();
  ctx.lineWidth = uPlot.pxRatio;
  for (const { origin, agreement, at } of steps) {
    ctx.strokeStyle = faint(palette[ORIGINS.find((one) => one.origin === origin)?.colour ?? "muted"], 0.6);
    line(x(at), y(agreement.low), x(at), y(agreement.high));
  }
  ctx.setLineDash([4 * uPlot.pxRatio, 3 * uPlot.pxRatio]);
  ctx.strokeStyle = palette.bad;
  if (floor > least) line(bbox.left, y(floor), bbox.left + bbox.width, y(floor));
  ctx.strokeStyle = palette.muted;
  for (const at of renewals(steps)) line(x(at), bbox.top, x(at), bbox.top + bbox.height);
  changes.forEach(({ at, verdict }, index) => {
    ctx.fillStyle = palette[VERDICTS[verdict]] ?? palette.other;
    const end = x(changes[index + 1]?.at ?? now);
    const high = STRIP * uPlot.pxRatio;
    ctx.fillRect(x(at), bbox.top + bbox.height - high, Math.max(end - x(at), 2), high);
  });
  ctx.restore();
}

/** When an artifact, its own or the reference's, was another one than before. @param {CourseStep[]} steps */
function renewals(steps) {
  const ordered = [...steps].sort((a, b) => a.at - b.at);
  return ordered.filter((step, index) => index > 0 && subject(step) !== subject(ordered[index - 1])).map(({ at }) => at);
}
