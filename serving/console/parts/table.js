// A table that can be sorted by each column and copied as CSV or Markdown.

import { CopyButton } from "./copy.js";
import { html, useState } from "./html.js";

/** @typedef {{params: Record<string, string>, set: (changes: Record<string, string | null>) => void}} Address */

/**
 * One column.
 * @template Row
 * @typedef {object} Column
 * @property {string} key Of the address, and for sorting.
 * @property {string} name
 * @property {string} [unit]
 * @property {string} [hint] What it is, in a sentence.
 * @property {(row: Row) => number | string | null | undefined} value What is sorted by and copied.
 * @property {(row: Row) => unknown} [cell] What is shown, if not the value.
 * @property {(row: Row) => number | string | null | undefined} [rank] What is sorted by, if not the value.
 * @property {boolean} [isNumber] Whether its cells are right-aligned.
 * @property {{name: string, unit?: string, value: (row: Row) => number | string | null | undefined}[]} [also] What a cell shows
 *   besides its value, as columns of what is copied.
 */

/**
 * @template Row
 * @param {object} props
 * @param {string} props.caption Who listens instead of looking is told it first.
 * @param {Column<Row>[]} props.columns The first one names the row.
 * @param {Row[]} props.rows
 * @param {(row: Row) => string} props.id
 * @param {Address} [props.route] Remembers the order of the rows, and which are unfolded; else the table itself does.
 * @param {string} [props.order] The order's name in the address; tables that are sorted alike may share one.
 * @param {(row: Row) => unknown} [props.detail] What unfolds below a row; ``open`` in the address.
 * @param {(row: Row) => string} [props.rowClass]
 * @param {unknown} [props.title] Stands beside the buttons.
 */
export function DataTable(props) {
  const { caption, columns, rows, id, route, order = "sort" } = props;
  const [own, setOwn] = useState("");
  const sort = route ? (route.params[order] ?? "") : own;
  const onSort = route ? (/** @type {string} */ next) => route.set({ [order]: next || null }) : setOwn;
  const sorted = inOrder(columns, rows, sort);
  const open = new Set(route?.params.open?.split(","));

  /** @param {string} name */
  function toggle(name) {
    if (!open.delete(name)) open.add(name);
    route?.set({ open: [...open].join(",") || null });
  }

  return html`
    <div class="table-head">
      <div class="table-title">${props.title}</div>
      <${SortChoice} columns=${columns} sort=${sort} onSort=${onSort} />
      <span class="copies">
        <${CopyButton} label="CSV" what=${`${caption} as CSV`} text=${() => asCsv(columns, sorted)} />
        <${CopyButton} label="Markdown" what=${`${caption} as Markdown`} text=${() => asMarkdown(columns, sorted)} />
      </span>
    </div>
    <div class="table-scroll" role="region" aria-label=${caption} tabindex="0">
      <table class="data" role="table">
        <caption class="unseen">${caption}</caption>
        <thead role="rowgroup"><tr role="row">
          ${columns.map((column) => html`<${Head} column=${column} sort=${sort} onSort=${onSort} />`)}
          ${props.detail && html`<td class="fold"></td>`}
        </tr></thead>
        <tbody role="rowgroup">
          ${sorted.map((row) => {
            const name = id(row);
            const isOpen = props.detail !== undefined && open.has(name);
            return html`
              <tr key=${name} role="row" class=${props.rowClass?.(row) ?? ""}>
                ${columns.map((column, place) => cellOf(column, row, place === 0))}
                ${props.detail && html`<td role="cell" class="fold">
                  <button type="button" class="quiet" aria-expanded=${isOpen} aria-label=${`Details of ${name}`}
                    onClick=${() => toggle(name)}>${isOpen ? "▾" : "▸"}</button>
                </td>`}
              </tr>
              ${isOpen && html`<tr key=${`${name} detail`} role="row" class="detail">
                <td role="cell" colspan=${columns.length + 1}>${props.detail?.(row)}</td>
              </tr>`}`;
          })}
        </tbody>
      </table>
    </div>`;
}

