// What is known of each variant's quality, where it comes from, how it changed, and labelled data on demand.

import { ApiError, fetchJson } from "../parts/api.js";
import { Interval } from "../parts/charts.js";
import { NONE, count, counted, measure, moment, share } from "../parts/format.js";
import { CoursePlot, ORIGINS } from "../parts/course_plot.js";
import { html, useEffect, useState } from "../parts/html.js";
import { useLive } from "../parts/live.js";
import { ModelChoice, NoSuchModel, modelOf } from "../parts/model_choice.js";
import { DataTable } from "../parts/table.js";
import { Waiting } from "../parts/waiting.js";
import { Notice, Progress, Tags, Verdict } from "../parts/words.js";

const AGAIN_MS = 30_000;

/** @type {Record<string, {name: string, seconds: number}>} */
const SPANS = { "15m": { name: "quarter of an hour", seconds: 900 }, "1h": { name: "hour", seconds: 3600 }, "24h": { name: "day", seconds: 86400 }, "7d": { name: "week", seconds: 604800 }, "30d": { name: "month", seconds: 2592000 } };

/** @param {{route: Route}} props */
export function Quality({ route }) {
  const live = useLive();
  const names = [...live.quality.keys()];
  const name = modelOf(names, route);
  const known = live.quality.get(name);
  if (!known) return html`<${Waiting} title="Quality" />`;
  const span = Object.hasOwn(SPANS, route.params.span ?? "") ? route.params.span : "24h";
  return html`
    <h1>Quality <span class="muted">each variant against ${known.reference}</span></h1>
    <div class="controls">
      <${ModelChoice} names=${names} route=${route} />
      <${Evaluation} key=${name} known=${known} />
    </div>
    <${NoSuchModel} names=${names} route=${route} />
    ${known.not_kept && html`<${Notice} kind="fair">Evidence is not kept: ${known.not_kept}<//>`}
    <${Conclusions} known=${known} />
    <${History} key=${name} known=${known} span=${span} route=${route} />
    <${Measures} known=${known} route=${route} />
    <${Worst} known=${known} route=${route} />`;
}

/** @param {{known: ModelQuality}} props */
function Conclusions({ known }) {
  return html`<div class="conclusions">${known.variants.filter(({ is_reference }) => !is_reference).map((variant) => html`
    <article class="card" key=${variant.variant}><header><h2>${variant.variant}</h2> <${Verdict} verdict=${variant.verdict} /></header>
      <p>${variant.reason}</p>
      ${["probing", "waiting"].includes(variant.probes.state) && variant.probes.total > 0 && html`<${Progress} done=${variant.probes.done} total=${variant.probes.total} label=${`Probes of ${variant.variant}`} /> <span class="muted">${variant.probes.done} of ${variant.probes.total} probes</span>`}
      ${!variant.in_auto && html`<p class="bad-word">auto never chooses it.</p>`}
    </article>`)}</div>
    <p class="muted">A variant fails below an agreement of ${known.floor}; ${known.tolerance} of disagreement is tolerated.</p>`;
}

/** @typedef {{variant: string, isReference: boolean, origin: string, measure: string, estimate: Estimate, smallest: number | null}} Row */

/** @param {ModelQuality} known @returns {Row[]} */
function rowsOf(known) {
  return known.variants.flatMap((variant) => {
    const head = { variant: variant.variant, isReference: variant.is_reference };
    const sampled = variant.origins.flatMap((origin) =>
      Object.entries(origin.measures).map(([name, estimate]) => ({ ...head, origin: origin.origin, measure: name, estimate, smallest: name === "agreement" ? origin.smallest_difference : null })));
    const { labels } = variant;
    const labelled = labels
      ? /** @type {["accuracy" | "perplexity" | "difference", string][]} */ ([["accuracy", "accuracy"], ["perplexity", "perplexity"], ["difference", labels.perplexity ? "perplexity over the reference's, minus 1" : "accuracy minus the reference's"]]).flatMap(([key, name]) => {
          const estimate = labels[key];
          return estimate ? [{ ...head, origin: `labels: ${labels.dataset}`, measure: name, estimate, smallest: key === "difference" ? labels.smallest_difference : null }] : [];
        })
      : [];
    return [...sampled, ...labelled];
  });
}

/** @type {import("../parts/table.js").Column<Row>[]} */
const COLUMNS = [
  { key: "variant", name: "Variant", value: ({ variant }) => variant, cell: ({ variant, isReference }) => html`<span class="name">${variant}</span> <${Tags} isReference=${isReference} />` },
  { key: "origin", name: "Origin", value: ({ origin }) => origin },
  { key: "measure", name: "Measure", value: (row) => row.measure, cell: (row) => row.measure.replaceAll("_", " ") },
  { key: "value", name: "Value", isNumber: true, value: ({ estimate }) => estimate.value, cell: ({ estimate }) => measure(estimate.value) },
  { key: "low", name: "95 % interval", isNumber: true, value: ({ estimate }) => estimate.low, also: [{ name: "to", value: ({ estimate }) => estimate.high }], cell: (row) => html`<span class="with-bar">${row.measure === "agreement" && html`<${Interval} ...${row.estimate} from=${Math.max(0, Math.floor((row.estimate.low - 0.02) * 10) / 10)} />`} ${measure(row.estimate.low)} – ${measure(row.estimate.high)}</span>` },
  { key: "count", name: "Samples", isNumber: true, value: ({ estimate }) => estimate.count, cell: ({ estimate }) => count(estimate.count) },
  { key: "smallest", name: "Could have shown", isNumber: true, hint: "The smallest difference that so many samples show in 4 of 5 cases", value: ({ smallest }) => smallest, cell: ({ smallest }) => measure(smallest) },
];

/** @param {{known: ModelQuality, route: Route}} props */
function Measures({ known, route }) {
  const rows = rowsOf(known);
  if (!rows.length) return html`<${Notice}>Nothing has been compared yet.<//>`;
  return html`<section class="model"><${DataTable} caption=${`Measures of ${known.model}`} title=${html`<h2>Measures</h2>`} columns=${COLUMNS} rows=${rows}
    id=${(/** @type {Row} */ row) => `${row.variant} ${row.origin} ${row.measure}`} route=${route} /></section>`;
}

