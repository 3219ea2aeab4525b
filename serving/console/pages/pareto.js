// The picture of Compare: time or goodput across, agreement upwards, memory as the size of a point, limits as lines.

import { mebibytes, millis, perSecond, share } from "../parts/format.js";
import { html, useLayoutEffect, useRef, useState } from "../parts/html.js";
import { front, logScale, ninesScale } from "../parts/scales.js";

/** @typedef {import("./compare.js").Entry} Entry */
/** @typedef {{entry: Entry, x: number, y: number}} Point */

const HEIGHT = 400;
const LEAST_WIDTH = 280;
const EDGE = { left: 64, right: 24, top: 30, bottom: 44 };

/** @typedef {{p95: number | null, agreement: number | null}} DrawnLimits */

/** @param {{entries: Entry[], route: Route, limits: DrawnLimits, isGoodput: boolean}} props */
export function Pareto({ entries, route, limits, isGoodput }) {
  const holder = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [width, setWidth] = useState(LEAST_WIDTH);
  // Before the first picture is painted: one as wide as some other screen would push this one's page aside.
  useLayoutEffect(() => {
    const element = holder.current;
    if (element === null) return undefined;
    const measure = () => setWidth(Math.max(element.getBoundingClientRect().width, LEAST_WIDTH));
    measure();
    const watched = new ResizeObserver(measure);
    watched.observe(element);
    return () => watched.disconnect();
  }, []);
  return html`<div ref=${holder}><${Picture} entries=${entries} route=${route} limits=${limits} isGoodput=${isGoodput} width=${width} /></div>
    <p class="muted legend-line">A point's size is its weights; its bar is the 95 % interval of agreement. Filled points are within the limits.
    The line joins those that no other variant beats in both. Drag a limit, or move it by the arrow keys; at the edge there is none.
    ${isGoodput && html` Goodput is measured on live requests alone: how many were answered ${limits.p95 === null ? "(a p95 limit would say: in time)" : "within the p95 limit"} for each second in which
      a replica had any, over the last two minutes. It grows with how many are sent at once, so compare variants under like load.`}</p>`;
}

