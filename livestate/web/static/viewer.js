/**
 * The viewer page, which shows one document of the list live.
 *
 * @module
 */

import { Chart, findSeries, pointsOf, titleOf } from "./chart.js";
import { subscribe } from "./livestate.js";
import { Tree } from "./tree.js";

/** Milliseconds between two checks of the store's state and of the size of a whole response. */
const CHECK_INTERVAL = 5000;

/** Milliseconds between two searches for series. */
const SEARCH_INTERVAL = 5000;

/** Seconds without an answer until the store counts as silent. It is polled every second, and may be late once. */
const SILENT_AFTER = 4;

/** @param {string} id */
function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

const links = /** @type {HTMLAnchorElement[]} */ ([...byId("documents").querySelectorAll("a")]);
const select = /** @type {HTMLSelectElement} */ (byId("series"));
const tree = new Tree(byId("tree"));
const chart = new Chart(byId("chart"), byId("chart-rest"));

/** State of the page for the document that it shows. */
class DocumentView {
  /** @type {any} */
  state = undefined;
  /** @type {import("./livestate.js").Info | null} */
  info = null;
  changes = 0;
  changedAt = 0;
  isConnected = false;
  /** Bytes of a whole response, including its header. */
  responseBytes = 0;
  /** Bytes that polling every second would have received so far. */
  pollingBytes = 0;
  /** Seconds since the store confirmed the document, as of `ageReceivedAt`; null if unknown. @type {number | null} */
  age = null;
  ageReceivedAt = 0;
  checkedAt = -Infinity;
  /** The state that was last searched for series. @type {any} */
  searchedState = undefined;
  searchedAt = -Infinity;
  /** The series that the document offers. @type {import("./chart.js").Series[]} */
  series = [];

  /** @param {HTMLAnchorElement} link */
  constructor(link) {
    this.link = link;
    this.url = link.href;
  }
}

/** The document on the page. @type {DocumentView | null} */
let current = null;
let unsubscribe = () => {};
let isPaused = false;
let needsDrawing = false;

/** @param {HTMLAnchorElement} link */
function showDocument(link) {
  unsubscribe();
  const view = (current = new DocumentView(link));
  tree.clear();
  chart.clear();
  select.replaceChildren();
  for (const other of links) other.removeAttribute("aria-current");
  link.setAttribute("aria-current", "page");
  const name = link.textContent ?? "";
  byId("host").textContent = location.host;
  byId("name").textContent = name;
  /** @type {HTMLAnchorElement} */ (byId("raw")).href = link.href;
  document.title = `${name} – livestate`;
  for (const id of ["version", "age", "store", "received", "saved"]) byId(id).textContent = "–";
  byId("changes").textContent = "0";
  byId("size").textContent = "";
  byId("chart-section").hidden = true;
  byId("empty").hidden = false;
  setPaused(false);
  unsubscribe = subscribe(
    view.url,
    (state, info) => {
      view.changes += view.info ? 1 : 0;
      view.changedAt = performance.now();
      view.state = state;
      view.info = info;
      needsDrawing = true;
      requestAnimationFrame(draw);
    },
    { onStatus: (status) => view === current && showStatus(status) },
  );
}

/** @param {import("./livestate.js").Status} status */
function showStatus({ state, transport, reason }) {
  if (!current) return;
  current.isConnected = state === "live" || state === "polling";
  const texts = {
    connecting: reason ? "Reconnecting" : "Connecting",
    live: "Live",
    polling: transport === "long-poll" ? "Live (long polling)" : "Polling",
    offline: "Offline, retrying",
    paused: "Paused",
    ended: "Ended",
  };
  byId("status").dataset.state = state;
  if (byId("status-text").textContent !== texts[state]) byId("status-text").textContent = texts[state];
  const isDegraded = state === "polling" || state === "offline";
  byId("reason").hidden = !isDegraded;
  byId("reason").textContent = isDegraded && reason ? `${reason[0]?.toUpperCase()}${reason.slice(1)}.` : "";
}

/** Show the newest state, at most once per frame. */
function draw() {
  if (!needsDrawing || isPaused || !current?.info) return;
  needsDrawing = false;
  const { state, info, changes } = current;
  byId("empty").hidden = true;
  tree.show(state);
  drawChart(current);
  byId("version").textContent = info.version === null ? (info.etag ?? "–") : String(info.version);
  byId("changes").textContent = changes.toLocaleString("en");
  drawFacts();
}

/** @param {DocumentView} view */
function drawChart(view) {
  let points = selectedPoints(view);
  if (points.length < 2 || isSearchDue(view)) {
    view.searchedState = view.state;
    view.searchedAt = performance.now();
    updateSeries(findSeries(view.state));
    points = selectedPoints(view);
  }
  byId("chart-section").hidden = !points.length;
  chart.show(points);
}

