// Which model a page is of, by its address.

import { html } from "./html.js";
import { Notice } from "./words.js";

/** The model of the address; the first where it names none that is there. @param {string[]} names @param {Route} route */
export const modelOf = (names, route) => (names.includes(route.params.model) ? route.params.model : names[0]);

/** @param {{names: string[], route: Route, also?: Record<string, null>}} props ``also`` is left out of the address of another model. */
export function ModelChoice({ names, route, also = {} }) {
  const name = modelOf(names, route);
  const choose = (/** @type {any} */ event) => route.set({ model: event.target.value, ...also });
  return html`<label>Model <select id="model" value=${name} onChange=${choose}>${names.map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`;
}

/** Says so if the address names a model that is not there. @param {{names: string[], route: Route}} props */
export function NoSuchModel({ names, route }) {
  const { model } = route.params;
  if (!model || names.includes(model)) return null;
  return html`<${Notice} kind="fair">There is no model ${model} here; this is ${names[0]}.<//>`;
}