/** @param {{entries: Entry[], route: Route, limits: DrawnLimits, isGoodput: boolean, width: number}} props */
function Picture({ entries, route, limits, isGoodput, width }) {
  const take = (/** @type {Entry} */ entry) => (isGoodput ? entry.goodput || null : entry.p95_latency_ms);
  /** @type {Point[]} */
  const points = entries.flatMap((entry) => {
    const x = take(entry);
    return x !== null && entry.agreement ? [{ entry, x, y: entry.agreement.value }] : [];
  });
  const right = width - EDGE.right;
  const bottom = HEIGHT - EDGE.bottom;
  const xs = logScale(points.map(({ x }) => x), EDGE.left, right);
  const ys = ninesScale(points.map(({ entry }) => entry.agreement?.low ?? 1), bottom, EDGE.top);
  const most = Math.max(...points.map(({ entry }) => entry.weights_bytes ?? 0), 1);
  const radius = (/** @type {Entry} */ entry) => 4 + 12 * Math.sqrt((entry.weights_bytes ?? 0) / most);
  const usable = points.filter(({ entry }) => entry.in);
  const best = front(usable, !isGoodput);
  const limit = limits.p95;
  const p95 = isGoodput ? null : limit;
  const least = limits.agreement;
  const missing = entries.filter((entry) => !points.some((point) => point.entry === entry));
  return html`
    <svg class="pareto" width=${width} height=${HEIGHT} role="group" aria-label=${`${points.length} variants by ${isGoodput ? "goodput" : "p95 latency"} and agreement; the table below has the numbers`}>
      ${xs.ticks.map((tick) => html`<g class="tick"><line x1=${xs.place(tick)} x2=${xs.place(tick)} y1=${EDGE.top} y2=${bottom} /><text x=${xs.place(tick)} y=${bottom + 16} text-anchor="middle">${tick}</text></g>`)}
      ${ys.ticks.map((tick) => html`<g class="tick"><line x1=${EDGE.left} x2=${right} y1=${ys.place(tick)} y2=${ys.place(tick)} /><text x=${EDGE.left - 8} y=${ys.place(tick) + 4} text-anchor="end">${tick}</text></g>`)}
      <text class="axis" x=${(EDGE.left + right) / 2} y=${HEIGHT - 6} text-anchor="middle">${isGoodput ? `goodput: answers/s of a busy replica${limit === null ? "" : ` within ${limit} ms`}` : "p95 latency, ms"}</text>
      <text class="axis" x="12" y=${(EDGE.top + bottom) / 2} text-anchor="middle" transform=${`rotate(-90 12 ${(EDGE.top + bottom) / 2})`}>agreement with the reference</text>
      ${p95 !== null && html`<rect class="beyond" x=${clamp(xs.place(p95), EDGE.left, right)} y=${EDGE.top} width=${Math.max(right - clamp(xs.place(p95), EDGE.left, right), 0)} height=${bottom - EDGE.top} />`}
      ${least !== null && html`<rect class="beyond" x=${EDGE.left} y=${clamp(ys.place(least), EDGE.top, bottom)} width=${right - EDGE.left} height=${Math.max(bottom - clamp(ys.place(least), EDGE.top, bottom), 0)} />`}
      <polyline class="front" points=${best.map(({ x, y }) => `${xs.place(x)},${ys.place(y)}`).join(" ")} />
      ${withLabels(points, xs, ys, radius, width, bottom).map(({ entry, x, y, r, labelX, labelY, anchor }) => html`
        <g class=${`point ${entry.isChosen ? "chosen" : ""} ${entry.in ? "in" : "out"}`}>
          ${entry.agreement && html`<line class="range" x1=${x} x2=${x} y1=${ys.place(entry.agreement.low)} y2=${ys.place(entry.agreement.high)} />`}
          ${Math.abs(labelY - y) > LINE && html`<line class="leader" x1=${x} y1=${y} x2=${labelX} y2=${labelY} />`}
          <circle cx=${x} cy=${y} r=${r}><title>${`${entry.variant}: p95 ${millis(entry.p95_latency_ms)} ms, goodput ${perSecond(entry.goodput)}/s, agreement ${share(entry.agreement?.value)}, ${mebibytes(entry.weights_bytes)} MiB${entry.in ? "" : `; ${entry.reason}`}`}</title></circle>
          <text x=${labelX} y=${labelY + 4} text-anchor=${anchor}>${nameOf(entry)}</text>
        </g>`)}
      ${!isGoodput && html`<${LimitLine} isVertical label="p95 at most" unit=" ms" value=${p95} scale=${xs} least=${EDGE.left} most=${right} from=${EDGE.top} to=${bottom}
        write=${(/** @type {number} */ v) => String(Number(v.toPrecision(3)))} onMove=${(/** @type {string | null} */ value) => route.set({ p95: value })} />`}
      <${LimitLine} label="agreement at least" unit="" value=${least} scale=${ys} least=${EDGE.top} most=${bottom} from=${EDGE.left} to=${right}
        write=${(/** @type {number} */ v) => String(Number(v.toFixed(v > 0.99 ? 4 : 3)))} onMove=${(/** @type {string | null} */ value) => route.set({ agreement: value })} />
    </svg>
    ${missing.length > 0 && html`<p class="muted" id="missing">${isGoodput
      ? `Not drawn, since in the last two minutes they were asked nothing${limit === null ? "" : ", or answered nothing in time"}, or too little is known of their agreement`
      : "Not drawn, since too little is known"}: ${missing.map(({ variant }) => variant).join(", ")}.</p>`}`;
}

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** @typedef {{entry: Entry, x: number, y: number, r: number, labelX: number, labelY: number, anchor: "start" | "end"}} Placed */

const LINE = 14;
const LETTER = 7;
const FARTHEST = 14;

/**
 * Points in pixels, each with its name beside it, above or below, where no other name stands.
 * @param {Point[]} points @param {import("../parts/scales.js").Scale} xs @param {import("../parts/scales.js").Scale} ys
 * @param {(entry: Entry) => number} radius @param {number} right Where the picture ends. @param {number} bottom
 * @returns {Placed[]} The largest first, so that it hides none.
 */
