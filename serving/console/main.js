// The frame around the pages: where one is, the key, the theme, and whether the service is there.

import { hasKey, onKeyWanted, setKey } from "./parts/api.js";
import { moment } from "./parts/format.js";
import { html, render, useEffect, useRef, useState } from "./parts/html.js";
import { restartLive, startLive, useLive } from "./parts/live.js";
import { linkTo, useRoute } from "./parts/url.js";
import { Waiting } from "./parts/waiting.js";
import { Compare } from "./pages/compare.js";
import { Fleet } from "./pages/fleet.js";
import { Quality } from "./pages/quality.js";
import { Reports } from "./pages/reports.js";
import { Try } from "./pages/try.js";

/** @type {Record<string, {name: string, page: (props: {route: Route}) => unknown}>} */
const PAGES = {
  fleet: { name: "Fleet", page: Fleet },
  try: { name: "Try", page: Try },
  compare: { name: "Compare", page: Compare },
  quality: { name: "Quality", page: Quality },
  reports: { name: "Load tests", page: Reports },
};

/** @param {Route} route */
const pageOf = (route) => (Object.hasOwn(PAGES, route.page) ? PAGES[route.page] : undefined);

function Console() {
  const route = useRoute();
  const heading = useRef(/** @type {HTMLElement | null} */ (null));
  const isFirst = useRef(true);
  const here = pageOf(route);
  useEffect(() => {
    document.title = `${here ? here.name : "Not found"} · quantserve`;
    // Whoever listens is told where they are now.
    if (!isFirst.current) heading.current?.focus();
    isFirst.current = false;
  }, [route.page]);
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => { event.preventDefault(); heading.current?.focus(); }}>Skip to the page</a>
    <header class="top">
      <a class="brand" href="#/fleet"><img src="/console/icon.svg" alt="" width="20" height="20" /> quantserve</a>
      <nav aria-label="Pages">
        ${Object.entries(PAGES).map(([key, { name }]) => html`
          <a key=${key} href=${linkTo(key)} aria-current=${key === route.page ? "page" : null}>${name}</a>`)}
      </nav>
      <div class="tools"><${Connection} /><${KeyTool} /><${Theme} /></div>
    </header>
    <${KeyQuestion} />
    <${Lost} />
    <main id="main" ref=${heading} tabindex="-1">
      <${Page} route=${route} />
    </main>`;
}

/** @param {{route: Route}} props */
function Page({ route }) {
  const here = pageOf(route);
  const isLocked = useLive().connection === "locked";
  if (!here) return html`<h1>There is no such page</h1><p><a href="#/fleet">Fleet</a> is the first.</p>`;
  // What a page has found goes with the key.
  return isLocked ? html`<${Waiting} title=${here.name} />` : html`<${here.page} key=${route.page} route=${route} />`;
}

function Connection() {
  const { connection, problem } = useLive();
  const words = { connecting: "connecting", live: "live", paused: "paused", locked: "locked", lost: "no connection" }[connection];
  const kind = { connecting: "none", live: "good", paused: "none", locked: "fair", lost: "bad" }[connection];
  return html`<span class=${`state ${kind}`} role="status" title=${problem}><span class="dot" aria-hidden="true"></span>${words}</span>`;
}

/** What is on the page is of the past then, and must not look like the present. */
function Lost() {
  const { connection, problem, heardAt } = useLive();
  if (connection !== "lost" || !heardAt) return null;
  return html`<p class="lost" role="alert">No connection: ${problem}. What is shown is as of ${moment(heardAt / 1000)}; the service is asked again every two seconds.</p>`;
}

function Theme() {
  const [chosen, setChosen] = useState(document.documentElement.dataset.theme ?? "auto");
  /** @param {string} theme */
  function choose(theme) {
    if (theme === "auto") {
      localStorage.removeItem("quantserve.theme");
      delete document.documentElement.dataset.theme;
    } else {
      localStorage.setItem("quantserve.theme", theme);
      document.documentElement.dataset.theme = theme;
    }
    setChosen(theme);
    dispatchEvent(new Event("themechange"));
  }
  return html`<select class="theme" aria-label="Colours" value=${chosen} onChange=${(/** @type {any} */ event) => choose(event.target.value)}>
    <option value="auto">auto</option><option value="light">light</option><option value="dark">dark</option></select>`;
}

function KeyTool() {
  const [has, setHas] = useState(hasKey());
  useEffect(() => {
    const look = () => setHas(hasKey());
    addEventListener("keychange", look);
    return () => removeEventListener("keychange", look);
  }, []);
  if (!has) return null;
  return html`<button type="button" class="quiet" onClick=${() => giveKey(null)}>Forget key</button>`;
}

/** @param {string | null} key */
function giveKey(key) {
  setKey(key);
  dispatchEvent(new Event("keychange"));
  restartLive();
}

/** Asks for the key where the service wants one; nothing else of the console needs it before. */
function KeyQuestion() {
  const [asked, setAsked] = useState(/** @type {"" | "missing" | "refused"} */ (""));
  const [key, setOwn] = useState("");
  useEffect(() => {
    const forget = onKeyWanted((refused) => setAsked(refused ? "refused" : "missing"));
    return () => void forget();
  }, []);
  if (!asked) return null;
  /** @param {Event} event */
  function give(event) {
    event.preventDefault();
    setAsked("");
    giveKey(key);
  }
  return html`<form class="key" onSubmit=${give} aria-label="API key">
    <p role="alert">${asked === "refused" ? "The service refused this key. Give the one that its server.api_key says." : "This service asks for its API key."}</p>
    <label>API key <input type="password" autocomplete="off" required value=${key}
      onInput=${(/** @type {any} */ event) => setOwn(event.target.value)} /></label>
    <button type="submit" class="main">Use it</button>
    <p class="muted">It stays in this tab until the tab is closed.</p>
  </form>`;
}

const root = document.getElementById("console");
if (root !== null) {
  root.replaceChildren();
  render(html`<${Console} />`, root);
  startLive();
}