/** The button, and how far what it started is. @param {{known: ModelQuality}} props */
function Evaluation({ known }) {
  const [problem, setProblem] = useState("");
  const [started, setStarted] = useState(false);
  const { evaluation } = known;
  const isRunning = evaluation?.state === "running";
  // It may be over before anybody has told that it runs.
  useEffect(() => setStarted(false), [evaluation]);
  useEffect(() => {
    const timer = started ? setTimeout(() => setStarted(false), AGAIN_MS) : 0;
    return () => clearTimeout(timer);
  }, [started]);
  if (!evaluation) return html`<p class="muted">No labelled data: <code>quality.dataset</code> names a file.</p>`;
  async function start() {
    setProblem("");
    setStarted(true);
    try {
      await fetchJson("/v1/quality/evaluate", { body: { model: known.model } });
    } catch (error) {
      setStarted(false);
      setProblem(error instanceof ApiError ? error.message : "the connection broke off");
    }
  }
  /** @type {Record<string, string>} */
  const words = { idle: "Not evaluated since the service started.", done: "Evaluated.", failed: "The evaluation failed:" };
  return html`<div class="evaluation">
    <button type="button" id="evaluate" disabled=${isRunning || started} onClick=${start}>${isRunning ? "Evaluating…" : "Evaluate on labelled data"}</button>
    <span role="status">${isRunning
      ? html`<${Progress} done=${evaluation.done} total=${evaluation.total} label="Evaluation" /> ${count(evaluation.done)} of ${count(evaluation.total)}`
      : html`<span class="muted">${words[evaluation.state]} ${evaluation.reason}</span>`}</span>
    ${problem && html`<span class="bad-word" role="alert">${problem}</span>`}
  </div>`;
}

/** @typedef {{changes: VerdictChange[], steps: CourseStep[], stepS: number}} Past */

/** What the store has of a span, asked again now and then while the page is live.
 * @param {string} model @param {number} seconds @param {string} verdicts */