/** @param {DocumentView} view */
function selectedPoints(view) {
  const series = view.series[Number(select.value)];
  return series ? pointsOf(view.state, series) : [];
}

/** @param {DocumentView} view */
function isSearchDue(view) {
  return view.searchedState !== view.state && performance.now() - view.searchedAt > SEARCH_INTERVAL;
}

/**
 * Update the series that can be selected, keeping the selection if it is still among them.
 *
 * @param {import("./chart.js").Series[]} found
 */
function updateSeries(found) {
  if (!current || JSON.stringify(found) === JSON.stringify(current.series)) return;
  const selected = JSON.stringify(current.series[Number(select.value)]);
  current.series = found;
  select.replaceChildren(...found.map((series, index) => new Option(titleOf(series), String(index))));
  select.value = String(Math.max(0, found.findIndex((series) => JSON.stringify(series) === selected)));
  if (JSON.stringify(found[Number(select.value)]) !== selected) chart.clear();
}

/** Update the facts that change with time. */
function drawFacts() {
  if (!current?.info || isPaused) return;
  byId("age").textContent = formatAge((performance.now() - current.changedAt) / 1000);
  const { received, transport } = current.info;
  const { pollingBytes } = current;
  byId("received").textContent = formatBytes(received);
  const saved = transport === "events" && pollingBytes > 0 ? Math.round(100 * (1 - received / pollingBytes)) : 0;
  byId("saved").textContent = saved > 0 ? `${saved}% of ${formatBytes(pollingBytes)}` : "–";
  if (!current.isConnected) byId("store").textContent = "–";
  else if (current.age !== null) {
    const sinceReceived = (performance.now() - current.ageReceivedAt) / 1000;
    const age = current.age + (current.age > SILENT_AFTER ? sinceReceived : 0);
    byId("store").textContent = age > SILENT_AFTER ? `silent for ${Math.round(age)} s` : "responding";
  }
}

/** Fetch what only a response header tells: the document's age, and the size of a whole response. */
async function check() {
  const view = current;
  if (!view || performance.now() - view.checkedAt < CHECK_INTERVAL) return;
  view.checkedAt = performance.now();
  try {
    const { headers, ok } = await fetch(view.url, { method: "HEAD", cache: "no-store" });
    if (!ok) return;
    const content = Number(headers.get("Content-Length"));
    // A field is "name: value" and a line end. The status line and the empty line are 19 bytes.
    const headerBytes = [...headers].reduce((sum, [name, value]) => sum + name.length + value.length + 4, 19);
    view.responseBytes = headerBytes + content;
    const unchanged = Date.parse(headers.get("Date") ?? "") - Date.parse(headers.get("Last-Modified") ?? "");
    if (!view.changes && unchanged > 0) view.changedAt = performance.now() - unchanged;
    view.age = headers.has("Livestate-Age") ? Number(headers.get("Livestate-Age")) : null;
    view.ageReceivedAt = performance.now();
    if (view === current) byId("size").textContent = `${formatBytes(content)} compressed`;
  } catch {
    // The subscription reports it.
  }
}

/** @param {number} seconds */
function formatAge(seconds) {
  if (seconds < 2) return "just now";
  if (seconds < 120) return `${Math.round(seconds)} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

/** @param {number} count */
function formatBytes(count) {
  if (count < 1000) return `${Math.round(count)} B`;
  if (count < 1e6) return `${(count / 1000).toFixed(1)} kB`;
  return `${(count / 1e6).toFixed(1)} MB`;
}

/**
 * Pause or resume the page. While it is paused, it stands still so that it can be read.
 *
 * @param {boolean} value
 */
function setPaused(value) {
  isPaused = value;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  draw();
}

/** Show the document that the page's address names, or the first one. */
function showDocumentFromAddress() {
  const name = new URLSearchParams(location.search).get("document");
  const link = links.find((candidate) => candidate.textContent === name) ?? links[0];
  if (link) showDocument(link);
}

for (const link of links) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    history.pushState(null, "", `?document=${encodeURIComponent(link.textContent ?? "")}`);
    showDocument(link);
  });
}
window.addEventListener("popstate", showDocumentFromAddress);
select.addEventListener("change", () => {
  chart.clear();
  if (current?.info) drawChart(current);
});
byId("pause").addEventListener("click", () => setPaused(!isPaused));
setInterval(() => {
  if (current?.info && current.isConnected && !document.hidden) {
    current.pollingBytes += current.responseBytes;
    check();
  }
  if (current?.info && !isPaused && isSearchDue(current)) drawChart(current);
  drawFacts();
}, 1000);
showDocumentFromAddress();
