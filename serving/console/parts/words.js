// States, verdicts and tags, in a word with a colour that never stands alone.

import { html } from "./html.js";

/** @type {Record<string, string>} */
export const VERDICTS = {
  indistinguishable: "good",
  degraded: "fair",
  failing: "bad",
  "not enough samples": "none",
};

/** @type {Record<string, string>} */
const STATES = { ready: "good", failed: "bad", waiting: "none", preparing: "fair", loading: "fair" };

/** @param {{verdict: string, isReference?: boolean}} props */
export function Verdict({ verdict, isReference }) {
  if (isReference) return html`<span class="pill none">reference</span>`;
  return html`<span class=${`pill ${VERDICTS[verdict] ?? "none"}`}>${verdict}</span>`;
}

/** @param {{state: string}} props */
export const State = ({ state }) =>
  html`<span class=${`state ${STATES[state] ?? "none"}`}><span class="dot" aria-hidden="true"></span>${state}</span>`;

/** @param {{isReference?: boolean, isDefault?: boolean}} props */
export function Tags({ isReference, isDefault }) {
  return html`${isReference && html`<span class="tag" title="The others are judged against it">reference</span>`}
    ${isDefault && html`<span class="tag" title="Answers where a request names no variant">default</span>`}`;
}

/** @param {{children: unknown, kind?: string}} props */
export const Notice = ({ children, kind = "none" }) => html`<p class=${`notice ${kind}`} role=${kind === "bad" ? "alert" : "status"}>${children}</p>`;

/** @param {{done: number, total: number, label: string}} props */
export const Progress = ({ done, total, label }) =>
  html`<progress value=${done} max=${Math.max(total, 1)} aria-label=${label}></progress>`;
