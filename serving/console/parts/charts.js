// Small pictures without axes, as SVG.

import { share } from "./format.js";
import { html } from "./html.js";

const SPARK = { width: 84, height: 22 };

/**
 * The course of one number over the last minutes, without axes; the number stands beside it.
 * @param {{points: {at: number, value: number | null | undefined}[]}} props
 */
export function Sparkline({ points }) {
  const known = points.filter(({ value }) => value !== null && value !== undefined);
  if (known.length < 2) return html`<svg class="spark" width=${SPARK.width} height=${SPARK.height} aria-hidden="true"></svg>`;
  const end = points[points.length - 1].at;
  const seconds = Math.min(Math.max(end - points[0].at, 60), 300);
  const most = Math.max(...known.map(({ value }) => Number(value)), 1e-9);
  const place = (/** @type {{at: number, value: any}} */ { at, value }) => {
    const x = SPARK.width * (1 - (end - at) / seconds);
    const y = SPARK.height - 2 - (SPARK.height - 4) * (value / most);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  };
  const line = known.filter(({ at }) => end - at <= seconds).map(place).join(" ");
  return html`<svg class="spark" width=${SPARK.width} height=${SPARK.height} aria-hidden="true">
    <polyline points=${line} /></svg>`;
}

/**
 * Agreement with its interval on a scale that ends at 1.
 * @param {{low: number, value: number, high: number, from: number, floor?: number}} props
 */
export function Interval({ low, value, high, from, floor }) {
  const width = 92;
  const x = (/** @type {number} */ v) => 3 + (width - 6) * Math.max(0, (v - from) / (1 - from || 1));
  return html`<svg class="interval" width=${width} height="14" role="img"
      aria-label=${`${share(value)}, 95 % interval ${share(low)} to ${share(high)}`}>
    <line class="scale" x1="3" x2=${width - 3} y1="7" y2="7" />
    ${floor !== undefined && floor > from && html`<line class="floor" x1=${x(floor)} x2=${x(floor)} y1="1" y2="13" />`}
    <line class="range" x1=${x(low)} x2=${Math.max(x(high), x(low) + 1)} y1="7" y2="7" />
    <circle cx=${x(value)} cy="7" r="3" />
  </svg>`;
}

/**
 * Sizes side by side, on the scale of the largest of a model.
 * @param {{parts: {name: string, bytes: number}[], most: number, label: string}} props
 */
export function MemoryBar({ parts, most, label }) {
  const width = 120;
  let start = 0;
  return html`<svg class="memory" width=${width} height="10" role="img" aria-label=${label}>
    <rect class="room" width=${width} height="10" rx="2" />
    ${parts.map(({ name, bytes }) => {
      const x = start;
      const wide = most > 0 ? (width * bytes) / most : 0;
      start += wide;
      return html`<rect class=${`part-${name}`} x=${x} width=${wide} height="10" rx="2"><title>${name}</title></rect>`;
    })}
  </svg>`;
}
