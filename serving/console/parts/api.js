// Asks the service: JSON, texts and streams of server-sent events, with the key that was given.

const KEY = "quantserve.key";

/** What the service, or the way to it, said was wrong. */
export class ApiError extends Error {
  /**
   * @param {string} message In words.
   * @param {number} status HTTP status; 0 if there was no answer.
   * @param {string | null} param The field at fault.
   */
  constructor(message, status, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

/** @type {Set<(refused: boolean) => void>} */
const keyAskers = new Set();

/**
 * Have somebody told that the service wants a key, and whether it refused the one it got.
 * @param {(refused: boolean) => void} ask
 */
export function onKeyWanted(ask) {
  keyAskers.add(ask);
  return () => keyAskers.delete(ask);
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

/** Keep a key until the tab is closed, or forget it. @param {string | null} key */
export function setKey(key) {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

/**
 * Send a request and return the answer, whose status is good.
 * @param {string} path
 * @param {{method?: string, body?: unknown, signal?: AbortSignal}} [options]
 */
export async function send(path, options = {}) {
  /** @type {Record<string, string>} */
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers["Authorization"] = `Bearer ${key}`;
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(path, {
      method: options.method ?? (options.body === undefined ? "GET" : "POST"),
      headers,
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: options.signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("the service does not answer", 0);
  }
  if (!response.ok) throw await refusal(response, key !== null);
  return response;
}

/** @param {Response} response @param {boolean} hadKey */
async function refusal(response, hadKey) {
  let said = `the service answered ${response.status}`;
  let param = null;
  try {
    const { error } = await response.json();
    said = error.message;
    param = error.param;
  } catch {
    // Something between here and the service answered in words of its own.
  }
  if (response.status === 401) for (const ask of keyAskers) ask(hadKey);
  return new ApiError(said, response.status, param);
}

/** @param {string} path @param {{method?: string, body?: unknown, signal?: AbortSignal}} [options] */
export const fetchJson = async (path, options) => (await send(path, options)).json();

/**
 * Send a request and yield its events until the stream ends.
 * @param {string} path
 * @param {{body?: unknown, signal?: AbortSignal, silentMs?: number}} [options] After ``silentMs`` without a byte it counts as
 *   broken off: a network that is gone says nothing.
 * @returns {AsyncGenerator<{name: string, data: string}, void, void>}
 */
export async function* events(path, options = {}) {
  const silence = new AbortController();
  /** @type {number} */
  let timer = 0;
  const heard = () => {
    clearTimeout(timer);
    if (options.silentMs) timer = setTimeout(() => silence.abort(), options.silentMs);
  };
  heard();
  const signal = options.signal ? AbortSignal.any([options.signal, silence.signal]) : silence.signal;
  let rest = "";
  /** @type {ReadableStreamDefaultReader<string> | undefined} */
  let reader;
  try {
    const response = await send(path, { ...options, signal });
    reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    while (reader) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop() ?? "";
      for (const block of blocks) {
        const event = parse(block);
        if (event !== null) yield event;
      }
    }
  } finally {
    clearTimeout(timer);
    reader?.cancel().catch(() => {});
  }
}

/** One event; null for a comment. @param {string} block */
function parse(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length ? { name, data: data.join("\n") } : null;
}
