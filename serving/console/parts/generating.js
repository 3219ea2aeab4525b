// One stream of one variant: its request, and what has come of it so far.

import { ApiError, events } from "./api.js";

/** @typedef {import("./divergence.js").Token} Token */

/**
 * @typedef {object} Run
 * @property {string} variant
 * @property {"waiting" | "running" | "done" | "failed"} state
 * @property {Token[]} tokens
 * @property {number} started On the clock of the page, in ms.
 * @property {number | null} firstMs Until the first token, as the page sees it.
 * @property {number | null} lastAt When the last token came.
 * @property {Record<string, number> | null} figures What the service itself measured.
 * @property {string} ended Why: "length", "stop" …
 * @property {string} problem
 */

const TOP_OF_CHAT = 20;
const TOP_OF_COMPLETION = 5;

/** @param {string} variant @returns {Run} */
export const newRun = (variant) => ({
  variant, state: "waiting", tokens: [], started: 0, firstMs: null, lastAt: null, figures: null, ended: "", problem: "",
});

/**
 * The call of one variant; the most probable token each time, so that variants can be compared.
 * @param {{model: string, variant: string, mode: string, text: string, system: string, maxTokens: number}} asked
 */
export function callOf({ model, variant, mode, text, system, maxTokens }) {
  const common = { model: `${model}:${variant}`, max_tokens: maxTokens, temperature: 0, stream: true, stream_options: { include_usage: true } };
  if (mode === "completion") return { path: "/v1/completions", body: { ...common, prompt: text, logprobs: TOP_OF_COMPLETION } };
  const messages = [...(system ? [{ role: "system", content: system }] : []), { role: "user", content: text }];
  return { path: "/v1/chat/completions", body: { ...common, messages, logprobs: true, top_logprobs: TOP_OF_CHAT } };
}

/**
 * Send a call and tell of each piece that comes.
 * @param {Run} run Changed on the way.
 * @param {{path: string, body: unknown}} call
 * @param {AbortSignal} signal
 * @param {() => void} changed
 */
export async function stream(run, call, signal, changed) {
  run.state = "running";
  run.started = performance.now();
  changed();
  try {
    for await (const { data } of events(call.path, { body: call.body, signal })) {
      if (data === "[DONE]") run.state = "done";
      else take(run, JSON.parse(data));
      changed();
    }
    if (run.state === "running") throw new ApiError("the answer broke off before its end", 0);
  } catch (error) {
    run.state = "failed";
    run.problem = signal.aborted ? "stopped" : error instanceof ApiError ? error.message : "the connection broke off";
  }
  changed();
}

/** @param {Run} run @param {any} piece */
function take(run, piece) {
  if (piece.error) throw new ApiError(piece.error.message, 200);
  if (piece.quantserve) run.figures = piece.quantserve;
  for (const choice of piece.choices) {
    const tokens = choice.delta ? ofChat(choice.logprobs) : ofCompletion(choice.logprobs);
    if (tokens.length) {
      run.lastAt = performance.now();
      run.firstMs ??= run.lastAt - run.started;
      run.tokens.push(...tokens);
    }
    if (choice.finish_reason) run.ended = choice.finish_reason;
  }
}

/** @param {any} logprobs @returns {Token[]} */
const ofChat = (logprobs) =>
  (logprobs?.content ?? []).map((/** @type {any} */ token) => ({
    text: nameOf(token),
    bytes: token.bytes,
    logprob: token.logprob,
    top: new Map(token.top_logprobs.map((/** @type {any} */ top) => [nameOf(top), top.logprob])),
  }));

/** Parts of characters would all look alike. @param {{token: string, bytes: number[]}} given */
const nameOf = ({ token, bytes }) =>
  token.includes("\ufffd") ? `bytes:${bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("")}` : token;

/** @param {any} logprobs @returns {Token[]} */
const ofCompletion = (logprobs) =>
  (logprobs?.tokens ?? []).map((/** @type {string} */ text, /** @type {number} */ place) => ({
    text,
    bytes: bytesOf(text),
    logprob: logprobs.token_logprobs[place],
    top: new Map(Object.entries(logprobs.top_logprobs[place] ?? {})),
  }));

/** Of a token that is part of a character a completion tells the bytes in its name. @param {string} name */
const bytesOf = (name) =>
  /^bytes:(\\x[0-9a-f]{2})+$/.test(name) ? name.slice("bytes:".length).split("\\x").slice(1).map((byte) => parseInt(byte, 16)) : [...new TextEncoder().encode(name)];

/** What tokens say together: a character may be of several. @param {Token[]} tokens */
export const textOf = (tokens) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(tokens.flatMap(({ bytes }) => bytes)));

/** Tokens a second after the first one, as the page sees them come. @param {Run} run */
export function speed(run) {
  if (run.firstMs === null || run.lastAt === null || run.tokens.length < 2) return null;
  const ms = run.lastAt - run.started - run.firstMs;
  return ms > 0 ? ((run.tokens.length - 1) * 1000) / ms : null;
}
