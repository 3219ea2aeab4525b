// Chat and completion: the streams of all variants as they come, and where each leaves the reference.

import { CallButtons } from "../parts/call_buttons.js";
import { divergence } from "../parts/divergence.js";
import { counted, listed, millis, percent, perSecond } from "../parts/format.js";
import { callOf, newRun, speed, stream, textOf } from "../parts/generating.js";
import { html, useEffect, useRef, useState } from "../parts/html.js";
import { DataTable } from "../parts/table.js";
import { LONGEST } from "../parts/url.js";
import { Notice, Tags } from "../parts/words.js";

/** @typedef {import("../parts/generating.js").Run} Run */

const EXAMPLE = { chat: "What does it mean to quantize a neural network?", completion: "The three things that matter most when a service is slow are" };

/** @param {{model: string, infos: ModelInfo[], route: Route}} props */
export function TryGenerator({ model, infos, route }) {
  const { params } = route;
  const mode = params.mode === "completion" ? "completion" : "chat";
  const text = params.text ?? EXAMPLE[mode];
  const maxTokens = Math.min(Math.max(Number(params.tokens ?? 48) || 48, 1), 512);
  const isTogether = params.order !== "turns";
  const [runs, setRuns] = useState(/** @type {Map<string, Run>} */ (new Map()));
  const [, draw] = useState(0);
  const control = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => () => control.current?.abort(), []);
  const isRunning = [...runs.values()].some(({ state }) => state === "running" || state === "waiting");

  /** @param {string} variant */
  const call = (variant) => callOf({ model, variant, mode, text, system: params.system ?? "", maxTokens });

  /** @param {Event} [event] */
  async function run(event) {
    event?.preventDefault();
    if (!text || !infos.length) return;
    control.current?.abort();
    const signal = (control.current = new AbortController()).signal;
    const made = new Map(infos.map(({ variant }) => [variant, newRun(variant)]));
    setRuns(made);
    const changed = () => draw((n) => n + 1);
    if (isTogether) {
      await Promise.all([...made.values()].map((one) => stream(one, call(one.variant), signal, changed)));
    } else {
      for (const one of made.values()) await stream(one, call(one.variant), signal, changed);
    }
  }

  /** @param {KeyboardEvent} event */
  const onKey = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(event); };
  /** @param {string} name */
  const follow = (name) => (/** @type {any} */ event) => route.set({ [name]: event.target.value });

  return html`
    <form class="card ask" onSubmit=${run}>
      <div class="controls">
        <fieldset><legend>Kind</legend><div class="choices">
          ${["chat", "completion"].map((kind) => html`<label class="choice"><input type="radio" name="mode" value=${kind} checked=${mode === kind} onChange=${follow("mode")} />${kind}</label>`)}
        </div></fieldset>
        <fieldset><legend>Order</legend><div class="choices">
          <label class="choice"><input type="radio" name="order" value="together" checked=${isTogether} onChange=${follow("order")} />all at once</label>
          <label class="choice" title="Variants then do not wait for one another's cores"><input type="radio" name="order" value="turns" checked=${!isTogether} onChange=${follow("order")} />one after the other</label>
        </div></fieldset>
        <label>Most tokens <input type="number" min="1" max="512" value=${maxTokens} onChange=${follow("tokens")} /></label>
        ${mode === "chat" && html`<label class="grow">System <input type="text" value=${params.system ?? ""} placeholder="none" onChange=${follow("system")} /></label>`}
      </div>
      <label class="unseen" for="prompt">${mode === "chat" ? "Message" : "Text to continue"}</label>
      <textarea id="prompt" rows="3" value=${text} onInput=${follow("text")} onKeyDown=${onKey}></textarea>
      <div class="actions">
        <button type="submit" class="main" disabled=${!text || !infos.length}>${isRunning ? "Start again" : "Run"}</button>
        ${isRunning && html`<button type="button" onClick=${() => control.current?.abort()}>Stop</button>`}
        ${text.length > LONGEST && html`<span class="muted">Too long for the address: no link to this page has it.</span>`}
        <span class="muted">Ctrl + Enter. The most probable token each time, so that what differs is the numbers' doing.</span>
      </div>
    </form>
    ${!infos.length && html`<${Notice} kind="fair">Choose a variant.<//>`}
    <${Summary} infos=${infos} runs=${runs} isTogether=${isTogether} />
    <div class="streams">
      ${infos.map((info) => html`<${Stream} key=${info.variant} info=${info} run=${runs.get(info.variant)}
        reference=${referenceRun(infos, runs)} call=${call(info.variant)} />`)}
    </div>
    <${Figures} infos=${infos} runs=${runs} route=${route} />`;
}

/** @param {ModelInfo[]} infos @param {Map<string, Run>} runs */
function referenceRun(infos, runs) {
  const found = infos.find(({ reference }) => reference);
  return found && runs.get(found.variant);
}

/** @param {Run | undefined} run @param {Run | undefined} reference */
function whereItLeaves(run, reference) {
  if (!run || !reference || run === reference) return null;
  return divergence(run.tokens, reference.tokens, run.state === "done" && reference.state === "done");
}

/** The whole in a sentence. @param {{infos: ModelInfo[], runs: Map<string, Run>, isTogether: boolean}} props */
function Summary({ infos, runs, isTogether }) {
  const reference = referenceRun(infos, runs);
  const others = infos.flatMap(({ variant }) => { const run = runs.get(variant); return run && run !== reference && run.state === "done" ? [run] : []; });
  if (!reference || reference.state !== "done" || !others.length) {
    return runs.size && !reference ? html`<${Notice}>Without the reference among the chosen there is nothing to compare with.<//>` : null;
  }
  const same = others.filter((run) => whereItLeaves(run, reference) === null);
  const off = others.filter((run) => !same.includes(run));
  const words = [];
  if (same.length) words.push(`${listed(same.map(({ variant }) => variant))} ${same.length > 1 ? "say" : "says"} the same ${counted(reference.tokens.length, "token")} as ${reference.variant}.`);
  for (const run of off) words.push(`${run.variant} leaves it at token ${(whereItLeaves(run, reference)?.place ?? 0) + 1}.`);
  return html`<section class="verdict-line" aria-live="polite"><p class="sentence">${words.join(" ")}</p>
    ${isTogether && html`<p class="muted">Sent at once, the variants wait for one another's cores; one after the other shows each one's own time.</p>`}</section>`;
}

