// Embeddings, classification and rerank: every variant's answer, how far it is from the reference's, and its time.

import { ApiError, fetchJson } from "../parts/api.js";
import { CallButtons } from "../parts/call_buttons.js";
import { measure, millis, share } from "../parts/format.js";
import { html, useEffect, useRef, useState } from "../parts/html.js";
import { DataTable } from "../parts/table.js";
import { LONGEST } from "../parts/url.js";
import { Notice, Progress, Tags } from "../parts/words.js";

/** @typedef {{variant: string, error?: string, answer?: any, timings?: Record<string, number>, measures?: Record<string, number | null> | null}} Answer */
/** @typedef {{input: string | [string, string], call: import("../parts/snippets.js").Call, data: Answer[], problem: string}} Result */

const EXAMPLE = "A slow start, but the second half is a delight.\nNobody asked for this sequel.";
const MOST = 16;
const MOST_SHOWN = 200;

/** @param {{model: string, infos: ModelInfo[], route: Route}} props */
export function TryEncoder({ model, infos, route }) {
  const { task } = infos[0] ?? { task: "" };
  const isPair = task === "rerank";
  const text = route.params.text ?? EXAMPLE;
  const query = route.params.query ?? "What did people think of the film?";
  const [results, setResults] = useState(/** @type {Result[]} */ ([]));
  const [asked, setAsked] = useState(0);
  const control = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => () => control.current?.abort(), []);
  const isRunning = asked > 0;
  const written = text.split("\n").filter((line) => line.trim());
  const lines = written.slice(0, MOST);
  /** @type {(string | [string, string])[]} */
  const inputs = isPair ? lines.map((line) => [query, line]) : lines;

  /** @param {Event} event */
  async function run(event) {
    event.preventDefault();
    if (!inputs.length || !infos.length) return;
    control.current?.abort();
    const { signal } = (control.current = new AbortController());
    /** @type {Result[]} */
    const found = [];
    setResults(found);
    for (const input of inputs) {
      setAsked(found.length + 1);
      const call = { path: "/v1/compare", body: { model, input, variants: infos.map(({ variant }) => variant) } };
      let [data, problem] = [[], ""];
      try {
        ({ data } = await fetchJson(call.path, { body: call.body, signal }));
      } catch (error) {
        if (control.current?.signal !== signal) return; // begun again, or the page is left
        problem = signal.aborted ? "stopped" : error instanceof ApiError ? error.message : "the connection broke off";
      }
      found.push({ input, call, data, problem });
      setResults([...found]);
      if (signal.aborted) break;
    }
    setAsked(0);
  }

  return html`
    <form class="card ask" onSubmit=${run}>
      ${isPair && html`<label>Query <input id="query" type="text" value=${query} onInput=${(/** @type {any} */ event) => route.set({ query: event.target.value })} /></label>`}
      <label for="inputs">${isPair ? "Documents" : "Texts"}, one a line, at most ${MOST}</label>
      <textarea id="inputs" rows="3" value=${text} onInput=${(/** @type {any} */ event) => route.set({ text: event.target.value })}
        onKeyDown=${(/** @type {KeyboardEvent} */ event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event); }}></textarea>
      <div class="actions">
        <button type="submit" class="main" disabled=${!inputs.length || !infos.length}>${isRunning ? "Start again" : "Run"}</button>
        ${isRunning && html`<button type="button" onClick=${() => control.current?.abort()}>Stop</button> <${Progress} done=${asked - 1} total=${inputs.length} label="Inputs that are answered" />`}
        ${written.length > MOST && html`<span class="bad-word" role="status">${written.length} lines; the first ${MOST} are asked.</span>`}
        ${text.length > LONGEST && html`<span class="muted">Too long for the address: no link to this page has it.</span>`}
        <span class="muted">Each variant is asked after the other, so that each shows its own time.</span>
      </div>
    </form>
    <${Summary} results=${results} infos=${infos} />
    ${!infos.length && html`<${Notice} kind="fair">Choose a variant.<//>`}
    ${results.map((result, place) => html`<${Answers} key=${place} result=${result} infos=${infos} route=${route} task=${task} isPair=${isPair} />`)}
    ${infos.length > 0 && html`<section class="card"><div class="table-title"><h2>The calls</h2></div><${Calls} model=${model} infos=${infos} task=${task} lines=${lines} query=${query} /></section>`}`;
}

/** @param {{results: Result[], infos: ModelInfo[]}} props */
function Summary({ results, infos }) {
  if (!results.length) return null;
  const others = infos.filter(({ reference }) => !reference).map(({ variant }) => variant);
  const mean = others.map((variant) => {
    const values = results.flatMap(({ data }) => { const value = nearness(data.find((one) => one.variant === variant)); return value === null ? [] : [value]; });
    return { variant, value: values.length ? values.reduce((a, b) => a + b, 0) / values.length : null };
  }).filter(({ value }) => value !== null);
  if (!mean.length) return null;
  mean.sort((a, b) => Number(b.value) - Number(a.value));
  const [best, worst] = [mean[0], mean[mean.length - 1]];
  return html`<section class="verdict-line" aria-live="polite"><p class="sentence">Nearest to the reference on ${results.length > 1 ? "these inputs" : "this input"} is ${best.variant} (${share(best.value)})${worst !== best ? `, farthest ${worst.variant} (${share(worst.value)})` : ""}.</p></section>`;
}

/** The measure by which one answer can be near another. @param {Answer | undefined} answer */
function nearness(answer) {
  const measures = answer?.measures;
  return measures?.cosine ?? measures?.agreement ?? null;
}

/** @param {{result: Result, infos: ModelInfo[], route: Route, task: string, isPair: boolean}} props */
function Answers({ result, infos, route, task, isPair }) {
  const given = typeof result.input === "string" ? result.input : result.input[1];
  const shown = given.length > MOST_SHOWN ? `${given.slice(0, MOST_SHOWN)}…` : given;
  if (result.problem) return html`<section class="model"><div class="table-head"><h2 class="quote">${shown}</h2></div><${Notice} kind="bad">${result.problem}<//></section>`;
  const rows = infos.flatMap((info) => { const answer = result.data.find(({ variant }) => variant === info.variant); return answer ? [{ info, answer }] : []; });
  const names = [...new Set(rows.flatMap(({ answer }) => Object.keys(answer.measures ?? {})))];
  /** @type {import("../parts/table.js").Column<{info: ModelInfo, answer: Answer}>[]} */
  const columns = [
    { key: "variant", name: "Variant", value: ({ info }) => info.variant, cell: ({ info }) => html`<span class="name">${info.variant}</span> <${Tags} isReference=${info.reference} isDefault=${info.default} />` },
    { key: "answer", name: isPair ? "Relevance" : "Answer", value: ({ answer }) => answer.error ?? asWords(answer.answer), cell: ({ answer }) => (answer.error ? html`<span class="bad-word">${answer.error}</span>` : html`<${Shown} answer=${answer.answer} />`) },
    ...names.map((name) => ({ key: name, name: name.replaceAll("_", " "), isNumber: true, value: (/** @type {{info: ModelInfo, answer: Answer}} */ { info, answer }) => (info.reference ? null : answer.measures?.[name]), cell: (/** @type {{info: ModelInfo, answer: Answer}} */ { info, answer }) => (info.reference ? html`<span class="muted">–</span>` : measure(answer.measures?.[name])) })),
    ...["total", "forward", "core_wait", "tokenize"].map((name) => ({ key: name, name: name.replace("_", " "), unit: "ms", isNumber: true, value: (/** @type {{answer: Answer}} */ { answer }) => answer.timings?.[`${name}_ms`], cell: (/** @type {{answer: Answer}} */ { answer }) => millis(answer.timings?.[`${name}_ms`]) })),
  ];
  return html`<section class="model"><${DataTable} caption=${`Answers to ${shown}`} title=${html`<h2 class="quote">${shown}</h2> <span class="muted">${task}</span> <${CallButtons} call=${result.call} what="the comparison" />`}
    columns=${columns} rows=${rows} route=${route} id=${(/** @type {{info: ModelInfo}} */ { info }) => info.variant} /></section>`;
}

