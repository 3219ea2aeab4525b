// A report of a load test as elements of the page: its text, pictures and tables, without its style.

import { html, render } from "./html.js";
import { DataTable } from "./table.js";

/** Elements that a report has besides tables, and what of their attributes is taken over. @type {Record<string, string[]>} */
const TAKEN = {
  H1: [], H2: [], H3: [], H4: [], P: [], UL: [], OL: [], LI: [], STRONG: [], EM: [], CODE: [], PRE: [], HR: [], BR: [],
  BLOCKQUOTE: [], IMG: ["src", "alt"], A: ["href"],
};

const DEEPEST = 40;

/**
 * Only what is known above is made anew: whatever else a file has, stays in it.
 * @param {string} page HTML.
 */
export function documentOf(page) {
  const given = new DOMParser().parseFromString(unstyled(page), "text/html");
  const made = document.createElement("div");
  made.className = "document";
  copyInto(made, given.body, { level: 0, heading: "", tables: 0 });
  return made;
}

/** Without the styles, which the policy forbids here even before they are shown; numbers stay on the right.
 * @param {string} text */
const unstyled = (text) =>
  text
    .replaceAll(/<style[^]*?<\/style>/gi, "")
    .replaceAll(/ style="text-align:right"/g, ' class="number"')
    .replaceAll(/ style=("[^"]*"|'[^']*')/gi, "");

/** @param {Element} target @param {Node} source @param {{level: number, heading: string, tables: number}} at */
function copyInto(target, source, at) {
  for (const child of source.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) target.append(child.textContent ?? "");
    if (!(child instanceof Element) || at.level > DEEPEST) continue;
    if (child.tagName === "TABLE") {
      target.append(tableOf(child, `Table ${(at.tables += 1)}: ${at.heading}`));
      continue;
    }
    const attributes = TAKEN[child.tagName];
    if (attributes === undefined) continue;
    if (/^H\d$/.test(child.tagName)) at.heading = child.textContent ?? "";
    const made = document.createElement(child.tagName);
    for (const name of attributes) {
      const value = child.getAttribute(name);
      if (value !== null && (name !== "src" || value.startsWith("data:image/")) && (name !== "href" || value.startsWith("#"))) made.setAttribute(name, value);
    }
    at.level += 1;
    copyInto(made, child, at);
    at.level -= 1;
    target.append(made);
  }
}

/** A table of a report as one that is sorted and copied like all others. @param {Element} given @param {string} caption */
function tableOf(given, caption) {
  const [head, ...body] = [...given.querySelectorAll("tr")].map((row) => [...row.children]);
  /** @type {import("./table.js").Column<{cells: string[], place: number}>[]} */
  const columns = (head ?? []).map((cell, place) => ({
    key: String(place),
    name: (cell.textContent ?? "").trim() || "Measure",
    isNumber: cell.classList.contains("number") || body.some((row) => row[place]?.classList.contains("number")),
    value: ({ cells }) => cells[place],
    rank: ({ cells }) => leadingNumber(cells[place] ?? ""),
  }));
  const rows = body.map((row, place) => ({ place, cells: row.map((cell) => (cell.textContent ?? "").trim()) }));
  const holder = document.createElement("div");
  holder.className = "model";
  render(html`<${DataTable} caption=${caption} columns=${columns} rows=${rows} id=${(/** @type {{place: number}} */ { place }) => String(place)} />`, holder);
  return holder;
}

/** By what "12.3 (11.9 … 12.8)" is sorted; a text that begins with no number, by itself. @param {string} text */
function leadingNumber(text) {
  const number = parseFloat(text.replaceAll(",", "").replace("−", "-"));
  return Number.isNaN(number) ? text || null : number;
}
