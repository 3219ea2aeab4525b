// The page and its settings are what stands behind the # of the address, so that every view is a link.

import { useEffect, useMemo, useState } from "./html.js";

/** @typedef {Record<string, string>} Params */

/** Browsers refuse addresses that are rewritten at every key; whoever copies one looks at it later than this. */
const REST_MS = 300;

/** A text that is longer stays on the page alone: no address could have it. */
export const LONGEST = 8000;

/** @param {string} hash @returns {{page: string, params: Params}} */
export function readHash(hash) {
  const given = hash.replace(/^#\/?/, "");
  const end = given.indexOf("?");
  const path = end < 0 ? given : given.slice(0, end);
  // A question mark further on is part of a text.
  return { page: path || "fleet", params: Object.fromEntries(new URLSearchParams(end < 0 ? "" : given.slice(end + 1))) };
}

/** @param {string} page @param {Params} [params] */
export function linkTo(page, params = {}) {
  const query = new URLSearchParams(params).toString();
  return `#/${page}${query ? `?${query}` : ""}`;
}

let present = readHash(location.hash);

/** @type {Set<() => void>} */
const followers = new Set();

let writtenAt = -REST_MS;
let timer = 0;

addEventListener("hashchange", () => {
  clearTimeout(timer);
  present = readHash(location.hash);
  for (const follower of followers) follower();
});

/** @param {Record<string, string | null>} changes */
function set(changes) {
  const params = { ...present.params };
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) delete params[name];
    else params[name] = value;
  }
  present = { page: present.page, params };
  clearTimeout(timer);
  const rest = writtenAt + REST_MS - performance.now();
  if (rest <= 0) write();
  else timer = setTimeout(write, rest);
  for (const follower of followers) follower();
}

function write() {
  writtenAt = performance.now();
  const short = Object.entries(present.params).filter(([, value]) => value.length <= LONGEST);
  history.replaceState(null, "", linkTo(present.page, Object.fromEntries(short)));
}

/**
 * The present page and its settings, and what changes some of them: null leaves one out.
 * @returns {{page: string, params: Params, set: (changes: Record<string, string | null>) => void}}
 */
export function useRoute() {
  const [now, setNow] = useState(present);
  useEffect(() => {
    const follow = () => setNow(present);
    followers.add(follow);
    follow();
    return () => void followers.delete(follow);
  }, []);
  return useMemo(() => ({ ...now, set }), [now]);
}
