/**
 * Numbers of the document as a bar chart: find the series that the document offers, and draw one of them.
 *
 * A series is an object or array of numbers, or one numeric field of an object or array of objects.
 *
 * @module
 */

import { make, signed } from "./tree.js";

/** Maximum number of nodes visited in search of series, of series found, and of bars drawn. */
const MAX_NODES = 3000;
const MAX_SERIES = 60;
const MAX_BARS = 24;

/** Number of items of a collection that are examined to find its fields. */
const SAMPLE = 20;

/** Maximum number of items of a series that are compared to find the largest. */
const MAX_ITEMS = 20_000;

/** Fields that may hold the name of an item, the preferred one first. */
const NAME_FIELDS = ["name", "label", "title", "id", "key"];

/** @typedef {{path: string[], field: string | null}} Series */
/** @typedef {{key: string, name: string, value: number, colour: string}} Point */
/** @typedef {Record<"element" | "bar" | "number" | "delta", HTMLElement> & {value: number}} Row */

/**
 * Find the series of a document, those nearest to the root first.
 *
 * @param {any} state
 * @returns {Series[]}
 */
export function findSeries(state) {
  /** @type {Series[]} */
  const found = [];
  /** @type {{value: any, path: string[]}[]} */
  const queue = [{ value: state, path: [] }];
  let visited = 0;
  for (let index = 0; index < queue.length && found.length < MAX_SERIES && visited < MAX_NODES; index++) {
    const { value, path } = /** @type {{value: any, path: string[]}} */ (queue[index]);
    if (typeof value !== "object" || value === null) continue;
    const keys = Object.keys(value);
    const sample = keys.slice(0, SAMPLE).map((key) => value[key]);
    visited += sample.length + 1;
    if (keys.length >= 2) {
      if (sample.every((item) => typeof item === "number")) found.push({ path, field: null });
      else if (sample.every(isObject)) {
        const fields = new Set(sample.flatMap((item) => Object.keys(item)));
        for (const field of fields) {
          if (sample.every((item) => typeof item[field] === "number")) found.push({ path, field });
        }
      }
    }
    for (const key of keys.slice(0, SAMPLE)) queue.push({ value: value[key], path: [...path, key] });
  }
  return found.slice(0, MAX_SERIES);
}

/**
 * Return the points of a series.
 *
 * @param {any} state
 * @param {Series} series
 * @returns {Point[]} empty if the document does not have the series
 */
export function pointsOf(state, { path, field }) {
  let value = state;
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return [];
    value = value[key];
  }
  if (typeof value !== "object" || value === null) return [];
  const points = [];
  for (const key of Object.keys(value).slice(0, MAX_ITEMS)) {
    const item = value[key];
    const number = field === null ? item : isObject(item) ? item[field] : undefined;
    if (typeof number !== "number") continue;
    const names = isObject(item) ? NAME_FIELDS.map((name) => item[name]) : [];
    const name = names.find((name) => typeof name === "string") ?? key;
    const colour = isObject(item) ? (item.colour ?? item.color) : undefined;
    const isColour = typeof colour === "string" && CSS.supports("color", colour);
    points.push({ key, name, value: number, colour: isColour ? colour : "" });
  }
  return points;
}

/**
 * Return the title of a series.
 *
 * @param {Series} series
 */
export function titleOf({ path, field }) {
  return [path.join(" / "), field].filter(Boolean).join(" · ") || "the document";
}

/** A bar chart, with the largest bar first. */
export class Chart {
  /** @type {Map<string, Row>} */
  #rows = new Map();

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} rest element for the number of points that are not drawn
   */
  constructor(list, rest) {
    this.list = list;
    this.rest = rest;
    this.reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  }

  clear() {
    this.#rows.clear();
    this.list.replaceChildren();
    this.rest.textContent = "";
  }

  /**
   * Draw the largest points, and mark those that changed.
   *
   * @param {Point[]} points
   */
  show(points) {
    const drawn = points.sort((one, other) => other.value - one.value).slice(0, MAX_BARS);
    const low = Math.min(0, ...drawn.map((point) => point.value));
    const span = Math.max(0, ...drawn.map((point) => point.value)) - low || 1;
    const digits = Math.min(2, Math.max(0, ...drawn.map((point) => decimals(point.value))));
    const format = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    const previousTops = new Map([...this.#rows.values()].map(({ element }) => [element, element.offsetTop]));
    for (const [key, { element }] of this.#rows) {
      if (drawn.some((point) => point.key === key)) continue;
      element.remove();
      this.#rows.delete(key);
    }
    for (const [index, { key, name, value, colour }] of drawn.entries()) {
      const row = this.#rows.get(key) ?? this.#add(key, name, value);
      const next = this.list.children[index] ?? null;
      if (next !== row.element) this.list.insertBefore(row.element, next);
      row.number.textContent = value.toLocaleString("en", format);
      if (value !== row.value) {
        row.delta.textContent = signed(value - row.value);
        this.#fade(row.delta);
        row.value = value;
      }
      row.bar.style.left = `${(100 * (Math.min(0, value) - low)) / span}%`;
      row.bar.style.width = `${(100 * Math.abs(value)) / span}%`;
      row.bar.style.backgroundColor = colour;
    }
    this.#animateMoves(previousTops);
    const more = points.length - drawn.length;
    this.rest.textContent = more > 0 ? `and ${more.toLocaleString("en")} more` : "";
  }

  /**
   * Add a row.
   *
   * @param {string} key
   * @param {string} name
   * @param {number} value
   */
  #add(key, name, value) {
    const element = make("li", "");
    const label = make("span", "name");
    label.textContent = name;
    const delta = make("span", "delta");
    const number = make("span", "number");
    const track = make("span", "track", { "aria-hidden": "true" });
    const bar = make("span", "bar");
    track.append(bar);
    element.append(label, " ", delta, " ", number, track);
    const row = { element, value, bar, number, delta };
    this.#rows.set(key, row);
    return row;
  }

  /**
   * Show a difference, then fade it out.
   *
   * @param {HTMLElement} delta
   */
  #fade(delta) {
    for (const animation of delta.getAnimations()) animation.cancel();
    delta.animate([{ opacity: 1 }, { opacity: 1, offset: 0.6 }, { opacity: 0 }], { duration: 2500, fill: "forwards" });
  }

  /**
   * Animate rows that have changed their position.
   *
   * @param {Map<HTMLElement, number>} previousTops
   */
  #animateMoves(previousTops) {
    if (this.reducedMotion.matches) return;
    for (const [element, top] of previousTops) {
      const distance = element.isConnected ? top - element.offsetTop : 0;
      if (!distance) continue;
      const from = { transform: `translateY(${distance}px)` };
      element.animate([from, { transform: "none" }], { duration: 450, easing: "ease-in-out" });
    }
  }
}

/**
 * Return the number of decimal places.
 *
 * @param {number} value
 */
function decimals(value) {
  return (String(value).split(".")[1] ?? "").length;
}

/** @param {any} value */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
