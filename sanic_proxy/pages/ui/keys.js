// Keys made at run time: who has one, what it may use, what it has spent.

import { call, get } from "./api.js";
import {
  badge,
  confirmed,
  copyButton,
  dialog,
  el,
  empty,
  field,
  foreign,
  labelled,
  say,
  table,
} from "./dom.js";
import * as format from "./format.js";

const LIMIT = 500;
const TONES = { active: "good", revoked: "bad", expired: "warn", deleted: "" };
const STATES = { revoked: "blocked" };
const PERIODS = ["day", "week", "month", "total"];

export function show(root, { parameters, remember }) {
  let filter = parameters.get("name") ?? "";
  let found = { data: [], total: 0 };
  let spent = new Map();
  const columns = [
    ["Name"],
    ["State"],
    ["Models"],
    ["Limits"],
    ["Budget"],
    ["Spent", "number"],
    ["Expires"],
    ["Actions"],
  ];
  const rows = el("tbody", {});
  const list = table("Keys", columns, rows, "cards");
  const nothing = empty(
    "No keys",
    "Create one for each program or person: it can have limits of its own, and be blocked at once.",
  );
  const more = el("p", { class: "muted small" });
  root.append(
    el(
      "div",
      { class: "row filters" },
      field("Name", el("input", { type: "search", value: filter, oninput: search })),
      el("button", { type: "button", class: "primary", onclick: create }, "Create key"),
    ),
    el("section", { class: "card" }, nothing, list, more),
    el("p", { class: "muted small" }, "Clients of the settings file are not listed: they are changed there."),
  );

  function search(event) {
    filter = event.target.value;
    remember({ name: filter });
    update();
  }

  function update() {
    const shown = found.data.filter((key) =>
      `${key.name} ${key.key}`.toLowerCase().includes(filter.toLowerCase()),
    );
    nothing.hidden = shown.length > 0;
    list.hidden = shown.length === 0;
    rows.replaceChildren(...shown.map(row));
    more.textContent =
      found.total > found.data.length
        ? `The latest ${format.count(found.data.length)} of ${format.count(found.total)} keys.`
        : "";
  }

  async function load() {
    try {
      const [keys, usage] = await Promise.all([get(`admin/keys?limit=${LIMIT}`), get("admin/usage?by=key")]);
      found = keys;
      spent = new Map(usage.data.map((sum) => [sum.client_id, sum.usd]));
    } catch (error) {
      say(error.message, "bad");
    }
    update();
  }

  function row(key) {
    const name = key.name || key.key;
    const isBlocked = key.status === "revoked";
    const action = (text, run, tone = "") =>
      el(
        "button",
        { type: "button", class: `tiny ${tone}`, onclick: run },
        text,
        el("span", { class: "hidden" }, ` ${name}`),
      );
    const cells = [
      el("td", { class: "model" }, foreign(key.name || "unnamed"), el("code", { class: "served" }, key.key)),
      el("td", {}, badge(STATES[key.status] ?? key.status, TONES[key.status])),
      el(
        "td",
        {},
        key.models.length > 0
          ? key.models.map((model) => el("div", {}, foreign(model)))
          : el("span", { class: "muted" }, "all"),
      ),
      el("td", {}, limitsOf(key)),
      el(
        "td",
        {},
        key.budget.length > 0
          ? key.budget.map((each) => el("div", { class: "nowrap" }, budgetText(each)))
          : el("span", { class: "muted" }, "none"),
      ),
      el("td", { class: "number" }, format.usd(spent.get(key.id) ?? 0)),
      el(
        "td",
        {},
        key.expires
          ? el("span", { title: format.dateTime(key.expires) }, format.day(key.expires))
          : el("span", { class: "muted" }, "never"),
      ),
      el(
        "td",
        { class: "wide" },
        el(
          "div",
          { class: "row actions" },
          action("Edit", () => edit(key)),
          action(isBlocked ? "Unblock" : "Block", () => block(key, name, !isBlocked)),
          action("Delete", () => remove(key, name), "danger"),
          el(
            "a",
            { class: "button tiny", href: `#/usage?key=${encodeURIComponent(key.id)}` },
            "Usage",
            el("span", { class: "hidden" }, ` of ${name}`),
          ),
        ),
      ),
    ];
    return el("tr", {}, labelled(columns, cells));
  }

  async function create() {
    const made = await keyDialog("Create key", "Create", null, (fields) =>
      call("POST", "admin/keys", fields),
    );
    if (!made) return;
    await load();
    await showSecret(made);
  }

  async function edit(key) {
    const changed = await keyDialog(`Edit ${key.name || key.key}`, "Save", key, (fields) =>
      call("PATCH", `admin/keys/${key.id}`, fields),
    );
    if (changed) await done(`${changed.name || changed.key} has been changed`);
  }

  async function block(key, name, isBlocked) {
    const text = `Requests with the key of ${name} are refused within a second, in all workers, until it is unblocked.`;
    if (isBlocked && !(await confirmed("Block this key?", text, "Block"))) return;
    await attempt(
      () => call("PATCH", `admin/keys/${key.id}`, { blocked: isBlocked }),
      `${name} is ${isBlocked ? "blocked" : "unblocked"}`,
    );
  }

  async function remove(key, name) {
    const text = `The key of ${name} stops working and cannot be brought back. What it has spent stays in the accounts.`;
    if (!(await confirmed("Delete this key?", text, "Delete"))) return;
    await attempt(() => call("DELETE", `admin/keys/${key.id}`), `${name} has been deleted`);
  }

  async function attempt(run, text) {
    try {
      await run();
      await done(text);
    } catch (error) {
      say(error.message, "bad");
    }
  }

  async function done(text) {
    await load();
    say(text);
  }

  load();
}

