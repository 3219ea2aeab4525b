// Every variant of every model: how it is, what it occupies, what it does now, what it is worth.

import { Interval, MemoryBar, Sparkline } from "../parts/charts.js";
import { NONE, counted, listed, mebibytes, millis, perSecond, share } from "../parts/format.js";
import { html } from "../parts/html.js";
import { useLive } from "../parts/live.js";
import { agreementOf } from "../parts/quality.js";
import { DataTable } from "../parts/table.js";
import { TimePlot } from "../parts/time_plots.js";
import { linkTo } from "../parts/url.js";
import { Waiting } from "../parts/waiting.js";
import { Progress, State, Tags, Verdict } from "../parts/words.js";

/**
 * Everything that is known of one variant.
 * @typedef {object} Row
 * @property {string} id
 * @property {ModelInfo} info
 * @property {StateEntry | undefined} state
 * @property {Figures | undefined} figures
 * @property {FigurePoint[]} points
 * @property {VariantQuality | undefined} quality
 * @property {Agreement | null} agreement
 * @property {number} most Bytes of the largest variant of its model.
 * @property {number} lowest Where the scale of agreement begins.
 * @property {number} floor
 */

/** @param {{route: Route}} props */
export function Fleet({ route }) {
  const live = useLive();
  const models = byModel(live);
  if (!models.size) return html`<${Waiting} title="Fleet" />`;
  return html`
    <h1 class="unseen">Fleet</h1>
    <${Headline} rows=${[...models.values()].flat()} />
    ${[...models].map(([model, rows]) => html`<${Model} key=${model} model=${model} rows=${rows} route=${route} />`)}`;
}

/** @param {LiveStore} live @returns {Map<string, Row[]>} */
function byModel(live) {
  /** @type {Map<string, Row[]>} */
  const found = new Map();
  for (const [id, info] of live.models) {
    const quality = live.quality.get(info.model);
    const ofVariant = quality?.variants.find(({ variant }) => variant === info.variant);
    const rows = found.get(info.model) ?? [];
    rows.push({
      id,
      info,
      state: live.states.get(id),
      figures: live.figures.get(id),
      points: live.history.get(id) ?? [],
      quality: ofVariant,
      agreement: ofVariant ? agreementOf(ofVariant) : null,
      most: 0,
      lowest: 0.5,
      floor: quality?.floor ?? 0,
    });
    found.set(info.model, rows);
  }
  for (const rows of found.values()) {
    const most = Math.max(...rows.map((row) => memoryOf(row).total));
    const lows = rows.flatMap(({ agreement }) => (agreement ? [agreement.low] : []));
    // The widest step of a tenth that has all of them on its scale.
    const lowest = lows.length ? Math.max(0, Math.floor((Math.min(...lows) - 0.02) * 10) / 10) : 0.5;
    for (const row of rows) Object.assign(row, { most, lowest });
  }
  return found;
}

/** @param {Row} row */
function memoryOf({ info, figures }) {
  const weights = info.weights_bytes ?? figures?.weights_bytes ?? 0;
  const cache = info.kv_cache_bytes ?? figures?.kv_cache_bytes ?? 0;
  const resident = figures?.resident_bytes ?? info.resident_bytes ?? 0;
  return { weights, cache, resident, total: Math.max(resident, weights + cache), other: Math.max(resident - weights - cache, 0) };
}

/** What whoever has ten seconds should know. @param {{rows: Row[]}} props */
function Headline({ rows }) {
  const down = rows.filter(({ state }) => state && state.state !== "ready");
  const failed = down.filter(({ state }) => state?.state === "failed");
  const failing = rows.filter(({ quality }) => quality?.verdict === "failing");
  const busy = rows.reduce((total, { figures }) => total + (figures?.requests_per_s ?? 0), 0);
  const probing = rows.filter(({ quality }) => quality && ["waiting", "probing"].includes(quality.probes.state));
  const sentences = [
    down.length ? `${rows.length - down.length} of ${counted(rows.length, "variant")} are ready.` : `All ${counted(rows.length, "variant")} are ready.`,
  ];
  if (failed.length) sentences.push(`${listed(failed.map(({ id }) => id))} failed to start.`);
  if (failing.length) sentences.push(`${listed(failing.map(({ id }) => id))} ${failing.length > 1 ? "fail their" : "fails its"} floor and ${failing.length > 1 ? "are" : "is"} never chosen by auto.`);
  if (probing.length) sentences.push(`${counted(probing.length, "variant")} still being probed.`);
  return html`<section class="headline" aria-label="In short">
    <div><p class="sentence">${sentences.join(" ")}</p>
      ${down.length > failed.length && html`<${Share} done=${rows.length - down.length} total=${rows.length} of="ready" />`}
      ${probing.length > 0 && html`<${Share} done=${sum(probing, "done")} total=${sum(probing, "total")} of="probes answered" />`}</div>
    <dl class="counts">
      ${[
        ["requests/s", perSecond(busy)],
        ["indistinguishable", rows.filter(({ quality }) => quality?.verdict === "indistinguishable" && !quality.is_reference).length],
        ["degraded", rows.filter(({ quality }) => quality?.verdict === "degraded").length],
        ["failing", failing.length],
      ].map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl></section>`;
}

