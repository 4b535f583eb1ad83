// Shows the OpenAPI document of this host. Loads nothing from elsewhere.

import { base, copyButton, element } from "../page.js";
import { command } from "./examples.js";
import { field, fieldsOf, folded, prose, resolved, spec, tree } from "./fields.js";

const byId = (id) => document.getElementById(id);
const [main, links, contents, filter, model] = ["main", "links", "contents", "filter", "model"].map(byId);
const wide = matchMedia("(min-width: 56.01rem)");
// The routes, for the filter: { section, link, text, group, isShown }.
const entries = [];

// One route

const heading = (text, note) => element("h4", {}, text, note && element("span", { class: "muted" }, note));
const small = (...children) => element("p", { class: "small muted" }, ...children);
const linked = (id, ...children) => element("a", { href: `#${id}` }, ...children);
const badge = (text, kind = "") => element("span", { class: `badge ${kind}` }, text);

function access(operation) {
  const names = operation.security.flatMap(Object.keys);
  if (!names.length) return small("No key is needed.");
  const kind = names.includes("admin") ? "the administrator's key" : "a client's key";
  return small("Authentication: ", linked("authentication", kind));
}

const PLACES = { path: "Path parameters", query: "Query parameters", header: "Headers" };

function parameterLists(operation) {
  return Object.entries(PLACES).map(([place, title]) => {
    const found = operation.parameters.filter((each) => each.in === place);
    const rows = found.map((each) => field(each.name, each.schema, each.required, each.description));
    return found.length && element("div", {}, heading(title), element("ul", { class: "fields" }, ...rows));
  });
}

function bodyTree(operation) {
  return Object.entries(operation.requestBody?.content || {}).map(([media, { schema }]) => {
    const found = resolved(schema);
    return element(
      "div", {},
      heading("Request body", media),
      found.description && prose(found.description, "p", { class: "small" }),
      tree(schema),
      found.additionalProperties === true && small("Further fields pass to the provider."),
    );
  });
}

function success([status, each]) {
  const media = Object.entries(each.content || {});
  const described = media.find(([, { schema }]) => fieldsOf(schema).length);
  const types = media.map(([name]) => name).join(", ");
  return element(
    "div", {},
    element("div", { class: "answer" }, badge(status, "good"), prose(each.description, "span")),
    described ? folded(types, () => tree(described[1].schema)) : types && small(types),
  );
}

function answers(operation) {
  const all = Object.entries(operation.responses);
  const errors = all.filter(([, each]) => each.$ref);
  const links = errors.map(([status]) => element("a", { class: "badge", href: `#error-${status}` }, status));
  const schema = errors.length && resolved(errors[0][1]).content["application/json"].schema;
  return element(
    "div", { class: "stack answers" },
    heading("Answers"),
    ...all.filter(([, each]) => !each.$ref).map(success),
    errors.length && element("div", { class: "row small" }, linked("errors", "Errors"), ...links),
    schema && !schema.$ref.endsWith("/Error") && folded("Fields of errors", () => tree(schema)),
  );
}

function sample(method, path, operation) {
  const parts = command(base, method, path, operation).split("\0");
  const chosen = () => element("span", { "data-model": true }, model.value || "MODEL");
  const code = element("code", {}, ...parts.map((part, index) => (index % 2 ? chosen() : part)));
  const caption = element("figcaption", {}, "Shell", copyButton());
  return element("figure", { class: "code sample" }, caption, element("pre", { tabindex: "0" }, code));
}

function operationSection(method, path, operation) {
  const isCall = operation.parameters.some((each) => each.$ref);
  const summary = element(
    "summary", {},
    element("span", { class: `method ${method}` }, method.toUpperCase()),
    element("code", {}, path),
    element("span", { class: "muted" }, operation.summary),
  );
  const facts = () => element(
    "div", { class: "stack" },
    operation.description && prose(operation.description),
    access(operation),
    ...parameterLists(operation),
    isCall && small("Headers: ", linked("call-headers", "those of all calls of a model")),
    ...bodyTree(operation),
    answers(operation),
  );
  const made = element("details", { class: "operation", id: operation.operationId }, summary);
  // The content is made when it is wanted: that of all routes takes longer than all else on the page.
  made.addEventListener("toggle", () => {
    made.append(element("div", { class: "facts" }, facts(), sample(method, path, operation)));
  }, { once: true });
  summary.addEventListener("click", () => history.replaceState(null, "", `#${made.id}`));
  return made;
}

// What all routes share

function table(titles, rows) {
  const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
  const parts = [element("thead", {}, head), element("tbody", {}, ...rows)];
  return element("div", { class: "scroll" }, element("table", {}, ...parts));
}

function row(attributes, ...cells) {
  return element("tr", attributes, ...cells.map((cell) => element("td", {}, cell)));
}

function section(id, title, ...children) {
  const heading = element("h2", {}, element("a", { class: "anchor", href: `#${id}` }, title));
  return element("section", { class: "stack", id }, heading, ...children);
}

