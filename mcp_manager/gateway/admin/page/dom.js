// Make and change elements. Text from outside only ever becomes text nodes and attribute values, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element with attributes and children; a string among the children becomes a text node. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) setAttribute(made, name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Return a picture of the page's symbols; screen readers skip it, so text must say the same. */
export function icon(name) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("class", "icon");
  picture.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  picture.append(use);
  return picture;
}

/** Show another symbol in a picture of `icon`. */
export function setIcon(picture, name) {
  setAttribute(picture.firstChild, "href", `#icon-${name}`);
}

/** Set an attribute if it is not so yet; `null` and `false` remove it, `true` sets it without a value. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const text = value === true ? "" : String(value);
  if (node.getAttribute(name) !== text) node.setAttribute(name, text);
}

/** Set the text of an element if it is not so yet, so that selections and the work of browsers are spared. */
export function setText(node, text) {
  const wanted = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Show or hide an element. */
export function show(node, isShown) {
  if (node.hidden === isShown) node.hidden = !isShown;
}

/**
 * Make `wanted` the children of `parent`, in this order, and move as few as possible.
 *
 * The child that has the focus is never moved: an element that is moved loses the focus.
 */
export function arrange(parent, wanted) {
  const kept = new Set(wanted);
  const focused = document.activeElement;
  let orphaned = null;
  for (const child of [...parent.children]) {
    if (kept.has(child)) continue;
    if (child.contains(focused)) orphaned = child.nextElementSibling ?? child.previousElementSibling;
    child.remove();
  }
  const pivot = Math.max(0, wanted.findIndex((child) => child.contains(focused)));
  if (pivot < wanted.length && wanted[pivot].parentNode !== parent) parent.append(wanted[pivot]);
  for (let at = pivot - 1; at >= 0; at -= 1) {
    if (wanted[at].nextElementSibling !== wanted[at + 1]) parent.insertBefore(wanted[at], wanted[at + 1]);
  }
  for (let at = pivot + 1; at < wanted.length; at += 1) {
    const after = wanted[at - 1].nextElementSibling;
    if (after !== wanted[at]) parent.insertBefore(wanted[at], after);
  }
  orphaned?.querySelector("a, button")?.focus();
}

/** A list of elements that stand for items: made once, then changed in place. */
export class KeyedList {
  /**
   * @param parent where they are
   * @param make makes the element of an item; returns `{node, update}`, and `update(item)` shows the item in it
   * @param head elements that stay before them
   */
  constructor(parent, make, head = []) {
    this.parent = parent;
    this.head = head;
    this.make = make;
    this.shown = new Map();
  }

  /** Show these items; `key(item)` tells which is which. */
  update(items, key) {
    const before = this.shown;
    this.shown = new Map();
    for (const item of items) {
      const id = key(item);
      const entry = before.get(id) ?? this.make(item);
      entry.update(item);
      this.shown.set(id, entry);
    }
    arrange(this.parent, [...this.head, ...[...this.shown.values()].map((entry) => entry.node)]);
  }
}
