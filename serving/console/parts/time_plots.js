// Pictures with an axis of time, by uPlot on a canvas.

import { html, useEffect, useRef, useState } from "./html.js";

/** A number that changes with the colours: a canvas keeps those that it was drawn in. */
function useColours() {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const follow = () => setTurn((n) => n + 1);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    addEventListener("themechange", follow);
    dark.addEventListener("change", follow);
    return () => {
      removeEventListener("themechange", follow);
      dark.removeEventListener("change", follow);
    };
  }, []);
  return turn;
}

/** A colour of the style as canvas takes it. @param {string} name */
export function colour(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const LEAST_WIDTH = 200;
const HOURS = 36 * 3600;

/** Clock times; days where there are more than a few. @param {unknown} _ @param {number[]} at */
function times(_, at) {
  const isLong = at.length > 1 && at[at.length - 1] - at[0] > HOURS;
  return at.map((seconds) => {
    const date = new Date(seconds * 1000);
    return isLong ? date.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) : date.toLocaleTimeString("en-GB").slice(0, 5);
  });
}

/** Axes in the colours of the page. @param {number} room Pixels for the numbers on the left. */
export function axes(room) {
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return [{ ...axis, values: times }, { ...axis, size: room }];
}

/**
 * A picture in the place of an element, as wide as it is; drawn anew in other colours.
 * @param {() => any} options Of uPlot, without the width.
 * @param {string} about What the options depend on.
 * @param {any} data Of uPlot.
 */
export function usePlot(options, about, data) {
  const holder = useRef(/** @type {HTMLDivElement | null} */ (null));
  const plot = useRef(/** @type {any} */ (null));
  const colours = useColours();
  useEffect(() => {
    const element = holder.current;
    if (element === null) return undefined;
    const given = options();
    const wide = () => Math.max(element.clientWidth, LEAST_WIDTH);
    const made = new uPlot({ ...given, width: wide() }, data, element);
    plot.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: wide(), height: given.height }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      made.destroy();
    };
  }, [about, colours]);
  useEffect(() => {
    plot.current?.setData(data);
  });
  return holder;
}

/**
 * Lines over time.
 * @param {object} props
 * @param {string} props.title
 * @param {string} props.unit
 * @param {number[]} props.at Seconds since 1970.
 * @param {{name: string, colour: string, values: (number | null | undefined)[]}[]} props.lines
 */
export function TimePlot({ title, unit, at, lines }) {
  const upTo = (/** @type {any} */ _, /** @type {number} */ __, /** @type {number} */ most) => [0, most > 0 ? most * 1.1 : 1];
  const options = () => ({
    height: 130,
    cursor: { drag: { x: false, y: false } },
    legend: { live: false },
    scales: { y: { range: upTo } },
    axes: axes(44),
    series: [{}, ...lines.map((line) => ({ label: line.name, stroke: colour(line.colour), width: 1.6, spanGaps: true, points: { show: false } }))],
  });
  const names = lines.map(({ name }) => name).join();
  const holder = usePlot(options, names, [at, ...lines.map(({ values }) => values)]);
  const last = lines.map(({ name, values }) => `${name} ${values[values.length - 1] ?? "unknown"}`).join(", ");
  return html`<figure class="plot"><figcaption>${title} <span class="unit">${unit}</span></figcaption>
    <div ref=${holder} role="img" aria-label=${`${title}, ${unit}; last: ${last}`}></div></figure>`;
}
