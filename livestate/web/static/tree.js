/**
 * A JSON document as a tree that is updated in place (WAI-ARIA Authoring Practices, "Tree View Pattern").
 *
 * Only branches that are open have elements, and of a long branch only the first 200 members until more are asked for:
 * a document of 20,000 nodes costs what is seen of it. What is the same object as before is not looked into.
 *
 * @module
 */

/** Members of a branch that are shown at a time. */
const PAGE = 200;

/** Rows that are opened of their own at the beginning. */
const FIRST_ROWS = 36;

/** Characters of a string that are shown, and of one in the summary of a closed branch. */
const LONGEST = 300;
const SUMMARY = 24;

/** What is shown as a colour. */
const COLOUR = /^#[0-9a-f]{6}$/i;

/** Milliseconds for which a change is lit up; the style sheet has the same. */
const LIT = 1600;

/** By the element of the role "treeitem": a row. @type {WeakMap<Element, Branch | More>} */
const items = new WeakMap();

/** The tree of one document. */
export class Tree {
  /** @type {Branch | null} */
  #root = null;
  #typed = "";
  #typedAt = 0;

  /** @param {HTMLElement} element of the role "tree" */
  constructor(element) {
    this.element = element;
    /** The item that the Tab key leads to. @type {HTMLElement | null} */
    this.current = null;
    element.addEventListener("keydown", (event) => this.#key(event));
    element.addEventListener("click", (event) => this.#click(event));
  }

  /** @param {any} state */
  show(state) {
    if (this.#root) {
      this.#root.update(state);
      return;
    }
    this.#root = new Branch(this, null, "", state);
    this.element.replaceChildren(this.#root.element);
    this.focusable(this.#root.row);
    this.#openFirst(this.#root);
  }

  /** Forget the document. */
  clear() {
    this.#root = null;
    this.current = null;
    this.element.replaceChildren();
  }

  /** @param {Branch} root */
  #openFirst(root) {
    let rows = 1;
    const waiting = [root];
    for (let branch = waiting.shift(); branch; branch = waiting.shift()) {
      if (!branch.isContainer || (branch !== root && rows + branch.size > FIRST_ROWS)) continue;
      branch.open();
      rows += branch.size;
      waiting.push(...branch.children.values());
    }
  }

  /**
   * Make a row the one that the Tab key leads to.
   *
   * @param {HTMLElement} row
   */
  focusable(row) {
    if (this.current) this.current.tabIndex = -1;
    this.current = row;
    row.tabIndex = 0;
  }

  /** @param {HTMLElement | null | undefined} row */
  go(row) {
    if (!row) return;
    this.focusable(row);
    row.focus();
  }

  /** @param {MouseEvent} event */
  #click(event) {
    const row = /** @type {Element} */ (event.target).closest(".row");
    const item = row && items.get(row);
    // A click behind a text that is being selected is none.
    if (!item || String(getSelection())) return;
    this.go(item.row);
    item.toggle();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const item = items.get(/** @type {Element} */ (event.target));
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    // From top to bottom.
    const seen = /** @type {HTMLElement[]} */ ([...this.element.querySelectorAll(".row")]);
    const at = seen.indexOf(item.row);
    const branch = item instanceof Branch ? item : null;
    switch (event.key) {
      case "ArrowDown":
        this.go(seen[at + 1]);
        break;
      case "ArrowUp":
        this.go(seen[at - 1]);
        break;
      case "ArrowRight":
        if (branch?.isOpen) this.go(seen[at + 1]);
        else branch?.open();
        break;
      case "ArrowLeft":
        if (branch?.isOpen) branch.close();
        else this.go(item.parent?.row);
        break;
      case "Home":
        this.go(seen[0]);
        break;
      case "End":
        this.go(seen.at(-1));
        break;
      case "Enter":
      case " ":
        item.toggle();
        break;
      case "*":
        for (const sibling of item.parent?.children.values() ?? []) sibling.open();
        break;
      default:
        if (event.key.length !== 1) return;
        this.#type(event.key, seen, at);
    }
    event.preventDefault();
  }

  /**
   * Go to the next item whose name begins with what is being typed.
   *
   * @param {string} letter
   * @param {HTMLElement[]} seen
   * @param {number} at
   */
  #type(letter, seen, at) {
    const isNew = Date.now() - this.#typedAt > 700;
    this.#typed = (isNew ? "" : this.#typed) + letter.toLowerCase();
    this.#typedAt = Date.now();
    const from = at + (isNew ? 1 : 0);
    this.go([...seen.slice(from), ...seen.slice(0, from)].find((row) => {
      const item = items.get(row);
      return item instanceof Branch && item.key.toLowerCase().startsWith(this.#typed);
    }));
  }
}

let made = 0;

/** A value in the document, with its name. */
class Branch {
  /** @type {Map<string, Branch>} */
  children = new Map();
  isOpen = false;
  isContainer = false;
  size = 0;
  #limit = PAGE;
  /** @type {HTMLElement | null} */
  #group = null;
  /** @type {More | null} */
  #more = null;

  /**
   * @param {Tree} tree
   * @param {Branch | null} parent
   * @param {string} key
   * @param {any} value
   */
  constructor(tree, parent, key, value) {
    this.tree = tree;
    this.parent = parent;
    this.key = key;
    this.value = value;
    /** @type {number} */
    this.level = parent ? parent.level + 1 : 1;
    this.element = make("li", "", { role: "none" });
    this.row = make("div", "row", { role: "treeitem", tabindex: "-1", "aria-level": String(this.level) });
    this.text = make("span", "value");
    this.delta = make("span", "delta");
    this.summary = make("span", "summary");
    this.row.append(make("span", "twisty", { "aria-hidden": "true" }));
    if (parent) {
      const name = make("span", Array.isArray(parent.value) ? "index" : "key");
      name.textContent = key;
      this.row.append(name, " ");
    }
    this.row.append(this.text, this.delta, this.summary);
    this.element.append(this.row);
    items.set(this.row, this);
    this.#draw();
  }

  /** @param {any} value */
  update(value) {
    const before = this.value;
    if (value === before) return;
    this.value = value;
    const wasContainer = this.isContainer;
    this.#draw();
    if (wasContainer !== this.isContainer || Array.isArray(before) !== Array.isArray(value)) {
      this.close();
      if (!this.parent) this.open();
    }
    if (this.isOpen) this.#lay(true);
    else this.light();
    const difference = typeof before === "number" && typeof value === "number" ? value - before : 0;
    this.delta.textContent = difference ? signed(difference) : "";
  }

  /** Show that something is new here. */
  light() {
    light(this.row);
  }

  #draw() {
    const { value } = this;
    this.isContainer = typeof value === "object" && value !== null;
    this.size = this.isContainer ? Object.keys(value).length : 0;
    if (this.isContainer) {
      const count = this.size.toLocaleString("en");
      this.text.textContent = Array.isArray(value) ? `[${count}]` : `{${count}}`;
      this.text.dataset.kind = "container";
      if (this.size) this.row.setAttribute("aria-expanded", String(this.isOpen));
      else this.row.removeAttribute("aria-expanded");
      this.#summarise();
      return;
    }
    this.row.removeAttribute("aria-expanded");
    this.summary.textContent = "";
    this.text.dataset.kind = value === null ? "null" : typeof value;
    this.text.textContent = shown(value);
    if (COLOUR.test(value)) {
      const swatch = make("span", "swatch", { "aria-hidden": "true" });
      swatch.style.backgroundColor = value;
      this.text.prepend(swatch);
    }
  }

  /** Say what is in a closed branch, as far as that can be said in a line. */
  #summarise() {
    this.summary.textContent = "";
    if (this.isOpen || !this.isContainer || !this.parent) return;
    const isArray = Array.isArray(this.value);
    const parts = [];
    for (const key of Object.keys(this.value).slice(0, 6)) {
      const value = this.value[key];
      if ((typeof value === "object" && value !== null) || COLOUR.test(value)) continue;
      const text = typeof value === "string" && value.length > SUMMARY ? `${value.slice(0, SUMMARY)}…` : String(value);
      parts.push(isArray ? text : `${key} ${text}`);
    }
    this.summary.textContent = parts.join(isArray ? ", " : " · ");
  }