function limitsOf(key) {
  const limits = [
    [key.rpm, "requests/min"],
    [key.tpm, "tokens/min"],
    [key.concurrent, "at once"],
  ].filter(([value]) => value !== null);
  if (limits.length === 0) return el("span", { class: "muted" }, "none");
  return limits.map(([value, unit]) => el("div", { class: "nowrap" }, `${format.short(value)} ${unit}`));
}

const budgetText = ({ usd, per }) => `${format.usd(usd)} ${per === "total" ? "in all" : `per ${per}`}`;

/** The key itself is in this one answer alone. */
function showSecret(made) {
  return dialog("The key has been created", (close) =>
    el(
      "div",
      { class: "stack" },
      el("p", {}, "Copy it now: it is not stored, and cannot be shown again."),
      el(
        "figure",
        { class: "code" },
        el(
          "figcaption",
          {},
          el("bdi", {}, made.name || "Key"),
          copyButton(() => made.secret),
        ),
        el("pre", {}, el("code", { id: "secret" }, made.secret)),
      ),
      el(
        "div",
        { class: "row end" },
        el("button", { type: "button", class: "primary", onclick: () => close(true) }, "Done"),
      ),
    ),
  );
}

/**
 * Ask for a key's rules, and save them with `save`, whose errors are shown in the dialog.
 * Resolves with what `save` answered; undefined if it was given up.
 */
