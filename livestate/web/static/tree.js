/**
 * A JSON document as a tree that is updated in place (WAI-ARIA Authoring Practices, "Tree View Pattern").
 *
 * Only the members of open branches have elements, and a long branch shows 200 members at a time. So a document of
 * 20,000 nodes costs only as much as is visible of it. Objects that are the same as in the previous state are skipped.
 *
 * @module
 */

/** Number of members of a branch that are added at a time. */
const PAGE = 200;

/** Maximum number of rows when a document is first shown. Branches are opened until then. */
const INITIAL_ROWS = 36;

/** Maximum length of a string in its own row, and in the summary of a closed branch. */
const MAX_STRING = 300;
const MAX_SUMMARY_STRING = 24;

/** Strings that are shown with a colour swatch. */
const COLOUR = /^#[0-9a-f]{6}$/i;

/** Milliseconds for which a change is highlighted. The animation in the style sheet takes as long. */
const HIGHLIGHT_TIME = 1600;

/** The item of each row, an element with the role "treeitem". @type {WeakMap<Element, Branch | MoreItem>} */
const items = new WeakMap();

/** The tree of one document. */
export class Tree {
  /** @type {Branch | null} */
  #root = null;
  /** The letters typed in quick succession. */
  #typed = "";
  #typedAt = 0;