  /**
   * Give the members that are to be seen their elements.
   *
   * @param {boolean} isChange whether what is new is to be lit up
   */
  #lay(isChange) {
    const group = this.#group;
    if (!group) return;
    const keys = Object.keys(this.value);
    const visible = keys.slice(0, this.#limit);
    const kept = new Set(visible);
    for (const [key, child] of this.children) {
      if (kept.has(key)) continue;
      if (child.element.contains(this.tree.current)) this.#takeFocus();
      child.element.remove();
      this.children.delete(key);
      if (isChange) this.light();
    }
    let next = group.firstElementChild;
    for (const [index, key] of visible.entries()) {
      let child = this.children.get(key);
      if (child) {
        child.update(this.value[key]);
      } else {
        child = new Branch(this.tree, this, key, this.value[key]);
        this.children.set(key, child);
        if (isChange) child.light();
      }
      child.row.ariaPosInSet = String(index + 1);
      child.row.ariaSetSize = String(keys.length);
      if (child.element === next) next = next.nextElementSibling;
      else group.insertBefore(child.element, next);
    }
    const rest = keys.length - visible.length;
    if (rest > 0) {
      this.#more ??= new More(this);
      this.#more.count(Math.min(rest, PAGE), rest);
      group.append(this.#more.element);
    } else {
      if (this.#more?.row === this.tree.current) this.#takeFocus();
      this.#more?.element.remove();
    }
  }

  #takeFocus() {
    const hadFocus = this.tree.element.contains(document.activeElement);
    this.tree.focusable(this.row);
    if (hadFocus) this.row.focus();
  }

  open() {
    if (!this.isContainer || this.isOpen || !this.size) return;
    this.isOpen = true;
    this.row.setAttribute("aria-expanded", "true");
    this.#group = make("ul", "", { role: "group", id: `group-${++made}` });
    this.row.setAttribute("aria-owns", this.#group.id);
    this.#summarise();
    this.#lay(false);
    this.element.append(this.#group);
  }

  close() {
    if (!this.isOpen) return;
    if (this.#group?.contains(this.tree.current)) this.#takeFocus();
    this.isOpen = false;
    this.row.removeAttribute("aria-owns");
    if (this.isContainer && this.size) this.row.setAttribute("aria-expanded", "false");
    this.#group?.remove();
    this.#group = this.#more = null;
    this.#limit = PAGE;
    this.children.clear();
    this.#summarise();
  }

  toggle() {
    if (this.isOpen) this.close();
    else this.open();
  }

  /** Show a page more. */
  grow() {
    const first = Object.keys(this.value)[this.#limit];
    this.#limit += PAGE;
    this.#lay(false);
    this.tree.go(this.children.get(first ?? "")?.row);
  }
}

/** The item behind a long branch, which shows more of it. */
class More {
  /** @param {Branch} parent */
  constructor(parent) {
    this.parent = parent;
    this.element = make("li", "", { role: "none" });
    this.row = make("div", "row more", { role: "treeitem", tabindex: "-1", "aria-level": String(parent.level + 1) });
    this.element.append(this.row);
    items.set(this.row, this);
  }

  /**
   * @param {number} next
   * @param {number} rest
   */
  count(next, rest) {
    this.row.textContent = `Show ${next.toLocaleString("en")} more of ${rest.toLocaleString("en")}`;
  }

  toggle() {
    this.parent.grow();
  }
}

/** Until when each row is lit. @type {Map<HTMLElement, number>} */
const lit = new Map();

/**
 * Light an element up for a moment; anew if it is lit.
 *
 * @param {HTMLElement} element
 */
export function light(element) {
  // Two names for one animation: to change from one to the other begins it again.
  element.dataset.lit = element.dataset.lit === "a" ? "b" : "a";
  if (lit.size === 0) setTimeout(dim, LIT);
  lit.delete(element);
  lit.set(element, performance.now() + LIT);
}

function dim() {
  const now = performance.now();
  for (const [element, end] of lit) {
    if (end > now + 50) {
      setTimeout(dim, end - now);
      return;
    }
    delete element.dataset.lit;
    lit.delete(element);
  }
}

/**
 * Write a difference with its sign.
 *
 * @param {number} difference
 */
export function signed(difference) {
  const written = Math.abs(difference).toLocaleString("en", { maximumFractionDigits: 2 });
  return `${difference > 0 ? "+" : "−"}${written}`;
}

/** @param {unknown} value */
function shown(value) {
  if (typeof value !== "string" || value.length <= LONGEST) return JSON.stringify(value);
  return `${JSON.stringify(value.slice(0, LONGEST)).slice(0, -1)}… (${value.length.toLocaleString("en")} characters)`;
}

/**
 * @param {string} name
 * @param {string} className
 * @param {Record<string, string>} [attributes]
 */
export function make(name, className, attributes = {}) {
  const element = document.createElement(name);
  if (className) element.className = className;
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  return element;
}