/** @param {any} answer */
function asWords(answer) {
  if (answer.embedding) return `${answer.embedding.length} numbers: ${answer.embedding.slice(0, 4).map((/** @type {number} */ x) => x.toFixed(3)).join(", ")} …`;
  if (answer.label !== undefined) return `${answer.label} ${share(answer.score)}`;
  return share(answer.relevance_score);
}

/** @param {{answer: any}} props */
function Shown({ answer }) {
  if (answer.embedding) return html`<${Heat} values=${answer.embedding} />`;
  if (answer.scores) {
    return html`<span class="labels">${Object.entries(answer.scores).map(([label, p]) => html`<span class=${label === answer.label ? "label-score name" : "label-score muted"}>
      ${label} <svg width="60" height="8" aria-hidden="true"><rect class="room" width="60" height="8" rx="2" /><rect class="part-weights" width=${60 * Number(p)} height="8" rx="2" /></svg> ${share(Number(p))}</span>`)}</span>`;
  }
  return html`${asWords(answer)}`;
}

/** An embedding as a strip of its first numbers: equal ones look equal. @param {{values: number[]}} props */
function Heat({ values }) {
  const shown = values.slice(0, 48);
  const most = Math.max(...shown.map(Math.abs)) || 1;
  return html`<svg class="heat" width=${shown.length * 4} height="16" role="img" aria-label=${asWords({ embedding: values })}>
    ${shown.map((value, place) => html`<rect x=${place * 4} width="4" height="16" class=${value < 0 ? "minus" : "plus"} fill-opacity=${Math.abs(value) / most} />`)}</svg>`;
}

/** @param {{model: string, infos: ModelInfo[], task: string, lines: string[], query: string}} props */
function Calls({ model, infos, task, lines, query }) {
  /** @param {string} variant */
  function callOf(variant) {
    const name = `${model}:${variant}`;
    if (task === "rerank") return { path: "/v1/rerank", body: { model: name, query, documents: lines } };
    return { path: task === "classification" ? "/v1/classify" : "/v1/embeddings", body: { model: name, input: lines.length === 1 ? lines[0] : lines } };
  }
  return html`<ul class="calls">${infos.map(({ variant }) => html`<li><span class="name">${variant}</span>
    <${CallButtons} call=${callOf(variant)} what=${`the call of ${variant}`} /></li>`)}</ul>`;
}