  /** @param {HTMLElement} element with the role "tree" */
  constructor(element) {
    this.element = element;
    /** The row that the Tab key focuses. @type {HTMLElement | null} */
    this.current = null;
    element.addEventListener("keydown", (event) => this.#keyPressed(event));
    element.addEventListener("click", (event) => this.#clicked(event));
  }

  /**
   * Show the document's current state.
   *
   * @param {any} state
   */
  show(state) {
    if (this.#root) {
      this.#root.update(state);
      return;
    }
    this.#root = new Branch(this, null, "", state);
    this.element.replaceChildren(this.#root.element);
    this.setFocusable(this.#root.row);
    this.#openInitial(this.#root);
  }

  /** Remove the document. */
  clear() {
    this.#root = null;
    this.current = null;
    this.element.replaceChildren();
  }

  /**
   * Open branches, breadth first, as long as they fit.
   *
   * @param {Branch} root
   */
  #openInitial(root) {
    let rows = 1;
    const queue = [root];
    for (let branch = queue.shift(); branch; branch = queue.shift()) {
      if (!branch.isContainer || (branch !== root && rows + branch.size > INITIAL_ROWS)) continue;
      branch.open();
      rows += branch.size;
      queue.push(...branch.children.values());
    }
  }

  /**
   * Make a row the one that the Tab key focuses.
   *
   * @param {HTMLElement} row
   */
  setFocusable(row) {
    if (this.current) this.current.tabIndex = -1;
    this.current = row;
    row.tabIndex = 0;
  }

  /**
   * Focus a row.
   *
   * @param {HTMLElement | null | undefined} row
   */
  focus(row) {
    if (!row) return;
    this.setFocusable(row);
    row.focus();
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const row = /** @type {Element} */ (event.target).closest(".row");
    const item = row && items.get(row);
    // A click that ends a selection of text is not meant for the row.
    if (!item || String(getSelection())) return;
    this.focus(item.row);
    item.toggle();
  }

  /** @param {KeyboardEvent} event */
  #keyPressed(event) {
    const item = items.get(/** @type {Element} */ (event.target));
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    // In document order, so from top to bottom.
    const rows = /** @type {HTMLElement[]} */ ([...this.element.querySelectorAll(".row")]);
    const index = rows.indexOf(item.row);
    const branch = item instanceof Branch ? item : null;
    switch (event.key) {
      case "ArrowDown":
        this.focus(rows[index + 1]);
        break;
      case "ArrowUp":
        this.focus(rows[index - 1]);
        break;
      case "ArrowRight":
        if (branch?.isOpen) this.focus(rows[index + 1]);
        else branch?.open();
        break;
      case "ArrowLeft":
        if (branch?.isOpen) branch.close();
        else this.focus(item.parent?.row);
        break;
      case "Home":
        this.focus(rows[0]);
        break;
      case "End":
        this.focus(rows.at(-1));
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
        this.#typeAhead(event.key, rows, index);
    }
    event.preventDefault();
  }

  /**
   * Focus the next item whose name starts with the letters being typed.
   *
   * @param {string} letter
   * @param {HTMLElement[]} rows
   * @param {number} index of the focused row
   */
  #typeAhead(letter, rows, index) {
    const isNew = Date.now() - this.#typedAt > 700;
    this.#typed = (isNew ? "" : this.#typed) + letter.toLowerCase();
    this.#typedAt = Date.now();
    const from = index + (isNew ? 1 : 0);
    this.focus([...rows.slice(from), ...rows.slice(0, from)].find((row) => {
      const item = items.get(row);
      return item instanceof Branch && item.key.toLowerCase().startsWith(this.#typed);
    }));
  }
}

/** Number of groups so far, for their element ids. */
let groupCount = 0;

/** A value of the document with its name, and its members if it is open. */
class Branch {
  /** @type {Map<string, Branch>} */
  children = new Map();
  isOpen = false;
  isContainer = false;
  size = 0;
  /** Number of members that may be shown. */
  #limit = PAGE;
  /** @type {HTMLElement | null} */
  #group = null;
  /** @type {MoreItem | null} */
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

  /**
   * Show another value, and highlight what is different.
   *
   * @param {any} value
   */
  update(value) {
    const previous = this.value;
    if (value === previous) return;
    this.value = value;
    const wasContainer = this.isContainer;
    this.#draw();
    if (wasContainer !== this.isContainer || Array.isArray(previous) !== Array.isArray(value)) {
      this.close();
      if (!this.parent) this.open();
    }
    if (this.isOpen) this.#drawMembers(true);
    else this.highlight();
    const difference = typeof previous === "number" && typeof value === "number" ? value - previous : 0;
    this.delta.textContent = difference ? signed(difference) : "";
  }

  /** Highlight the row as changed. */
  highlight() {
    highlight(this.row);
  }

  /** Update the row. */
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
    this.text.textContent = format(value);
    if (COLOUR.test(value)) {
      const swatch = make("span", "swatch", { "aria-hidden": "true" });
      swatch.style.backgroundColor = value;
      this.text.prepend(swatch);
    }
  }

  /** Summarise the members of a closed branch in one line. */
  #summarise() {
    this.summary.textContent = "";
    if (this.isOpen || !this.isContainer || !this.parent) return;
    const isArray = Array.isArray(this.value);
    const parts = [];
    for (const key of Object.keys(this.value).slice(0, 6)) {
      const value = this.value[key];
      if ((typeof value === "object" && value !== null) || COLOUR.test(value)) continue;
      const isLong = typeof value === "string" && value.length > MAX_SUMMARY_STRING;
      const text = isLong ? `${value.slice(0, MAX_SUMMARY_STRING)}…` : String(value);
      parts.push(isArray ? text : `${key} ${text}`);
    }
    this.summary.textContent = parts.join(isArray ? ", " : " · ");
  }

