// What each variant costs and keeps, limits to draw across it, and what auto would choose within them.

import { ApiError, fetchJson } from "../parts/api.js";
import { CallButtons } from "../parts/call_buttons.js";
import { NONE, counted, listed, mebibytes, millis, perSecond, share } from "../parts/format.js";
import { goodputOf } from "../parts/goodput.js";
import { html, useEffect, useState } from "../parts/html.js";
import { useLive } from "../parts/live.js";
import { ModelChoice, NoSuchModel, modelOf } from "../parts/model_choice.js";
import { agreementOf } from "../parts/quality.js";
import { DataTable } from "../parts/table.js";
import { Waiting } from "../parts/waiting.js";
import { Notice, Tags, Verdict } from "../parts/words.js";
import { Pareto } from "./pareto.js";

const MIB = 2 ** 20;
const AGAIN_MS = 3000;
const SETTLE_MS = 120;

/** @typedef {AutoEntry & {agreement: Agreement | null, info: ModelInfo, quality: VariantQuality | undefined, goodput: number | null, isChosen: boolean}} Entry */

/** @param {{route: Route}} props */
export function Compare({ route }) {
  const live = useLive();
  const names = [...new Set([...live.models.values()].map(({ model }) => model))];
  const model = modelOf(names, route);
  const { answer, problem } = useAuto(model, route.params);
  if (!model) return html`<${Waiting} title="Compare" />`;
  const entries = answer && answer.model === model ? entriesOf(answer, live, limitOf(route.params.p95)) : [];
  /** @param {string} name */
  const follow = (name) => (/** @type {any} */ event) => route.set({ [name]: event.target.value || null });
  const { params } = route;
  const isGoodput = params.x === "goodput";
  const limits = { p95: limitOf(params.p95), agreement: limitOf(params.agreement) };
  return html`
    <h1>Compare <span class="muted">what each variant costs and keeps</span></h1>
    <div class="controls">
      <${ModelChoice} names=${names} route=${route} />
      <label>p95 at most, ms <input id="p95" type="number" min="0.001" step="any" value=${shownNumber(params.p95)} placeholder="no limit" onInput=${follow("p95")} /></label>
      <label>Agreement at least <input id="agreement" type="number" min="0" max="1" step="any" value=${shownNumber(params.agreement)} placeholder="no limit" onInput=${follow("agreement")} /></label>
      <label>Weights at most, MiB <input id="weights" type="number" min="0.001" step="any" value=${shownNumber(params.weights)} placeholder="no limit" onInput=${follow("weights")} /></label>
      <label>Across <select id="across" value=${isGoodput ? "goodput" : "p95"} onChange=${follow("x")}><option value="p95">p95 latency</option><option value="goodput">goodput</option></select></label>
      ${(params.p95 || params.agreement || params.weights) && html`<button type="button" onClick=${() => route.set({ p95: null, agreement: null, weights: null })}>Clear limits</button>`}
    </div>
    <${NoSuchModel} names=${names} route=${route} />
    ${problem && html`<${Notice} kind="bad">${problem}<//>`}
    ${answer && entries.length > 0 && html`
      <${Choice} answer=${answer} entries=${entries} params=${params} />
      <section class="card"><${Pareto} entries=${entries} route=${route} limits=${limits} isGoodput=${isGoodput} /></section>
      <section class="model compare-table"><${DataTable} caption=${`Variants of ${model} within the limits`} columns=${COLUMNS} rows=${entries}
        title=${html`<h2>Every variant</h2> <${CallButtons} call=${{ path: query(model, params) }} what="the question" />`}
        id=${(/** @type {Entry} */ { variant }) => variant} route=${route}
        rowClass=${(/** @type {Entry} */ entry) => (entry.isChosen ? "chosen" : entry.in ? "" : "out")} /></section>`}`;
}

/** What auto says for the limits of the address, asked again when they change, and now and then.
 * @param {string | undefined} model @param {Record<string, string>} params */
function useAuto(model, params) {
  const [answer, setAnswer] = useState(/** @type {AutoAnswer | null} */ (null));
  const [problem, setProblem] = useState("");
  const asked = model ? query(model, params) : "";
  const isLive = useLive().connection === "live";
  useEffect(() => {
    if (!asked || !isLive) return undefined;
    const control = new AbortController();
    /** @type {number} */
    let timer = 0;
    async function ask() {
      try {
        setAnswer(await fetchJson(asked, { signal: control.signal }));
        setProblem("");
      } catch (error) {
        if (control.signal.aborted) return;
        if (error instanceof ApiError && error.status) setAnswer(null); // it is of no limits of the address
        setProblem(error instanceof ApiError ? error.message : "the connection broke off");
      }
      timer = setTimeout(ask, AGAIN_MS);
    }
    timer = setTimeout(ask, SETTLE_MS);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [asked, isLive]);
  return { answer, problem };
}

/** @param {string} model @param {Record<string, string>} params */
function query(model, params) {
  const given = new URLSearchParams({ model });
  if (params.p95) given.set("max_latency_ms", params.p95);
  if (params.agreement) given.set("min_quality", params.agreement);
  if (params.weights) given.set("max_weights_bytes", String(Math.floor(Number(params.weights) * MIB)));
  return `/v1/auto?${given}`;
}

/** What a field of numbers can show of an address. @param {string | undefined} given */
const shownNumber = (given) => (given && Number.isFinite(Number(given)) ? given : "");

/** A limit as it is drawn; what is none, the service refuses in its own words. @param {string | undefined} given */
const limitOf = (given) => (given && Number(given) > 0 && Number.isFinite(Number(given)) ? Number(given) : null);

/** @param {AutoAnswer} answer @param {LiveStore} live @param {number | null} withinMs @returns {Entry[]} */
function entriesOf(answer, live, withinMs) {
  const variants = live.quality.get(answer.model)?.variants ?? [];
  return answer.data.flatMap((entry) => {
    const info = live.models.get(`${answer.model}:${entry.variant}`);
    const quality = variants.find(({ variant }) => variant === entry.variant);
    if (!info) return [];
    const known = quality ? agreementOf(quality) : null;
    const agreement = info.reference ? { value: 1, low: 1, high: 1, count: 0, origin: "" } : known;
    const goodput = goodputOf(live.figures.get(`${answer.model}:${entry.variant}`), withinMs);
    return [{ ...entry, info, quality, agreement, goodput, isChosen: entry.variant === answer.choice }];
  });
}

/** @type {Record<string, string>} */
const LIMITS = { max_latency_ms: "p95", min_quality: "agreement", max_weights_bytes: "weights" };

/** @param {{answer: AutoAnswer, entries: Entry[], params: Record<string, string>}} props */
function Choice({ answer, entries, params }) {
  const chosen = entries.find(({ isChosen }) => isChosen);
  const hasLimits = params.p95 || params.agreement || params.weights;
  const num = entries.filter((entry) => entry.in).length;
  const within = hasLimits ? "within the limits" : "that may be chosen";
  return html`<section class="verdict-line" id="choice" aria-live="polite">
    ${chosen
      ? html`<p class="sentence"><strong>auto</strong> would choose <strong>${chosen.variant}</strong>${answer.missed.length
          ? html`, the nearest of them: no variant meets the limits, and this one misses that of ${listed(answer.missed.map((missed) => LIMITS[missed]))}.`
          : html`, ${num === 1 ? `the only variant ${within}` : `the cheapest of ${counted(num, "variant")} ${within}`}: p95 ${millis(chosen.p95_latency_ms)} ms${chosen.measured_by === "probes" ? " by its probes" : ""}, agreement surely at least ${share(chosen.quality_low)}, ${mebibytes(chosen.weights_bytes)} MiB.`}</p>`
      : html`<p class="sentence"><strong>auto</strong> would refuse: no variant may answer within these limits.</p>`}
    ${(!chosen || answer.missed.length > 0) && html`<p class="muted">${answer.reason}</p>`}</section>`;
}

/** @type {import("../parts/table.js").Column<Entry>[]} */
const COLUMNS = [
  { key: "variant", name: "Variant", value: ({ variant }) => variant, cell: ({ variant, info, isChosen }) => html`<span class="name">${variant}</span> <${Tags} isReference=${info.reference} isDefault=${info.default} />${isChosen && html` <span class="tag">auto's choice</span>`}` },
  { key: "in", name: "Within the limits", value: (entry) => (entry.in ? "yes" : entry.reason), cell: (entry) => (entry.in ? html`<span class="pill good">in</span>` : html`<span class="pill none">out</span> ${entry.reason}`) },
  { key: "p95", name: "p95", unit: "ms", isNumber: true, value: (entry) => entry.p95_latency_ms, cell: (entry) => html`${millis(entry.p95_latency_ms)}${entry.measured_by === "probes" && html`<span class="sub">by probes</span>`}` },
  { key: "goodput", name: "Goodput", unit: "answers/s", isNumber: true, hint: "Answers within the p95 limit, of the last two minutes, for each second in which a replica had requests", value: ({ goodput }) => goodput, cell: ({ goodput }) => perSecond(goodput) },
  { key: "cost", name: "Cost", unit: "ms of the machine", isNumber: true, hint: "Of one request, were the machine its own; auto takes the cheapest", value: (entry) => entry.cost_ms, cell: (entry) => millis(entry.cost_ms) },
  { key: "agreement", name: "Agreement", isNumber: true, value: ({ agreement }) => agreement?.value, also: [{ name: "Agreement from", value: ({ agreement }) => agreement?.low }, { name: "Agreement to", value: ({ agreement }) => agreement?.high }], cell: ({ agreement, info }) => (agreement ? html`${share(agreement.value)}${!info.reference && html`<span class="sub">${share(agreement.low)} – ${share(agreement.high)}</span>`}` : NONE) },
  { key: "weights", name: "Weights", unit: "MiB", isNumber: true, value: (entry) => entry.weights_bytes && entry.weights_bytes / MIB, cell: (entry) => mebibytes(entry.weights_bytes) },
  { key: "verdict", name: "Verdict", value: ({ quality }) => quality?.verdict, cell: ({ quality, info }) => (quality ? html`<${Verdict} verdict=${quality.verdict} isReference=${info.reference} />` : NONE) },
];