function keyDialog(title, action, key, save) {
  const first = key?.budget[0];
  const value = (name) => key?.[name] ?? "";
  const number = (name, step = "1") =>
    el("input", { type: "number", name, min: step, step, value: value(name) });
  const list = (name) => el("input", { name, value: (key?.[name] ?? []).join(", "), autocomplete: "off" });
  const alert = el("p", { class: "bad-text", role: "alert" });
  return dialog(title, (close) => {
    const form = el(
      "form",
      { class: "stack", onsubmit: submit },
      field(
        "Name",
        el("input", {
          name: "name",
          value: value("name"),
          autocomplete: "off",
          maxlength: 255,
          autofocus: true,
        }),
      ),
      field("Models", list("models"), "Names or patterns such as groq/*, with commas. Empty: all."),
      el(
        "div",
        { class: "pair" },
        field(
          "Budget in US dollars",
          el("input", { type: "number", name: "usd", min: 0, step: "any", value: first?.usd ?? "" }),
        ),
        field("Period", periods(first?.per ?? "month")),
      ),
      el(
        "div",
        { class: "triple" },
        field("Requests per minute", number("rpm")),
        field("Tokens per minute", number("tpm")),
        field("Requests at once", number("concurrent")),
      ),
      field(
        "Expires",
        el("input", { type: "datetime-local", name: "expires", value: localTime(key?.expires) }),
      ),
      el(
        "details",
        {},
        el("summary", {}, "More"),
        el(
          "div",
          { class: "stack more" },
          field("Endpoints", list("endpoints"), "Such as /chat/completions, with commas. Empty: all."),
          field(
            "Team",
            el("input", { name: "team", value: value("team"), autocomplete: "off" }),
            "A [teams.NAME] table of the settings.",
          ),
          el(
            "div",
            { class: "pair" },
            field("Requests of an agent's session", number("max_requests")),
            field("US dollars of an agent's session", number("max_cost", "any")),
          ),
        ),
      ),
      check("strict", first?.strict, "Never exceed the budget: requests reserve the most that they can cost"),
      check("ui", key?.ui, "May log in here and see its own usage"),
      alert,
      el(
        "div",
        { class: "row end" },
        el("button", { type: "button", onclick: () => close() }, "Cancel"),
        el("button", { class: "primary" }, action),
      ),
    );

    async function submit(event) {
      event.preventDefault();
      const button = form.querySelector("button.primary");
      button.disabled = true;
      alert.textContent = "";
      try {
        close(await save(changes(form, key)));
      } catch (error) {
        alert.textContent = error.message;
        button.disabled = false;
      }
    }
    return form;
  });
}

const check = (name, checked, text) =>
  el("label", { class: "check" }, el("input", { type: "checkbox", name, checked: Boolean(checked) }), text);
const periods = (chosen) =>
  el(
    "select",
    { name: "per" },
    PERIODS.map((per) =>
      el("option", { value: per, selected: per === chosen }, per === "total" ? "in all" : `per ${per}`),
    ),
  );

/** The rules of the form, as far as they differ from those of `key`; null removes one. */
function changes(form, key) {
  const { elements } = form;
  const names = (name) =>
    elements[name].value
      .split(",")
      .map((text) => text.trim())
      .filter(Boolean);
  const number = (name) => (elements[name].value === "" ? null : Number(elements[name].value));
  const budget =
    number("usd") === null
      ? []
      : [{ ...key?.budget[0], usd: number("usd"), per: elements.per.value, strict: elements.strict.checked }];
  const rules = {
    name: elements.name.value.trim(),
    models: names("models"),
    endpoints: names("endpoints"),
    budget: [...budget, ...(key?.budget.slice(1) ?? [])],
    rpm: number("rpm"),
    tpm: number("tpm"),
    concurrent: number("concurrent"),
    max_requests: number("max_requests"),
    max_cost: number("max_cost"),
    team: elements.team.value.trim() || null,
    ui: elements.ui.checked || null,
    // A time that was not touched keeps its seconds.
    expires:
      elements.expires.value === localTime(key?.expires)
        ? (key?.expires ?? null)
        : elements.expires.value
          ? new Date(elements.expires.value).toISOString()
          : null,
  };
  const old = key === null ? {} : { ...key, ui: key.ui || null };
  const same = (name, value) =>
    JSON.stringify(value) === JSON.stringify(old[name] ?? (Array.isArray(value) ? [] : null));
  const differ = Object.entries(rules).filter(
    ([name, value]) => !same(name, value) && !(name === "name" && value === "" && key === null),
  );
  return Object.fromEntries(
    differ.map(([name, value]) => [name, Array.isArray(value) && value.length === 0 ? null : value]),
  );
}

/** A time as an input for local times has it. */
function localTime(iso) {
  if (!iso) return "";
  const date = new Date(iso);
  return new Date(date.getTime() - 60_000 * date.getTimezoneOffset()).toISOString().slice(0, 16);
}
