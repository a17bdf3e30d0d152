/**
 * The page: one document out of the list, live.
 *
 * @module
 */

import { Chart, findSeries, pointsOf, titleOf } from "./chart.js";
import { subscribe } from "./livestate.js";
import { Tree } from "./tree.js";

/** Milliseconds between two looks at how the store does, and what a whole document costs. */
const CHECK = 5000;

/** Milliseconds between two searches for series. */
const SEARCH = 5000;

/** Seconds without an answer from the store from which it counts as silent: a poll each second, and a late one. */
const SILENT = 4;

/** @param {string} id */
function byId(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

const links = /** @type {HTMLAnchorElement[]} */ ([...byId("documents").querySelectorAll("a")]);
const select = /** @type {HTMLSelectElement} */ (byId("series"));
const tree = new Tree(byId("tree"));
const chart = new Chart(byId("chart"), byId("chart-rest"));

/** What is known of the document that is shown. */
class Shown {
  /** @type {any} */
  state = undefined;
  /** @type {import("./livestate.js").Info | null} */
  info = null;
  changes = 0;
  changedAt = 0;
  isConnected = false;
  /** Bytes of a whole answer, and what asking for one each second would have cost until now. */
  whole = 0;
  polled = 0;
  /** Seconds since the store confirmed the document, and when that was said. @type {number | null} */
  age = null;
  saidAt = 0;
  checkedAt = -Infinity;
  /** The state in which series were searched for, and when. @type {any} */
  searched = undefined;
  searchedAt = -Infinity;
  /** @type {import("./chart.js").Series[]} */
  found = [];

  /** @param {HTMLAnchorElement} link */
  constructor(link) {
    this.link = link;
    this.url = link.href;
  }
}

/** @type {Shown | null} */
let shown = null;
let end = () => {};
let isHeld = false;
let isDue = false;

/** @param {HTMLAnchorElement} link */
function choose(link) {
  end();
  const now = (shown = new Shown(link));
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
  hold(false);
  end = subscribe(
    now.url,
    (state, info) => {
      now.changes += now.info ? 1 : 0;
      now.changedAt = performance.now();
      now.state = state;
      now.info = info;
      isDue = true;
      requestAnimationFrame(draw);
    },
    { onStatus: (status) => now === shown && tell(status) },
  );
}

/** @param {import("./livestate.js").Status} status */
function tell({ state, transport, reason }) {
  if (!shown) return;
  shown.isConnected = state === "live" || state === "polling";
  const texts = {
    connecting: reason ? "Reconnecting" : "Connecting",
    live: "Live",
    polling: transport === "long-poll" ? "Live, by long-polling" : "Polling",
    offline: "Offline, trying again",
    paused: "Paused",
    ended: "Ended",
  };
  byId("status").dataset.state = state;
  if (byId("status-text").textContent !== texts[state]) byId("status-text").textContent = texts[state];
  const isTrouble = state === "polling" || state === "offline";
  byId("reason").hidden = !isTrouble;
  byId("reason").textContent = isTrouble && reason ? `${reason[0]?.toUpperCase()}${reason.slice(1)}.` : "";
}

/** Show the newest state, at most once a frame. */
function draw() {
  if (!isDue || isHeld || !shown?.info) return;
  isDue = false;
  const { state, info, changes } = shown;
  byId("empty").hidden = true;
  tree.show(state);
  drawChart(shown);
  byId("version").textContent = info.version === null ? (info.etag ?? "–") : String(info.version);
  byId("changes").textContent = changes.toLocaleString("en");
  drawTimes();
}

/** @param {Shown} of */
function drawChart(of) {
  let points = chosenPoints(of);
  if (points.length < 2 || isSearchDue(of)) {
    of.searched = of.state;
    of.searchedAt = performance.now();
    offer(findSeries(of.state));
    points = chosenPoints(of);
  }
  byId("chart-section").hidden = !points.length;
  chart.show(points);
}

/** @param {Shown} of */
function chosenPoints(of) {
  const series = of.found[Number(select.value)];
  return series ? pointsOf(of.state, series) : [];
}

/** @param {Shown} of */
function isSearchDue(of) {
  return of.searched !== of.state && performance.now() - of.searchedAt > SEARCH;
}

/**
 * Offer what can be drawn; what was chosen stays chosen.
 *
 * @param {import("./chart.js").Series[]} found
 */
function offer(found) {
  if (!shown || JSON.stringify(found) === JSON.stringify(shown.found)) return;
  const chosen = JSON.stringify(shown.found[Number(select.value)]);
  shown.found = found;
  select.replaceChildren(...found.map((series, index) => new Option(titleOf(series), String(index))));
  select.value = String(Math.max(0, found.findIndex((series) => JSON.stringify(series) === chosen)));
  if (JSON.stringify(found[Number(select.value)]) !== chosen) chart.clear();
}

function drawTimes() {
  if (!shown?.info || isHeld) return;
  byId("age").textContent = since((performance.now() - shown.changedAt) / 1000);
  const { received, transport } = shown.info;
  byId("received").textContent = bytes(received);
  const share = transport === "events" && shown.polled > 0 ? Math.round(100 * (1 - received / shown.polled)) : 0;
  byId("saved").textContent = share > 0 ? `${share} % of ${bytes(shown.polled)}` : "–";
  if (!shown.isConnected) byId("store").textContent = "–";
  else if (shown.age !== null) {
    const silent = shown.age + (shown.age > SILENT ? (performance.now() - shown.saidAt) / 1000 : 0);
    byId("store").textContent = silent > SILENT ? `silent for ${Math.round(silent)} s` : "answers";
  }
}

/** Look how old the document is, and how many bytes a whole one has: what only an answer's head says. */
async function check() {
  const asked = shown;
  if (!asked || performance.now() - asked.checkedAt < CHECK) return;
  asked.checkedAt = performance.now();
  try {
    const { headers, ok } = await fetch(asked.url, { method: "HEAD", cache: "no-store" });
    if (!ok) return;
    const content = Number(headers.get("Content-Length"));
    // "name: value" and a line end each, and the line with the status.
    asked.whole = [...headers].reduce((sum, [name, value]) => sum + name.length + value.length + 4, content + 19);
    const unchanged = Date.parse(headers.get("Date") ?? "") - Date.parse(headers.get("Last-Modified") ?? "");
    if (!asked.changes && unchanged > 0) asked.changedAt = performance.now() - unchanged;
    asked.age = headers.has("Livestate-Age") ? Number(headers.get("Livestate-Age")) : null;
    asked.saidAt = performance.now();
    if (asked === shown) byId("size").textContent = `${bytes(content)} compressed`;
  } catch {
    // The subscription will tell.
  }
}

/** @param {number} seconds */
function since(seconds) {
  if (seconds < 2) return "just now";
  if (seconds < 120) return `${Math.round(seconds)} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

/** @param {number} count */
function bytes(count) {
  if (count < 1000) return `${Math.round(count)} B`;
  if (count < 1e6) return `${(count / 1000).toFixed(1)} kB`;
  return `${(count / 1e6).toFixed(1)} MB`;
}

/** @param {boolean} wanted whether the page is to stand still, so that it can be read */
function hold(wanted) {
  isHeld = wanted;
  byId("hold").setAttribute("aria-pressed", String(isHeld));
  draw();
}

function chooseByAddress() {
  const wanted = new URLSearchParams(location.search).get("document");
  const link = links.find((candidate) => candidate.textContent === wanted) ?? links[0];
  if (link) choose(link);
}

for (const link of links) {
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    history.pushState(null, "", `?document=${encodeURIComponent(link.textContent ?? "")}`);
    choose(link);
  });
}
window.addEventListener("popstate", chooseByAddress);
select.addEventListener("change", () => {
  chart.clear();
  if (shown?.info) drawChart(shown);
});
byId("hold").addEventListener("click", () => hold(!isHeld));
setInterval(() => {
  if (shown?.info && shown.isConnected && !document.hidden) {
    shown.polled += shown.whole;
    check();
  }
  if (shown?.info && !isHeld && isSearchDue(shown)) drawChart(shown);
  drawTimes();
}, 1000);
chooseByAddress();