function introduction() {
  const { securitySchemes, parameters, responses, schemas } = spec.components;
  const schemes = Object.values(securitySchemes).map((scheme) =>
    row({}, element("code", {}, scheme.name || "authorization"), prose(scheme.description, "span")));
  const headers = Object.values(parameters).map((each) =>
    field(each.name, each.schema, false, each.description));
  const errors = Object.entries(responses).flatMap(([name, each]) => {
    const status = /^Error(\d+)$/.exec(name)?.[1];
    return status ? [row({ id: `error-${status}` }, badge(status), prose(each.description, "span"))] : [];
  });
  return [
    section(
      "authentication", "Authentication",
      prose(
        "The examples read keys from the environment: `export SANIC_PROXY_KEY=...`, and " +
        "`SANIC_PROXY_ADMIN_KEY` for administrators.",
      ),
      table(["Header", "Value"], schemes),
    ),
    section(
      "call-headers", "Headers of all calls of a model",
      element("ul", { class: "fields" }, ...headers),
    ),
    section(
      "errors", "Errors",
      prose(
        "`code` names the failure, and `message` says what to do. `x-should-retry: false` marks errors " +
        "that a repetition does not change. Anthropic's and Google's APIs have errors of their own shapes.",
      ),
      folded("Fields of errors", () => tree(schemas.Error)),
      table(["Status", "Meaning"], errors),
    ),
  ];
}

// Contents and filter

function addLink(list, id, ...children) {
  const link = linked(id, ...children);
  list.append(element("li", {}, link));
  return link;
}

function searchText(method, path, operation) {
  const schemas = Object.values(operation.requestBody?.content || {}).map(({ schema }) => schema);
  const parameters = operation.parameters.map((each) => resolved(each).name);
  const fields = schemas.flatMap(fieldsOf).map(([name]) => name);
  const { summary, description = "", tags } = operation;
  return [method, path, summary, description, ...tags, ...parameters, ...fields].join(" ").toLowerCase();
}

/** The routes of a tag, in the page and in the contents. */
function group(tag) {
  const list = element("ul", { class: "plain" });
  const shown = section(tag.name.toLowerCase().replace(/\W+/g, "-"), tag.name, prose(tag.description));
  const routes = element("div", { class: "operations" });
  const made = [shown, element("div", {}, element("h2", {}, tag.name), list)];
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      if (operation.tags[0] !== tag.name) continue;
      const part = operationSection(method, path, operation);
      const name = element("span", { class: `method ${method}` }, method === "delete" ? "DEL" : method);
      const link = addLink(list, part.id, name, operation.summary);
      routes.append(part);
      entries.push({ section: part, link, text: searchText(method, path, operation), group: made });
    }
  }
  shown.append(routes);
  links.append(made[1]);
  return shown;
}

function applyFilter() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const entry of entries) {
    entry.isShown = words.every((word) => entry.text.includes(word));
    entry.link.parentElement.hidden = entry.section.hidden = !entry.isShown;
  }
  for (const { group } of entries) {
    const isEmpty = !entries.some((entry) => entry.group === group && entry.isShown);
    for (const part of group) part.hidden = isEmpty;
  }
  for (const part of document.querySelectorAll("[data-intro]")) part.hidden = words.length > 0;
  const found = entries.filter((entry) => entry.isShown).length;
  byId("matches").textContent = words.length ? `${found} of ${entries.length} routes` : "";
}

function onFilterKey(event) {
  const first = entries.find((entry) => entry.isShown !== false);
  if (event.key === "Escape") {
    filter.value = "";
    applyFilter();
  } else if (event.key === "Enter" && first) {
    first.link.click();
  } else if (event.key === "ArrowDown" && first) {
    event.preventDefault();
    first.link.focus();
  }
}

function onLinkKey(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const shown = [...links.querySelectorAll("a")].filter((link) => link.offsetParent);
  (shown[shown.indexOf(document.activeElement) + step] || filter).focus();
}

function onKey(event) {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, textarea")) return;
  event.preventDefault();
  contents.open = true;
  filter.focus();
}

/** Show what the URL's fragment names: a route is opened, and marked in the contents. */
function showTarget() {
  const id = decodeURIComponent(location.hash.slice(1));
  const target = id && byId(id);
  links.querySelector("[aria-current]")?.removeAttribute("aria-current");
  if (!target) return;
  if (target.matches("details")) {
    target.open = true;
    target.querySelector("summary").focus({ preventScroll: true });
  }
  const link = links.querySelector(`a[href="#${CSS.escape(id)}"]`);
  link?.setAttribute("aria-current", "true");
  if (wide.matches) link?.scrollIntoView({ block: "center", behavior: "instant" });
  target.scrollIntoView();
}

// The model in the examples

/** Show the reader's model. The field's pattern permits nothing that a shell or JSON reads otherwise. */
function showModel() {
  if (!model.checkValidity()) return;
  for (const place of document.querySelectorAll("[data-model]")) place.textContent = model.value || "MODEL";
}

/** Offer the models of this host, and choose one. */
async function offerModels() {
  const listed = await fetch("v1/models");
  if (!listed.ok) return;
  const names = (await listed.json()).data.map((each) => each.id);
  byId("models").append(...names.map((name) => element("option", { value: name })));
  model.value ||= names[0] || "";
  showModel();
}

document.title = `${spec.info.title} ${spec.info.version}: API reference`;
byId("about").replaceWith(prose(spec.info.description, "p", { class: "lead" }));
const shared = introduction();
const list = element("ul", { class: "plain", "data-intro": true });
for (const part of shared) {
  part.dataset.intro = "";
  addLink(list, part.id, part.querySelector("h2").textContent);
}
links.append(list);
main.append(...shared, ...spec.tags.map(group));
contents.open = wide.matches;
wide.addEventListener("change", () => { contents.open = wide.matches; });
links.addEventListener("click", () => { contents.open = wide.matches; });
links.addEventListener("keydown", onLinkKey);
filter.addEventListener("input", applyFilter);
filter.addEventListener("keydown", onFilterKey);
document.addEventListener("keydown", onKey);
model.addEventListener("input", showModel);
window.addEventListener("hashchange", showTarget);
if (location.hash) showTarget();
else entries[0].section.open = true;
if ("open" in document.body.dataset) await offerModels();
