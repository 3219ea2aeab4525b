// What a page says while it knows nothing yet, or why it never will.

import { html } from "./html.js";
import { useLive } from "./live.js";
import { Notice } from "./words.js";

/** @param {{title: string}} props */
export function Waiting({ title }) {
  const { connection, problem } = useLive();
  const words = problem ? `${problem[0].toUpperCase()}${problem.slice(1)}.` : "Asking the service…";
  return html`<h1>${title}</h1><${Notice} kind=${connection === "lost" ? "bad" : "none"}>${words}<//>`;
}