/** @param {Column<any>} column @param {any} row @param {boolean} isFirst */
function cellOf(column, row, isFirst) {
  const shown = column.cell ? column.cell(row) : (column.value(row) ?? "–");
  const label = column.unit ? `${column.name}, ${column.unit}` : column.name;
  const kind = `${column.isNumber ? "number" : ""} col-${column.key}`;
  return isFirst
    ? html`<th scope="row" role="rowheader" class=${kind}>${shown}</th>`
    : html`<td role="cell" class=${kind} data-label=${label}>${shown}</td>`;
}

/** @param {{column: Column<any>, sort: string, onSort: (sort: string) => void}} props */
function Head({ column, sort, onSort }) {
  const isUp = sort === column.key;
  const isDown = sort === `-${column.key}`;
  const order = isUp ? "ascending" : isDown ? "descending" : "none";
  // Up, down, and back to the order of the configuration.
  const next = isUp ? `-${column.key}` : isDown ? "" : column.key;
  return html`<th scope="col" role="columnheader" aria-sort=${order} class=${`${column.isNumber ? "number" : ""} col-${column.key}`}>
    <button type="button" title=${column.hint} onClick=${() => onSort(next)}>
      ${column.name}${column.unit && html` <span class="unit">${column.unit}</span>`}
      <span class="arrow" aria-hidden="true">${isUp ? "▲" : isDown ? "▼" : ""}</span>
    </button></th>`;
}

/** On a narrow screen, where rows are cards and there is no head to press. @param {any} props */
function SortChoice({ columns, sort, onSort }) {
  return html`<label class="sort-choice">Sort
    <select value=${sort} onChange=${(/** @type {any} */ event) => onSort(event.target.value)}>
      <option value="">as configured</option>
      ${columns.map((/** @type {Column<any>} */ { key, name }) => html`
        <option value=${key}>${name} ▲</option><option value=${`-${key}`}>${name} ▼</option>`)}
    </select></label>`;
}

/**
 * @template Row
 * @param {Column<Row>[]} columns
 * @param {Row[]} rows
 * @param {string} sort
 */
export function inOrder(columns, rows, sort) {
  const column = columns.find(({ key }) => key === sort.replace(/^-/, ""));
  if (!column) return rows;
  const sign = sort.startsWith("-") ? -1 : 1;
  const rank = column.rank ?? column.value;
  return [...rows].sort((a, b) => {
    const [one, other] = [rank(a), rank(b)];
    // What is not known comes last, whichever way.
    if (one === null || one === undefined) return other === null || other === undefined ? 0 : 1;
    if (other === null || other === undefined) return -1;
    if (typeof one === "number" && typeof other === "number") return sign * (one - other);
    return sign * String(one).localeCompare(String(other));
  });
}

/** Every column that is copied. @param {Column<any>[]} columns @returns {Column<any>[]} */
const spread = (columns) => columns.flatMap((column) => [column, ...(column.also ?? []).map((more) => ({ ...column, ...more }))]);

/** @param {Column<any>} column */
const title = (column) => (column.unit ? `${column.name}, ${column.unit}` : column.name);

/** @param {Column<any>[]} columns @param {any[]} rows */
export function asCsv(columns, rows) {
  /** @param {unknown} value */
  const quoted = (value) => {
    let text = String(value ?? "");
    // A spreadsheet would compute it.
    if (typeof value === "string" && /^[=+\-@\t]/.test(text)) text = `'${text}`;
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const copied = spread(columns);
  const lines = [copied.map(title), ...rows.map((row) => copied.map((column) => column.value(row)))];
  return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
}

/** @param {Column<any>[]} columns @param {any[]} rows */
export function asMarkdown(columns, rows) {
  /** @param {unknown} value */
  const written = (value) =>
    typeof value === "number"
      ? String(Number(value.toPrecision(5)))
      // Neither markup of a text nor a bar of it may become the table's.
      : String(value ?? "").replaceAll(/[\\|<`*[\]]/g, "\\$&").replaceAll(/\s+/g, " ");
  const line = (/** @type {string[]} */ cells) => `| ${cells.join(" | ")} |`;
  const copied = spread(columns);
  return [
    line(copied.map(title)),
    line(copied.map(({ isNumber }) => (isNumber ? "---:" : "---"))),
    ...rows.map((row) => line(copied.map((column) => written(column.value(row))))),
  ].join("\n") + "\n";
}