/** @param {{info: ModelInfo, run: Run | undefined, reference: Run | undefined, call: {path: string, body: unknown}}} props */
function Stream({ info, run, reference, call }) {
  const left = whereItLeaves(run, reference);
  const isReference = run !== undefined && run === reference;
  return html`<article class="card stream" aria-label=${`Answer of ${info.variant}`}>
    <header>
      <h2>${info.variant} <${Tags} isReference=${info.reference} isDefault=${info.default} /></h2>
      <${CallButtons} call=${call} what=${`the call of ${info.variant}`} />
    </header>
    <${Counters} run=${run} />
    ${run?.problem && html`<${Notice} kind=${run.problem === "stopped" ? "fair" : "bad"}>${run.problem}<//>`}
    <p class="answer" data-state=${run?.state ?? "none"}>${run && html`<${Text} run=${run} place=${left ? left.place : null} />`}${run?.state === "running" && html`<span class="caret" aria-hidden="true"></span>`}</p>
    ${run && left && reference && html`<${Left} left=${left} variant=${run.variant} reference=${reference.variant} />`}
    ${run?.state === "done" && !isReference && reference?.state === "done" && !left && html`<p class="same">Every token as ${reference.variant} has it.</p>`}
  </article>`;
}

/** @param {{run: Run | undefined}} props */
function Counters({ run }) {
  const figures = figuresOf(run);
  return html`<dl class="counters">
    <div><dt>first token</dt><dd>${millis(figures.first)} <span class="unit">ms</span></dd></div>
    <div><dt>then</dt><dd>${perSecond(figures.rate)} <span class="unit">tokens/s</span></dd></div>
    <div><dt>tokens</dt><dd>${figures.tokens}</dd></div>
    <div><dt>core wait</dt><dd>${millis(figures.wait)} <span class="unit">ms</span></dd></div>
  </dl>`;
}

/** By the service's own clock once it has told, until then by the page's. @param {Run | undefined} run */
function figuresOf(run) {
  const told = run?.figures;
  const perToken = told?.time_per_output_token_ms;
  return {
    first: told?.time_to_first_token_ms ?? run?.firstMs ?? null,
    rate: perToken ? 1000 / perToken : run ? speed(run) : null,
    tokens: run?.tokens.length ?? 0,
    wait: told?.core_wait_ms ?? null,
  };
}

/** @typedef {{info: ModelInfo, run: Run, left: import("../parts/divergence.js").Divergence | null, isReference: boolean}} Row */

/** All streams in numbers. @param {{infos: ModelInfo[], runs: Map<string, Run>, route: Route}} props */
function Figures({ infos, runs, route }) {
  const reference = referenceRun(infos, runs);
  const rows = infos.flatMap((info) => { const run = runs.get(info.variant); return run && run.state !== "waiting" ? [{ info, run, left: whereItLeaves(run, reference), isReference: run === reference }] : []; });
  if (!rows.length) return null;
  return html`<section class="model figures"><${DataTable} caption="The streams in numbers" title=${html`<h2>In numbers</h2>`} columns=${COLUMNS} rows=${rows} route=${route}
    id=${(/** @type {Row} */ { info }) => info.variant} /></section>`;
}

const quoted = (/** @type {import("../parts/divergence.js").Token | null | undefined} */ token) => (token === undefined ? undefined : token ? JSON.stringify(token.text) : "the end");

/** @type {import("../parts/table.js").Column<Row>[]} */
const COLUMNS = [
  { key: "variant", name: "Variant", value: ({ info }) => info.variant, cell: ({ info }) => html`<span class="name">${info.variant}</span> <${Tags} isReference=${info.reference} isDefault=${info.default} />` },
  { key: "first", name: "First token", unit: "ms", isNumber: true, value: ({ run }) => figuresOf(run).first, cell: ({ run }) => millis(figuresOf(run).first) },
  { key: "rate", name: "Then", unit: "tokens/s", isNumber: true, value: ({ run }) => figuresOf(run).rate, cell: ({ run }) => perSecond(figuresOf(run).rate) },
  { key: "tokens", name: "Tokens", isNumber: true, value: ({ run }) => run.tokens.length },
  { key: "wait", name: "Core wait", unit: "ms", isNumber: true, value: ({ run }) => figuresOf(run).wait, cell: ({ run }) => millis(figuresOf(run).wait) },
  { key: "ended", name: "Ended", value: ({ run }) => run.problem || run.ended || run.state },
  { key: "left", name: "Leaves at token", isNumber: true, value: ({ left }) => left && left.place + 1 },
  {
    key: "own",
    name: "Its token there",
    value: ({ left }) => quoted(left?.own),
    also: [
      { name: "Its probability", value: ({ left }) => left?.byOwn.own },
      { name: "Its probability by the reference", value: ({ left }) => left?.byReference.own },
      { name: "The reference's token", value: ({ left }) => quoted(left?.reference) },
      { name: "That one's probability", value: ({ left }) => left?.byOwn.reference },
      { name: "That one's probability by the reference", value: ({ left }) => left?.byReference.reference },
    ],
  },
  { key: "text", name: "Text", value: ({ run }) => textOf(run.tokens), cell: ({ run }) => html`<span class="sentence-cell">${textOf(run.tokens)}</span>` },
];

/** The text, with the token at which it leaves the reference marked. @param {{run: Run, place: number | null}} props */
function Text({ run, place }) {
  if (place === null) return html`${textOf(run.tokens)}`;
  const marked = run.tokens[place];
  return html`${textOf(run.tokens.slice(0, place))}<mark title=${`Token ${place + 1}: here it leaves the reference`}>${marked ? marked.text : "⌁ ends here"}</mark><span class="after">${textOf(run.tokens.slice(place + 1))}</span>`;
}

/** Both tokens there, and what both gave to them. @param {{left: import("../parts/divergence.js").Divergence, variant: string, reference: string}} props */
function Left({ left, variant, reference }) {
  const shown = (/** @type {import("../parts/divergence.js").Token | null} */ token) => (token ? html`<code>${quoted(token)}</code>` : html`<i>the end</i>`);
  const told = (/** @type {number | null} */ p) => (p === null ? html`<span title="Not among the most probable ones that are told">rare</span>` : percent(p));
  const rows = [
    { of: variant, token: left.own, byOwn: left.byOwn.own, byReference: left.byReference.own },
    { of: reference, token: left.reference, byOwn: left.byOwn.reference, byReference: left.byReference.reference },
  ];
  /** @type {import("../parts/table.js").Column<typeof rows[0]>[]} */
  const columns = [
    { key: "token", name: "Token", value: ({ token }) => quoted(token), also: [{ name: "Said by", value: ({ of }) => of }], cell: ({ of, token }) => html`${shown(token)} <span class="muted">${of}'s</span>` },
    { key: "own", name: variant, isNumber: true, value: ({ byOwn }) => byOwn, cell: ({ byOwn }) => told(byOwn) },
    { key: "reference", name: reference, isNumber: true, value: ({ byReference }) => byReference, cell: ({ byReference }) => told(byReference) },
  ];
  return html`<div class="left"><${DataTable} caption=${`Probabilities where ${variant} leaves ${reference}`} columns=${columns} rows=${rows} id=${(/** @type {{of: string}} */ { of }) => of}
    title=${html`<span class="leaves">Leaves ${reference} at token ${left.place + 1}; probability there by</span>`} /></div>`;
}