  /**
   * Create, update and remove the elements of the visible members.
   *
   * @param {boolean} isChange whether to highlight members that were added or removed
   */
  #drawMembers(isChange) {
    const group = this.#group;
    if (!group) return;
    const keys = Object.keys(this.value);
    const visible = keys.slice(0, this.#limit);
    const visibleKeys = new Set(visible);
    for (const [key, child] of this.children) {
      if (visibleKeys.has(key)) continue;
      if (child.element.contains(this.tree.current)) this.#takeFocus();
      child.element.remove();
      this.children.delete(key);
      if (isChange) this.highlight();
    }
    let next = group.firstElementChild;
    for (const [index, key] of visible.entries()) {
      let child = this.children.get(key);
      if (child) {
        child.update(this.value[key]);
      } else {
        child = new Branch(this.tree, this, key, this.value[key]);
        this.children.set(key, child);
        if (isChange) child.highlight();
      }
      child.row.ariaPosInSet = String(index + 1);
      child.row.ariaSetSize = String(keys.length);
      if (child.element === next) next = next.nextElementSibling;
      else group.insertBefore(child.element, next);
    }
    const rest = keys.length - visible.length;
    if (rest > 0) {
      this.#more ??= new MoreItem(this);
      this.#more.update(Math.min(rest, PAGE), rest);
      group.append(this.#more.element);
    } else {
      if (this.#more?.row === this.tree.current) this.#takeFocus();
      this.#more?.element.remove();
    }
  }

  /** Take over the focus from a member that is being removed. */
  #takeFocus() {
    const hadFocus = this.tree.element.contains(document.activeElement);
    this.tree.setFocusable(this.row);
    if (hadFocus) this.row.focus();
  }

  open() {
    if (!this.isContainer || this.isOpen || !this.size) return;
    this.isOpen = true;
    this.row.setAttribute("aria-expanded", "true");
    this.#group = make("ul", "", { role: "group", id: `group-${++groupCount}` });
    this.row.setAttribute("aria-owns", this.#group.id);
    this.#summarise();
    this.#drawMembers(false);
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

  /** Show another page of members. */
  showMore() {
    const first = Object.keys(this.value)[this.#limit];
    this.#limit += PAGE;
    this.#drawMembers(false);
    this.tree.focus(this.children.get(first ?? "")?.row);
  }
}

/** The item at the end of a long branch that shows more members. */
class MoreItem {
  /** @param {Branch} parent */
  constructor(parent) {
    this.parent = parent;
    this.element = make("li", "", { role: "none" });
    this.row = make("div", "row more", { role: "treeitem", tabindex: "-1", "aria-level": String(parent.level + 1) });
    this.element.append(this.row);
    items.set(this.row, this);
  }

  /**
   * Update the text.
   *
   * @param {number} next number of members that are shown next
   * @param {number} rest number of members that are not shown
   */
  update(next, rest) {
    this.row.textContent = `Show ${next.toLocaleString("en")} more of ${rest.toLocaleString("en")}`;
  }

  toggle() {
    this.parent.showMore();
  }
}

/** When the highlight of each row ends, the earliest first. @type {Map<HTMLElement, number>} */
const highlighted = new Map();

/**
 * Highlight an element for a moment. If it is highlighted already, the animation starts again.
 *
 * @param {HTMLElement} element
 */
export function highlight(element) {
  // The animation has two names, because it restarts only when its name changes.
  element.dataset.highlight = element.dataset.highlight === "a" ? "b" : "a";
  if (highlighted.size === 0) setTimeout(removeHighlights, HIGHLIGHT_TIME);
  highlighted.delete(element);
  highlighted.set(element, performance.now() + HIGHLIGHT_TIME);
}

function removeHighlights() {
  const now = performance.now();
  for (const [element, end] of highlighted) {
    if (end > now + 50) {
      setTimeout(removeHighlights, end - now);
      return;
    }
    delete element.dataset.highlight;
    highlighted.delete(element);
  }
}

/**
 * Format a difference with its sign.
 *
 * @param {number} difference
 */
export function signed(difference) {
  const digits = Math.abs(difference).toLocaleString("en", { maximumFractionDigits: 2 });
  return `${difference > 0 ? "+" : "−"}${digits}`;
}

/**
 * Format a value that is not a container, shortening long strings.
 *
 * @param {unknown} value
 */
function format(value) {
  if (typeof value !== "string" || value.length <= MAX_STRING) return JSON.stringify(value);
  const start = JSON.stringify(value.slice(0, MAX_STRING)).slice(0, -1);
  return `${start}… (${value.length.toLocaleString("en")} characters)`;
}

/**
 * Create an element.
 *
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
