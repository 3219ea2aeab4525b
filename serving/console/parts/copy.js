// Buttons that copy, and say that they did.

import { html, useState } from "./html.js";

/** @param {{label: string, what: string, text: () => string}} props */
export function CopyButton({ label, what, text }) {
  const [said, setSaid] = useState("");
  async function copy() {
    const isDone = await write(text());
    setSaid(isDone ? "copied" : "not allowed");
    setTimeout(() => setSaid(""), 1500);
  }
  return html`<button type="button" class="copy" aria-label=${`Copy ${what}`} title=${`Copy ${what}`} onClick=${copy}>
    <svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true"><path d="M4 4h7v7h-7zM1.5 8v-6.5h6.5" fill="none" stroke="currentColor" /></svg> <span aria-live="polite">${said || label}</span></button>`;
}

/** @param {string} text */
async function write(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not allowed: the older way may be.
    }
  }
  // Browsers have no clipboard for pages that come over plain HTTP from another machine.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  return isDone;
}