function withLabels(points, xs, ys, radius, right, bottom) {
  /** @type {{from: number, to: number, y: number}[]} */
  const taken = [];
  /** @param {{from: number, to: number, y: number}} room */
  const isFree = (room) => room.y >= EDGE.top && room.y <= bottom && room.from >= EDGE.left && room.to <= right
    && taken.every((other) => Math.abs(other.y - room.y) >= LINE || other.from > room.to || other.to < room.from);
  const placed = [...points].sort((a, b) => b.y - a.y).map(({ entry, x: valueX, y: valueY }) => {
    const [x, y, r] = [xs.place(valueX), ys.place(valueY), radius(entry)];
    const wide = nameOf(entry).length * LETTER;
    const rooms = Array.from({ length: 2 * FARTHEST + 1 }, (_, step) => y + LINE * Math.ceil(step / 2) * (step % 2 ? 1 : -1))
      .flatMap((labelY) => [{ from: x + r + 6, to: x + r + 6 + wide, y: labelY }, { from: x - r - 6 - wide, to: x - r - 6, y: labelY }]);
    const room = rooms.find(isFree) ?? rooms[0];
    taken.push(room);
    const isLeft = room.to < x;
    return { entry, x, y, r, labelX: isLeft ? room.to : room.from, labelY: room.y, anchor: /** @type {"start" | "end"} */ (isLeft ? "end" : "start") };
  });
  return placed.sort((a, b) => b.r - a.r);
}

/** @param {Entry} entry */
const nameOf = ({ variant, isChosen }) => `${variant}${isChosen ? " ← auto" : ""}`;

/**
 * A limit that is dragged, or moved by the arrow keys; at its open end there is none.
 * @param {{isVertical?: boolean, label: string, unit: string, value: number | null, scale: import("../parts/scales.js").Scale, least: number, most: number, from: number, to: number, write: (value: number) => string, onMove: (value: string | null) => void}} props
 */
function LimitLine({ isVertical, label, unit, value, scale, least, most, from, to, write, onMove }) {
  const isDragged = useRef(false);
  // Both limits are open towards the large places: right, and down.
  const place = value === null ? most : clamp(scale.place(value), least, most);
  /** @param {number} next */
  const moveTo = (next) => onMove(next >= most - 2 ? null : write(scale.value(Math.max(next, least))));
  /** @param {any} event */
  function drag(event) {
    if (!isDragged.current) return;
    const box = event.currentTarget.ownerSVGElement.getBoundingClientRect();
    moveTo(isVertical ? event.clientX - box.left : event.clientY - box.top);
  }
  /** @param {any} event */
  function press(event) {
    isDragged.current = true;
    event.currentTarget.setPointerCapture(event.pointerId);
    event.preventDefault();
    event.currentTarget.focus();
  }
  /** @param {KeyboardEvent} event */
  function key(event) {
    const step = event.shiftKey ? 24 : 6;
    const sign = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Home") moveTo(least);
    else if (event.key === "End" || event.key === "Delete") onMove(null);
    else if (sign !== undefined) moveTo(place + sign * step);
    else return;
    event.preventDefault();
  }
  const words = value === null ? `no limit: ${label}` : `${label} ${write(value)}${unit}`;
  const line = isVertical ? { x1: place, x2: place, y1: from, y2: to } : { x1: from, x2: to, y1: place, y2: place };
  const isAtStart = place < least + 130;
  const beside = isAtStart ? { x: place + 6, "text-anchor": "start" } : { x: place - 6, "text-anchor": "end" };
  const text = isVertical ? { ...beside, y: from - 12 } : { x: from + 8, y: place - 6 };
  return html`<g class=${`limit ${value === null ? "none" : ""} ${isVertical ? "vertical" : "horizontal"}`} role="slider" tabindex="0"
      aria-label=${label} aria-orientation=${isVertical ? "horizontal" : "vertical"} aria-valuemin=${write(scale.value(isVertical ? least : most))}
      aria-valuemax=${write(scale.value(isVertical ? most : least))} aria-valuenow=${write(value ?? scale.value(most))} aria-valuetext=${words}
      onPointerDown=${press} onPointerMove=${drag} onPointerUp=${() => { isDragged.current = false; }} onKeyDown=${key}>
    <line class="grip" ...${line} /><line class="drawn" ...${line} />
    <rect class="handle" x=${isVertical ? place - 5 : to - 30} y=${isVertical ? to - 30 : place - 5} width=${isVertical ? 10 : 22} height=${isVertical ? 22 : 10} rx="4" />
    <text ...${text}>${words}</text></g>`;
}
