// The fields of schemas as trees.

import { element } from "../page.js";

// Larger bounds of numbers exist against overflows alone, and tell a reader nothing.
const LARGE = 1e9;

const answer = await fetch("openapi.json");

/** The OpenAPI document of this host. */
export const spec = await answer.json();

/** A text in which code is marked by backticks. */
export function prose(text, name = "p", attributes = {}) {
  const parts = text.split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
  return element(name, attributes, ...parts);
}

/** An object of the document, or the one that it refers to. */
export function resolved(object) {
  if (!object.$ref) return object;
  return object.$ref.split("/").slice(1).reduce((place, name) => place[name], spec);
}

function typeName(schema) {
  const found = resolved(schema);
  const choices = found.anyOf || found.oneOf;
  let name = found.type || (found.enum ? "string" : found.properties || found.allOf ? "object" : "any");
  if (choices) name = choices.map(typeName).join(" or ");
  if (name === "array") name = `array of ${typeName(found.items || {})}`;
  if (found.format) name += ` (${found.format})`;
  return found.nullable ? `${name} or null` : name;
}

/** The fields of an object, or of the objects in an array: [name, schema, whether it is required] each. */
export function fieldsOf(schema) {
  const found = resolved(schema);
  if (found.allOf) return found.allOf.flatMap(fieldsOf);
  const choice = (found.anyOf || found.oneOf || []).find((each) => fieldsOf(each).length);
  if (choice) return fieldsOf(choice);
  if (found.items) return fieldsOf(found.items);
  const required = new Set(found.required || []);
  return Object.entries(found.properties || {}).map(([name, each]) => [name, each, required.has(name)]);
}

function bounds({ minimum, maximum: limit, exclusiveMinimum, default: preset }) {
  const maximum = limit < LARGE ? limit : undefined;
  const parts = [];
  if (minimum !== undefined && maximum !== undefined) parts.push(`${minimum} to ${maximum}`);
  else if (minimum !== undefined) parts.push(`${exclusiveMinimum ? "above" : "from"} ${minimum}`);
  else if (maximum !== undefined) parts.push(`to ${maximum}`);
  if (preset !== undefined) parts.push(`default ${preset}`);
  return parts.join(", ");
}

/** A line of a tree: name, type, bounds, description, permitted values, and the inner fields, folded. */
export function field(name, schema, isRequired, description) {
  const found = resolved(schema);
  const muted = (text) => text && element("span", { class: "muted" }, text);
  const text = description || schema.description || found.description;
  const values = (found.enum || []).map((value) => element("code", {}, String(value)));
  const inner = fieldsOf(schema);
  return element(
    "li", {},
    element(
      "div", { class: "row" },
      element("code", { class: "name" }, name),
      muted(typeName(schema)),
      isRequired && element("span", { class: "required" }, "required"),
      muted(bounds(found)),
    ),
    text && prose(text),
    values.length && element("div", { class: "row" }, "One of", ...values),
    inner.length && folded(`${inner.length} field${inner.length > 1 ? "s" : ""}`, () => tree(schema)),
  );
}

/** The fields of a schema. */
export function tree(schema) {
  return element("ul", { class: "fields" }, ...fieldsOf(schema).map((each) => field(...each)));
}

/** An element that can be opened, whose content is made when it is. */
export function folded(title, make) {
  const made = element("details", { class: "folded" }, element("summary", {}, title));
  made.addEventListener("toggle", () => made.append(make()), { once: true });
  return made;
}
