// A call of the console, to be copied as one would make it oneself.

import { hasKey } from "./api.js";
import { CopyButton } from "./copy.js";
import { html } from "./html.js";
import { asCurl, asPython } from "./snippets.js";

/** @param {{call: import("./snippets.js").Call, what: string}} props */
export const CallButtons = ({ call, what }) => html`<span class="copies">
  <${CopyButton} label="curl" what=${`${what} as curl`} text=${() => asCurl(call, hasKey())} />
  <${CopyButton} label="Python" what=${`${what} as Python`} text=${() => asPython(call, hasKey())} /></span>`;