/** @param {{done: number, total: number, of: string}} props */
const Share = ({ done, total, of }) => html`<p class="share"><${Progress} done=${done} total=${total} label=${of} /> <span class="muted">${done} of ${total} ${of}</span></p>`;

/** @param {Row[]} rows @param {"done" | "total"} what */
const sum = (rows, what) => rows.reduce((before, { quality }) => before + (quality?.probes[what] ?? 0), 0);

/** @param {{model: string, rows: Row[], route: Route}} props */
function Model({ model, rows, route }) {
  const { info } = rows[0];
  const title = html`<h2 id=${`model-${model}`}>${model} <span class="muted">${info.task}</span></h2>
    <a href=${linkTo("try", { model })}>Try</a> <a href=${linkTo("compare", { model })}>Compare</a> <a href=${linkTo("quality", { model })}>Quality</a>`;
  return html`<section class="model fleet" aria-labelledby=${`model-${model}`}>
    <${DataTable} caption=${`Variants of ${model}`} title=${title} columns=${COLUMNS} rows=${rows}
      id=${(/** @type {Row} */ row) => row.id} route=${route}
      rowClass=${(/** @type {Row} */ { state }) => (state && state.state !== "ready" ? "down" : "")}
      detail=${(/** @type {Row} */ row) => html`<${Detail} row=${row} />`} />
  </section>`;
}

/** @type {import("../parts/table.js").Column<Row>[]} */
const COLUMNS = [
  {
    key: "variant",
    name: "Variant",
    value: ({ info }) => info.variant,
    also: [
      { name: "Recipe", value: ({ info }) => info.recipe },
      { name: "Runtime", value: ({ info }) => info.runtime },
      { name: "Device", value: ({ info }) => info.device },
    ],
    cell: ({ info }) => html`<span class="name">${info.variant}</span> <${Tags} isReference=${info.reference} isDefault=${info.default} />
      <span class="sub">${info.recipe} · ${info.runtime}${info.device && ` · ${info.device}`}</span>`,
  },
  {
    key: "state",
    name: "State",
    value: ({ state, info }) => state?.state ?? (info.ready ? "ready" : "loading"),
    also: [{ name: "Why not ready", value: ({ state }) => state?.reason }],
    cell: ({ state, info }) => html`<${State} state=${state?.state ?? (info.ready ? "ready" : "loading")} />
      ${state && ["preparing", "loading"].includes(state.state) && html`<progress class="beneath" aria-label=${`${info.variant} is ${state.state}`}></progress>`}
      ${state?.reason && html`<span class="sub reason">${state.reason}</span>`}
      ${(state?.replicas ?? info.replicas) > 1 && html`<span class="sub">${state?.replicas ?? info.replicas} replicas</span>`}`,
  },
  {
    key: "memory",
    name: "Memory",
    unit: "MiB",
    hint: "Weights, cache of keys and values, and the rest of the resident memory",
    isNumber: true,
    value: (row) => memoryOf(row).resident / 2 ** 20 || null,
    also: [
      { name: "Weights", value: (row) => memoryOf(row).weights / 2 ** 20 || null },
      { name: "KV cache", value: (row) => memoryOf(row).cache / 2 ** 20 || null },
    ],
    cell: (row) => {
      const { weights, cache, resident, other } = memoryOf(row);
      if (!weights) return NONE;
      const parts = [{ name: "weights", bytes: weights }, { name: "cache", bytes: cache }, { name: "other", bytes: other }];
      const words = `${mebibytes(weights)} weights${cache ? `, ${mebibytes(cache)} KV` : ""}`;
      return html`<span class="with-bar"><${MemoryBar} parts=${parts} most=${row.most} label=${`${words}, ${mebibytes(resident)} MiB resident`} />
        ${mebibytes(resident)}</span><span class="sub">${words}</span>`;
    },
  },
  {
    key: "rate",
    name: "Load",
    unit: "req/s",
    hint: "Requests answered in the last ten seconds, on both paths",
    isNumber: true,
    value: ({ figures }) => figures?.requests_per_s,
    cell: ({ figures, points }) => html`<span class="with-spark"><${Sparkline} points=${points.map((p) => ({ at: p.at, value: p.requests_per_s }))} />
      ${perSecond(figures?.requests_per_s)}</span>
      <span class="sub">${figures && figures.failed_per_s > 0 ? html`<span class="bad-word">${perSecond(figures.failed_per_s)} failed</span>` : figures?.tokens_per_s ? `${perSecond(figures.tokens_per_s)} tokens/s` : ""}</span>`,
  },
  {
    key: "p95",
    name: "p95",
    unit: "ms",
    hint: "95 of 100 requests of the last two minutes were answered within this; below it, half of them",
    isNumber: true,
    value: ({ figures }) => figures?.p95_ms,
    also: [{ name: "p50", value: ({ figures }) => figures?.p50_ms }],
    cell: ({ figures, points }) => html`<span class="with-spark"><${Sparkline} points=${points.map((p) => ({ at: p.at, value: p.p95_ms }))} />
      ${millis(figures?.p95_ms)}</span>${figures?.p50_ms && html`<span class="sub">p50 ${millis(figures.p50_ms)}</span>`}`,
  },
  {
    key: "wait",
    name: "Core wait",
    unit: "ms",
    hint: "How long a request waited for a core that other variants had, on average",
    isNumber: true,
    value: ({ figures }) => figures?.core_wait_ms,
    cell: ({ figures, points }) => html`<span class="with-spark"><${Sparkline} points=${points.map((p) => ({ at: p.at, value: p.core_wait_ms }))} />
      ${millis(figures?.core_wait_ms)}</span>`,
  },
  {
    key: "agreement",
    name: "Agreement",
    hint: "With the reference; the lowest of its origins, with the 95 % interval",
    isNumber: true,
    value: ({ agreement, info }) => (info.reference ? 1 : agreement?.value),
    also: [
      { name: "Agreement from", value: ({ agreement }) => agreement?.low },
      { name: "Agreement to", value: ({ agreement }) => agreement?.high },
    ],
    cell: ({ agreement, info, lowest, floor }) => {
      if (info.reference) return html`<span class="muted">1</span>`;
      if (!agreement) return NONE;
      return html`<span class="with-bar"><${Interval} ...${agreement} from=${lowest} floor=${floor} /> ${share(agreement.value)}</span>
        <span class="sub">${share(agreement.low)} – ${share(agreement.high)}</span>`;
    },
  },
  {
    key: "verdict",
    name: "Verdict",
    value: ({ quality, info }) => (info.reference ? "reference" : quality?.verdict),
    also: [{ name: "Why", value: ({ quality }) => quality?.reason }],
    cell: ({ quality, info }) => {
      if (!quality) return NONE;
      const { probes } = quality;
      const isProbing = probes.state === "probing" && probes.done < probes.total;
      return html`<${Verdict} verdict=${quality.verdict} isReference=${info.reference} />
        ${isProbing && html`<${Progress} done=${probes.done} total=${probes.total} label=${`Probes of ${info.variant}`} />`}
        <span class="sub sentence-cell">${quality.reason}</span>`;
    },
  },
];

