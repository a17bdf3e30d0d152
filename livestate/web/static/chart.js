/**
 * Numbers of the document as bars: which there are to choose from, and one choice drawn.
 *
 * A series is an object or array of numbers, or one field of an object or array of objects.
 *
 * @module
 */

import { make, signed } from "./tree.js";

/** Nodes looked at in search of series, series offered, and bars drawn. */
const LOOKED_AT = 3000;
const OFFERED = 60;
const DRAWN = 24;

/** Items of a list of objects that are looked at for its fields, and items of one that are compared. */
const SAMPLE = 20;
const COMPARED = 20_000;

/** What an item calls itself. */
const NAMES = ["name", "label", "title", "id", "key"];

/** @typedef {{path: string[], field: string | null}} Series */
/** @typedef {{key: string, name: string, value: number, colour: string}} Point */

/**
 * Find what can be drawn, that near the root first.
 *
 * @param {any} state
 * @returns {Series[]}
 */
export function findSeries(state) {
  /** @type {Series[]} */
  const found = [];
  /** @type {{value: any, path: string[]}[]} */
  const waiting = [{ value: state, path: [] }];
  let looked = 0;
  for (let at = 0; at < waiting.length && found.length < OFFERED && looked < LOOKED_AT; at++) {
    const { value, path } = /** @type {{value: any, path: string[]}} */ (waiting[at]);
    if (typeof value !== "object" || value === null) continue;
    const keys = Object.keys(value);
    const sample = keys.slice(0, SAMPLE).map((key) => value[key]);
    looked += sample.length + 1;
    if (keys.length >= 2) {
      if (sample.every((item) => typeof item === "number")) found.push({ path, field: null });
      else if (sample.every(isObject)) {
        const fields = new Set(sample.flatMap((item) => Object.keys(item)));
        for (const field of fields) {
          if (sample.every((item) => typeof item[field] === "number")) found.push({ path, field });
        }
      }
    }
    for (const key of keys.slice(0, SAMPLE)) waiting.push({ value: value[key], path: [...path, key] });
  }
  return found.slice(0, OFFERED);
}

/**
 * Give a series' points as they are now.
 *
 * @param {any} state
 * @param {Series} series
 * @returns {Point[]} none where the document has it no more
 */
export function pointsOf(state, { path, field }) {
  let value = state;
  for (const key of path) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return [];
    value = value[key];
  }
  if (typeof value !== "object" || value === null) return [];
  const points = [];
  for (const key of Object.keys(value).slice(0, COMPARED)) {
    const item = value[key];
    const number = field === null ? item : isObject(item) ? item[field] : undefined;
    if (typeof number !== "number") continue;
    const own = isObject(item) ? NAMES.map((name) => item[name]).find((name) => typeof name === "string") : undefined;
    const colour = isObject(item) ? (item.colour ?? item.color) : undefined;
    const isColour = typeof colour === "string" && CSS.supports("color", colour);
    points.push({ key, name: own ?? key, value: number, colour: isColour ? colour : "" });
  }
  return points;
}

/** @param {Series} series */
export function titleOf({ path, field }) {
  return [path.join(" / "), field].filter(Boolean).join(" · ") || "the document";
}

/** Bars, the largest first. */
export class Chart {
  /** @type {Map<string, {element: HTMLElement, value: number, bar: HTMLElement, number: HTMLElement, delta: HTMLElement}>} */
  #rows = new Map();

  /**
   * @param {HTMLElement} list
   * @param {HTMLElement} rest says how many more there are
   */
  constructor(list, rest) {
    this.list = list;
    this.rest = rest;
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
  }

  clear() {
    this.#rows.clear();
    this.list.replaceChildren();
    this.rest.textContent = "";
  }

  /** @param {Point[]} points */
  show(points) {
    const drawn = points.sort((one, other) => other.value - one.value).slice(0, DRAWN);
    const low = Math.min(0, ...drawn.map((point) => point.value));
    const span = Math.max(0, ...drawn.map((point) => point.value)) - low || 1;
    const digits = Math.min(2, Math.max(0, ...drawn.map((point) => decimals(point.value))));
    const before = new Map([...this.#rows.values()].map(({ element }) => [element, element.offsetTop]));
    for (const [key, { element }] of this.#rows) {
      if (drawn.some((point) => point.key === key)) continue;
      element.remove();
      this.#rows.delete(key);
    }
    for (const [index, { key, name, value, colour }] of drawn.entries()) {
      const row = this.#rows.get(key) ?? this.#add(key, name, value);
      if (this.list.children[index] !== row.element) this.list.insertBefore(row.element, this.list.children[index] ?? null);
      row.number.textContent = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
      if (value !== row.value) {
        row.delta.textContent = signed(value - row.value);
        this.#fade(row.delta);
        row.value = value;
      }
      row.bar.style.left = `${(100 * (Math.min(0, value) - low)) / span}%`;
      row.bar.style.width = `${(100 * Math.abs(value)) / span}%`;
      row.bar.style.backgroundColor = colour;
    }
    this.#glide(before);
    const more = points.length - drawn.length;
    this.rest.textContent = more > 0 ? `and ${more.toLocaleString("en")} more` : "";
  }

  /**
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

  /** @param {HTMLElement} delta */
  #fade(delta) {
    for (const animation of delta.getAnimations()) animation.cancel();
    delta.animate([{ opacity: 1 }, { opacity: 1, offset: 0.6 }, { opacity: 0 }], { duration: 2500, fill: "forwards" });
  }

  /**
   * Let rows that change places go there.
   *
   * @param {Map<HTMLElement, number>} before
   */
  #glide(before) {
    if (this.calm.matches) return;
    for (const [element, top] of before) {
      const way = element.isConnected ? top - element.offsetTop : 0;
      if (!way) continue;
      const from = { transform: `translateY(${way}px)` };
      element.animate([from, { transform: "none" }], { duration: 450, easing: "ease-in-out" });
    }
  }
}

/** @param {number} value */
function decimals(value) {
  return (String(value).split(".")[1] ?? "").length;
}

/** @param {any} value */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
