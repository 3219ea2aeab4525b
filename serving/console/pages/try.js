// One input, answered by any variants side by side.

import { html } from "../parts/html.js";
import { useLive } from "../parts/live.js";
import { ModelChoice, NoSuchModel, modelOf } from "../parts/model_choice.js";
import { Waiting } from "../parts/waiting.js";
import { TryEncoder } from "./try_encoder.js";
import { TryGenerator } from "./try_generator.js";

/** @param {{route: Route}} props */
export function Try({ route }) {
  const live = useLive();
  const names = [...new Set([...live.models.values()].map(({ model }) => model))];
  if (!names.length) return html`<${Waiting} title="Try" />`;
  const model = modelOf(names, route);
  const infos = [...live.models.values()].filter((info) => info.model === model);
  const Page = infos[0].task === "generation" ? TryGenerator : TryEncoder;
  return html`
    <h1>Try <span class="muted">one input on every variant</span></h1>
    <div class="controls">
      <${ModelChoice} names=${names} route=${route} also=${{ variants: null }} />
      <${VariantChoice} infos=${infos} route=${route} />
    </div>
    <${NoSuchModel} names=${names} route=${route} />
    <${Page} key=${model} model=${model} infos=${chosenOf(infos, route)} route=${route} />`;
}

/** The chosen variants, the reference first. @param {ModelInfo[]} infos @param {Route} route */
function chosenOf(infos, route) {
  const chosen = route.params.variants?.split(",");
  const found = chosen ? infos.filter(({ variant }) => chosen.includes(variant)) : infos;
  return [...found].sort((a, b) => Number(b.reference) - Number(a.reference));
}

/** @param {{infos: ModelInfo[], route: Route}} props */
function VariantChoice({ infos, route }) {
  const { states } = useLive();
  const chosen = new Set(chosenOf(infos, route).map(({ variant }) => variant));
  /** @param {string} variant */
  function toggle(variant) {
    const next = new Set(chosen);
    if (!next.delete(variant)) next.add(variant);
    const names = infos.map((info) => info.variant).filter((name) => next.has(name));
    route.set({ variants: names.length === infos.length ? null : names.join(",") || "none" });
  }
  return html`<fieldset><legend>Variants</legend><div class="choices">
    ${infos.map(({ variant, reference, ready, model }) => {
      const state = states.get(`${model}:${variant}`)?.state ?? (ready ? "ready" : "loading");
      return html`<label class="choice"><input type="checkbox" checked=${chosen.has(variant)} onChange=${() => toggle(variant)} />
        ${variant}${reference && html` <span class="tag">reference</span>`}${state !== "ready" && html` <span class="tag">${state}</span>`}</label>`;
    })}</div></fieldset>`;
}