/** What unfolds: the course of the last minutes, and everything else. @param {{row: Row}} props */
function Detail({ row }) {
  const { info, points, quality, figures } = row;
  const at = points.map((point) => point.at);
  /** @param {(point: FigurePoint) => number | null | undefined} take */
  const of = (take) => points.map(take);
  const facts = [
    ["Recipe", info.recipe_summary],
    ["Device", [info.device, info.isa].filter(Boolean).join(", ")],
    ["Artifact", info.artifact],
    ["On disk", info.disk_bytes && `${mebibytes(info.disk_bytes)} MiB`],
    ["Peak memory", info.peak_bytes && `${mebibytes(info.peak_bytes)} MiB`],
    ["Private memory", info.private_bytes && `${mebibytes(info.private_bytes)} MiB`],
    ["Loaded in", info.load_seconds && `${info.load_seconds.toFixed(1)} s`],
    ["Most tokens", info.max_tokens],
    ["In flight / queued", figures && `${figures.in_flight ?? 0} / ${figures.queued ?? 0}`],
    ["Path", info.path],
    ["Remark", info.remark],
    ["Probes", quality && (quality.probes.reason || `${quality.probes.done} answered`)],
  ].filter(([, value]) => value);
  return html`<div class="fleet-detail">
    <div class="plots">
      <${TimePlot} title="Load" unit="req/s" at=${at} lines=${[{ name: "requests", colour: "accent", values: of((p) => p.requests_per_s) }, { name: "failed", colour: "bad", values: of((p) => p.failed_per_s) }]} />
      <${TimePlot} title="Latency" unit="ms" at=${at} lines=${[{ name: "p50", colour: "accent", values: of((p) => p.p50_ms) }, { name: "p95", colour: "fair", values: of((p) => p.p95_ms) }]} />
      <${TimePlot} title="Core wait" unit="ms" at=${at} lines=${[{ name: "mean", colour: "accent", values: of((p) => p.core_wait_ms) }]} />
    </div>
    <dl class="facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
  </div>`;
}
