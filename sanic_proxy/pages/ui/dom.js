// Elements, and the few patterns that several views share. All text becomes text nodes: nothing here parses
// markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element. Attributes that are functions are listeners (`onclick`), booleans are present or absent,
 * and null leaves an attribute out. Children that are null or false are left out; others that are no nodes
 * become text.
 * @param {string} name
 * @param {Record<string, unknown>} [attributes]
 * @param {...unknown} children
 * @returns {HTMLElement}
 */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same for SVG. @returns {SVGElement} */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
  node.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

/** Set a node's text, if it is another one: a live region would announce the same text again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Text from outside: isolated, so that characters of right-to-left scripts cannot reorder what is around it. */
export function foreign(text, attributes = {}) {
  return el("bdi", { class: "foreign", ...attributes }, text);
}

/** A badge; `tone` is good, warn, bad, info or nothing. */
export function badge(text, tone = "", attributes = {}) {
  return el("span", { class: `badge ${tone}`, ...attributes }, text);
}

/** An icon of the page's set: paths of a 24 x 24 grid, drawn in the colour of the text. */
export function icon(path) {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: path }));
}

/** A card with a title; `aside` stands on the title's right. */
export function card(title, aside, ...content) {
  return el("section", { class: "card" }, el("header", {}, el("h2", {}, title), aside), content);
}

/** What a list shows while it is empty. */
export function empty(title, ...hint) {
  return el(
    "div",
    { class: "empty" },
    el("strong", {}, title),
    hint.length > 0 && el("p", { class: "muted" }, hint),
  );
}

/**
 * A table that can be scrolled; on narrow screens its rows are cards, if `kind` is "cards".
 * @param {[string, string?][]} columns header cells: their text and class
 */
export function table(caption, columns, body, kind = "") {
  return el(
    "div",
    { class: `scroll ${kind}`, tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", { class: "hidden" }, caption),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          columns.map(([text, kind]) => el("th", { scope: "col", class: kind ?? null }, text)),
        ),
      ),
      body,
    ),
  );
}

/** The cells of a row, with the names of their columns for cards. */
export function labelled(columns, cells) {
  cells.forEach((cell, place) => (cell.dataset.label = columns[place][0]));
  return cells;
}

/**
 * Radio buttons in a row, of which one is chosen.
 * @param {[string, string][]} choices value and label of each
 */
export function segments(legend, name, choices, value, onchange) {
  return el(
    "fieldset",
    { class: "segments" },
    el("legend", { class: "hidden" }, legend),
    choices.map(([choice, label]) =>
      el(
        "label",
        {},
        el("input", {
          type: "radio",
          name,
          value: choice,
          checked: choice === value,
          onchange: () => onchange(choice),
        }),
        el("span", {}, label),
      ),
    ),
  );
}

/** A labelled input. */
export function field(label, input, hint) {
  return el("label", { class: "field" }, label, input, hint && el("small", {}, hint));
}

/** Terms and their values; entries without a value are left out. @param {[string, unknown][]} entries */
export function facts(entries) {
  const known = entries.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el(
    "dl",
    { class: "facts" },
    known.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))),
  );
}

/** A button that copies a text, and says so. */
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "copy", onclick: copy }, label);
  async function copy() {
    try {
      await navigator.clipboard.writeText(text());
      say("Copied to the clipboard");
    } catch {
      say("The browser does not allow copying here: select the text instead", "bad");
    }
  }
  return button;
}

/** Show a message for some seconds. It is in a live region, so screen readers announce it. */
export function say(text, tone = "good") {
  const note = el("div", { class: `notice toast ${tone}` }, text);
  document.getElementById("messages").append(note);
  setTimeout(() => note.remove(), 6000);
}

/**
 * A modal dialog. The browser keeps the focus inside, closes it with Escape, and returns the focus. `build`
 * gets a function that closes the dialog. Resolves with what that was called with; undefined after Escape.
 */
export function dialog(title, build) {
  return new Promise((resolve) => {
    let result;
    const close = (value) => {
      result = value;
      node.close();
    };
    const node = el(
      "dialog",
      { "aria-labelledby": "dialog-title", onclose: () => (node.remove(), resolve(result)) },
      el("h2", { id: "dialog-title" }, title),
      build(close),
    );
    document.body.append(node);
    node.showModal();
  });
}

/** Ask before something is done. @returns {Promise<boolean>} */
export async function confirmed(title, text, action, tone = "danger") {
  const agreed = await dialog(title, (close) =>
    el(
      "form",
      { method: "dialog", class: "stack" },
      el("p", {}, text),
      el(
        "div",
        { class: "row end" },
        el("button", { type: "button", onclick: () => close(false) }, "Cancel"),
        el("button", { type: "button", class: tone, autofocus: true, onclick: () => close(true) }, action),
      ),
    ),
  );
  return agreed === true;
}

/**
 * Keep a list of nodes equal to a list of items. Nodes of items that stay are kept and updated, so that
 * neither the focus nor a selection is lost while the list changes beneath them.
 * @param {Element} parent
 * @param {(item: any) => string|number} keyOf
 * @param {(item: any) => {node: Element, update?: (item: any) => void}} make
 */
export function keyedList(parent, keyOf, make) {
  let known = new Map();
  return (items) => {
    const next = new Map();
    let place = known.values().next().value?.node ?? null; // what stands before the list's nodes is not part of it
    for (const item of items) {
      const key = keyOf(item);
      const entry = known.get(key) ?? make(item);
      entry.update?.(item);
      next.set(key, entry);
      if (entry.node === place) place = place.nextElementSibling;
      else parent.insertBefore(entry.node, place);
    }
    for (const [key, entry] of known) if (!next.has(key)) entry.node.remove();
    known = next;
  };
}