function usePast(model, seconds, verdicts) {
  const [past, setPast] = useState(/** @type {Past | null} */ (null));
  const [problem, setProblem] = useState("");
  const isLive = useLive().connection === "live";
  useEffect(() => {
    if (!isLive) return undefined;
    const control = new AbortController();
    /** @type {number} */
    let timer = 0;
    async function ask() {
      const query = new URLSearchParams({ model, since: String(Math.floor(Date.now() / 1000 - seconds)) });
      try {
        const [known, course] = await Promise.all(["/v1/quality", "/v1/quality/course"].map((path) => fetchJson(`${path}?${query}`, { signal: control.signal })));
        setPast({ changes: known.data[0]?.history ?? [], steps: course.data, stepS: course.step_s });
        setProblem("");
      } catch (error) {
        if (control.signal.aborted) return;
        setProblem(error instanceof ApiError ? error.message : "the connection broke off");
      }
      timer = setTimeout(ask, AGAIN_MS);
    }
    ask();
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [model, seconds, verdicts, isLive]);
  return { past, problem };
}

/** @param {{known: ModelQuality, span: string, route: Route}} props */
function History({ known, span, route }) {
  const { past, problem } = usePast(known.model, SPANS[span].seconds, known.variants.map(({ verdict }) => verdict).join());
  return html`<section class="model" aria-label="History">
    <div class="table-head"><div class="table-title"><h2>History</h2><label class="muted">of the last <select id="span" value=${span} onChange=${(/** @type {any} */ event) => route.set({ span: event.target.value })}>${Object.entries(SPANS).map(([key, { name }]) => html`<option value=${key}>${name}</option>`)}</select></label></div></div>
    ${problem && html`<${Notice} kind="bad">${problem}<//>`}
    ${past && html`
      <${Courses} known=${known} past=${past} seconds=${SPANS[span].seconds} />
      <details class="course-table" open=${route.params.course === "open"} onToggle=${(/** @type {any} */ event) => route.set({ course: event.target.open ? "open" : null })}><summary>The same as a table</summary>
        <${DataTable} caption=${`Agreement of ${known.model} over time`} columns=${COURSE} rows=${[...past.steps].reverse()} route=${route} order="course_sort"
          id=${(/** @type {CourseStep} */ step) => `${step.variant} ${step.origin} ${step.at} ${step.artifact} ${step.reference_artifact}`} /></details>
      <${DataTable} caption=${`Verdicts of ${known.model}`} title=${html`<h3>How verdicts changed</h3>`} columns=${CHANGES} rows=${[...past.changes].reverse()}
        id=${(/** @type {VerdictChange} */ change) => `${change.at} ${change.variant}`} route=${route} order="verdicts_sort" />
      ${past.changes.length === 0 && html`<p class="muted empty">No verdict changed in this time.</p>`}`}
  </section>`;
}

/** @param {{known: ModelQuality, past: Past, seconds: number}} props */
function Courses({ known, past, seconds }) {
  const others = known.variants.filter(({ is_reference }) => !is_reference);
  return html`<p class="legend">${ORIGINS.map(({ name, colour }) => html`<span><i class=${`key-${colour}`}></i>${name}</span>`)}
      <span>bars and bands: 95 % interval of each step</span><span><i class="key-floor"></i>floor</span><span><i class="key-new"></i>new artifact</span><span>below: the verdict</span></p>
    <div class="courses">${others.map(({ variant }) => html`<${CoursePlot} key=${variant} variant=${variant} stepS=${past.stepS} floor=${known.floor} seconds=${seconds}
      steps=${past.steps.filter((step) => step.variant === variant)} changes=${past.changes.filter((change) => change.variant === variant)} />`)}</div>`;
}

/** @type {import("../parts/table.js").Column<CourseStep>[]} */
const COURSE = [
  { key: "variant", name: "Variant", value: ({ variant }) => variant },
  { key: "at", name: "When", value: ({ at }) => new Date(at * 1000).toISOString(), cell: ({ at }) => html`<span class="nowrap">${moment(at)}</span>` },
  { key: "origin", name: "Origin", value: ({ origin }) => origin },
  { key: "value", name: "Agreement", isNumber: true, value: ({ agreement }) => agreement.value, cell: ({ agreement }) => share(agreement.value) },
  { key: "low", name: "Low", isNumber: true, value: ({ agreement }) => agreement.low, cell: ({ agreement }) => share(agreement.low) },
  { key: "high", name: "High", isNumber: true, value: ({ agreement }) => agreement.high, cell: ({ agreement }) => share(agreement.high) },
  { key: "count", name: "Samples", isNumber: true, value: ({ agreement }) => agreement.count, cell: ({ agreement }) => count(agreement.count) },
  { key: "artifact", name: "Artifact", value: ({ artifact }) => artifact, cell: ({ artifact }) => html`<code>${artifact.slice(0, 8) || NONE}</code>` },
];

/** @type {import("../parts/table.js").Column<VerdictChange>[]} */
const CHANGES = [
  { key: "variant", name: "Variant", value: ({ variant }) => variant },
  { key: "at", name: "When", value: ({ at }) => new Date(at * 1000).toISOString(), cell: ({ at }) => html`<span class="nowrap">${moment(at)}</span>` },
  { key: "verdict", name: "Verdict", value: ({ verdict }) => verdict, cell: ({ verdict }) => html`<${Verdict} verdict=${verdict} />` },
  { key: "reason", name: "Why", value: ({ reason }) => reason },
  { key: "artifact", name: "Artifact", value: ({ artifact }) => artifact, cell: ({ artifact }) => html`<code>${artifact.slice(0, 8) || NONE}</code>` },
];

/** @param {{known: ModelQuality, route: Route}} props */
function Worst({ known, route }) {
  const rows = known.variants.flatMap(({ variant, worst }) => worst.map((sample) => ({ ...sample, variant })));
  if (!rows.length) return html`<p class="muted">No input is kept; <code>quality.keep_samples</code> of the model says how many of the worst may be.</p>`;
  /** @typedef {KeptSample & {variant: string}} Kept */
  const inputText = (/** @type {Kept} */ { input }) => (typeof input === "string" ? input : input.join(" ⟶ "));
  /** @type {import("../parts/table.js").Column<Kept>[]} */
  const columns = [
    { key: "variant", name: "Variant", value: ({ variant }) => variant },
    { key: "agreement", name: "Agreement", isNumber: true, value: ({ agreement }) => agreement, cell: ({ agreement }) => share(agreement) },
    { key: "origin", name: "Origin", value: ({ origin }) => origin },
    { key: "input", name: "Input", value: inputText, cell: (row) => html`<span class="sentence-cell">${inputText(row)}</span>` },
  ];
  return html`<section class="model"><${DataTable} caption=${`Worst samples of ${known.model}`} title=${html`<h2>Worst kept samples</h2> <span class="muted">${counted(rows.length, "sample")}</span>`}
    columns=${columns} rows=${rows} id=${(/** @type {Kept} */ row) => `${row.variant} ${row.origin} ${row.input}`} route=${route} order="worst_sort" /></section>`;
}
