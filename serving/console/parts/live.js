// What moves, kept up to date while the page is looked at: a hidden tab closes its stream.

import { ApiError, events, fetchJson } from "./api.js";
import { useEffect, useState } from "./html.js";

const KEEP_S = 600;
const RETRY_MS = 2000;

/** The service says at least each 20 s that nothing has changed. */
const SILENT_MS = 45_000;

const ANSWER_MS = 30_000;

/** @type {LiveStore} */
const store = {
  connection: "connecting",
  problem: "",
  heardAt: 0,
  models: new Map(),
  states: new Map(),
  figures: new Map(),
  history: new Map(),
  quality: new Map(),
};

/** @type {Set<() => void>} */
const watchers = new Set();

let turn = 0;

/** @type {AbortController | null} */
let stream = null;

/** @param {Partial<LiveStore>} [changes] */
function publish(changes = {}) {
  Object.assign(store, changes);
  turn += 1;
  for (const watcher of watchers) watcher();
}

/** The store, and a new drawing whenever it changes. */
export function useLive() {
  const [, draw] = useState(0);
  const drawn = turn;
  useEffect(() => {
    const watcher = () => draw((n) => n + 1);
    watchers.add(watcher);
    if (drawn !== turn) watcher(); // something came before anybody watched
    return () => void watchers.delete(watcher);
  }, []);
  return store;
}

/** Listen from now on whenever the page is visible. */
export function startLive() {
  document.addEventListener("visibilitychange", follow);
  follow();
}

/** Ask again at once, with another key perhaps. */
export function restartLive() {
  stream?.abort();
  stream = null;
  follow();
}

function follow() {
  if (document.hidden) {
    stream?.abort();
    stream = null;
    publish({ connection: "paused" });
  } else if (stream === null) {
    stream = new AbortController();
    listen(stream.signal);
  }
}

/** @param {AbortSignal} signal */
async function listen(signal) {
  publish({ connection: "connecting" });
  let isFirst = true;
  while (!signal.aborted) {
    const began = performance.now();
    try {
      if (isFirst) {
        // It has every replica look itself up, so not for each stream.
        await readModels(signal);
        // Another service may have come in the place of the one that was lost.
        for (const known of [store.states, store.figures, store.quality]) known.clear();
      }
      isFirst = false;
      for await (const event of events("/v1/live", { signal, silentMs: SILENT_MS })) take(event, signal);
      if (performance.now() - began > RETRY_MS) continue; // each stream ends after a minute
    } catch (error) {
      isFirst = true;
      if (signal.aborted) return;
      if (error instanceof ApiError && error.status === 401) {
        stream = null; // whoever gives a key starts it again
        // Whoever has no key, or has forgotten it, shall not go on seeing.
        for (const known of [store.models, store.states, store.figures, store.history, store.quality]) known.clear();
        publish({ connection: "locked", problem: "the service asks for its key", heardAt: 0 });
        return;
      }
      publish({ connection: "lost", problem: error instanceof ApiError ? error.message : "the connection broke off" });
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

/** What does not move: only a variant that has become ready has anything new. @param {AbortSignal} signal */
async function readModels(signal) {
  /** @type {{data: ModelEntry[]}} */
  const { data } = await fetchJson("/v1/models", { signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]) });
  publish({ models: new Map(data.map((entry) => [entry.id, entry.quantserve])) });
}

/** @param {{name: string, data: string}} event @param {AbortSignal} signal */
function take(event, signal) {
  const { at, data } = JSON.parse(event.data);
  if (event.name === "states") takeStates(data, signal);
  else if (event.name === "figures") {
    takeFigures(at, data);
    learnMore(signal);
  }
  else if (event.name === "quality") for (const one of data) store.quality.set(one.model, one);
  publish({ connection: "live", problem: "", heardAt: Date.now() });
}

/** @param {StateEntry[]} entries @param {AbortSignal} signal */
function takeStates(entries, signal) {
  for (const entry of entries) store.states.set(`${entry.model}:${entry.variant}`, entry);
  learnMore(signal);
}

let isLearning = false;

/** Ask what has become ready, or was too busy to say, what it is. @param {AbortSignal} signal */
function learnMore(signal) {
  const isUnknown = [...store.states].some(([id, { state }]) => state === "ready" && !store.models.get(id)?.ready);
  if (!isUnknown || isLearning) return;
  isLearning = true;
  readModels(signal).catch(() => {}).finally(() => { isLearning = false; });
}

/** @param {number} at @param {Figures[]} entries */
function takeFigures(at, entries) {
  for (const entry of entries) {
    const id = `${entry.model}:${entry.variant}`;
    const points = store.history.get(id) ?? [];
    const last = points[points.length - 1];
    // Nothing is told where nothing changed: until now it was as it had been.
    if (last && at - last.at > 15) points.push({ ...last, at: at - 10 });
    points.push({ ...entry, at });
    while (points.length && at - points[0].at > KEEP_S) points.shift();
    store.history.set(id, points);
    store.figures.set(id, entry);
  }
}
