// What load tests found: the list, one opened in place, two compared.

import { ApiError, fetchJson, send } from "../parts/api.js";
import { html, useEffect, useRef, useState } from "../parts/html.js";
import { useLive } from "../parts/live.js";
import { documentOf } from "../parts/report_document.js";
import { DataTable } from "../parts/table.js";
import { Notice } from "../parts/words.js";

/** @typedef {{name: string, started_at: string, wall_s: number, url: string, scenarios: string[], models: string[], problems: string[], has_page: boolean}} Report */

/** @param {{route: Route}} props */
export function Reports({ route }) {
  const { open, before, after } = route.params;
  const { found, problem } = useReports();
  const path = before && after
    ? `/v1/reports/changes?${new URLSearchParams({ before, after })}`
    : open ? `/v1/reports/page?${new URLSearchParams({ name: open })}` : "";
  return html`
    <h1>Load tests</h1>
    ${problem ? html`<${Notice} kind="bad">${problem}<//>` : !found && html`<${Notice}>Asking the service…<//>`}
    ${found && !found.length && html`<${Notice}>There are no results in the folder that <code>reports.folder</code> names. Started there, <code>quantserve loadtest compare</code> writes some.<//>`}
    ${found && found.length > 0 && html`<${List} found=${found} route=${route} />`}
    ${path && found && html`<${Opened} key=${path} path=${path} onClose=${() => route.set({ open: null, before: null, after: null })} />`}`;
}

/** The list, read again whenever the page comes to life: after a key, a restart, a while in a hidden tab. */
function useReports() {
  const [found, setFound] = useState(/** @type {Report[] | null} */ (null));
  const [problem, setProblem] = useState("");
  const isLive = useLive().connection === "live";
  useEffect(() => {
    if (!isLive) return undefined;
    const control = new AbortController();
    fetchJson("/v1/reports", { signal: control.signal })
      .then(({ data }) => { setFound(data); setProblem(""); })
      .catch((error) => { if (!control.signal.aborted) setProblem(error.message); });
    return () => control.abort();
  }, [isLive]);
  return { found, problem };
}

/** @param {{found: Report[], route: Route}} props */
function List({ found, route }) {
  const picked = (route.params.pick?.split("/") ?? []).filter((name) => found.some((one) => one.name === name));
  const byTime = (/** @type {string} */ name) => found.find((one) => one.name === name)?.started_at ?? "";
  /** The last two that were picked. @param {string} name */
  function pick(name) {
    const next = picked.includes(name) ? picked.filter((one) => one !== name) : [...picked, name].slice(-2);
    route.set({ pick: next.join("/") || null });
  }
  function compare() {
    const [before, after] = [...picked].sort((a, b) => byTime(a).localeCompare(byTime(b)));
    route.set({ open: null, before, after });
  }
  /** @type {import("../parts/table.js").Column<Report>[]} */
  const columns = [
    { key: "name", name: "Run", value: ({ name }) => name, cell: ({ name, has_page }) => (has_page ? html`<button type="button" class="link" onClick=${() => route.set({ open: name, before: null, after: null })}>${name}</button>` : html`<span class="name">${name}</span>`) },
    { key: "started", name: "Started", value: ({ started_at }) => started_at, cell: ({ started_at }) => html`<span class="nowrap">${started_at.slice(0, 16).replace("T", " ")}</span>` },
    { key: "took", name: "Took", unit: "min", isNumber: true, value: ({ wall_s }) => wall_s / 60, cell: ({ wall_s }) => (wall_s / 60).toFixed(1) },
    { key: "scenarios", name: "Scenarios", value: ({ scenarios }) => scenarios.join("; ") },
    { key: "valid", name: "Valid", value: ({ problems }) => problems.join("; ") || "yes", cell: ({ problems }) => (problems.length ? html`<span class="pill bad">not valid</span> ${problems[0]}` : html`<span class="pill good">valid</span>`) },
    { key: "pick", name: "Compare", value: ({ name }) => (picked.includes(name) ? "picked" : null), cell: ({ name }) => html`<label class="choice"><input type="checkbox" checked=${picked.includes(name)} onChange=${() => pick(name)} aria-label=${`Compare ${name}`} />pick</label>` },
  ];
  return html`<section class="model"><${DataTable} caption="Load tests" columns=${columns} rows=${found} id=${(/** @type {Report} */ { name }) => name}
      title=${html`<h2>Runs</h2> <button type="button" disabled=${picked.length !== 2} onClick=${compare}>${picked.length === 2 ? "What changed between the two" : "Pick two to see what changed"}</button>`}
      route=${route} /></section>`;
}

/** A report in place: its text and pictures, in a room of its own, without its style. @param {{path: string, onClose: () => void}} props */
function Opened({ path, onClose }) {
  const holder = useRef(/** @type {HTMLDivElement | null} */ (null));
  const [problem, setProblem] = useState("");
  const [isThere, setThere] = useState(false);
  useEffect(() => {
    const control = new AbortController();
    send(path, { signal: control.signal })
      .then(async (answer) => {
        const content = documentOf(await answer.text());
        holder.current?.replaceChildren(content);
        setThere(true);
        holder.current?.scrollIntoView({ block: "start" });
      })
      .catch((error) => { if (!control.signal.aborted) setProblem(error instanceof ApiError ? error.message : String(error)); });
    return () => control.abort();
  }, [path]);
  return html`<section class="card report" aria-label="Report">
    <div class="actions"><button type="button" onClick=${onClose}>Close</button></div>
    ${problem ? html`<${Notice} kind="bad">${problem}<//>` : !isThere && html`<${Notice}>Reading…<//>`}
    <div ref=${holder}></div></section>`;
}
