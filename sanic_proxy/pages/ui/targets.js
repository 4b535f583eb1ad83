// The targets: which are in use, how fast they are, what went wrong, and switches for them.

import { call, get } from "./api.js";
import { bar } from "./charts.js";
import { badge, card, confirmed, el, empty, field, foreign, keyedList, labelled, say, table } from "./dom.js";
import * as format from "./format.js";
import { follow } from "./live.js";

const EVERY_MS = 5000;

export function show(root, { live, parameters, remember }) {
  let filter = parameters.get("target") ?? "";
  let found = { targets: [], off: {} };
  const columns = [
    ["Target"],
    ["State"],
    ["Last error"],
    ["First content", "number"],
    ["In flight", "number"],
    ["Requests", "number"],
    ["Cached", "number"],
    ["Limits left"],
    [""],
  ];
  const rows = el("tbody", {});
  const list = table("Targets", columns, rows, "cards");
  const nothing = empty(
    "No targets yet",
    "A target appears with its first request. Those of [models.NAME] tables are known at once.",
  );
  const off = el("div", { hidden: true });
  root.append(
    el(
      "div",
      { class: "row filters" },
      field("Target", el("input", { type: "search", value: filter, oninput: search })),
    ),
    off,
    el("section", { class: "card" }, nothing, list),
  );
  const showRows = keyedList(rows, (target) => `${target.target} ${target.endpoint}`, targetRow);

  function search(event) {
    filter = event.target.value;
    remember({ target: filter });
    update();
  }

  function update() {
    const shown = found.targets.filter((target) =>
      target.target.toLowerCase().includes(filter.toLowerCase()),
    );
    nothing.hidden = shown.length > 0;
    list.hidden = shown.length === 0;
    showRows(shown.map((target) => ({ ...target, off: switchedOff(target, found.off) })));
    // Keys and whole providers can be off as well, by the API.
    const names = Object.keys(found.off).filter(
      (name) => !found.targets.some((target) => switchedOff(target, found.off) === name),
    );
    off.hidden = names.length === 0;
    off.replaceChildren(
      names.length > 0
        ? card("Also switched off", null, el("ul", { class: "plain stack" }, names.map(offRow)))
        : "",
    );
  }

  function offRow(name) {
    return el(
      "li",
      { class: "row" },
      foreign(name),
      el("button", { type: "button", class: "tiny", onclick: () => turn(name, "on") }, "Switch on"),
    );
  }

  async function load() {
    try {
      found = await get("admin/targets");
      update();
    } catch (error) {
      if (error.status !== 0) say(error.message, "bad"); // that the connection is lost is shown already
    }
  }

  async function turn(name, to) {
    if (to === "off") {
      const text = `Requests for ${name} go to other targets of their models; where there are none, they are refused. The switch holds in all workers and over restarts.`;
      if (!(await confirmed("Switch off this target?", text, "Switch off"))) return;
    }
    try {
      await call("POST", `admin/targets/${encodeURIComponent(name)}/${to}`);
      say(`${name} is switched ${to}`);
    } catch (error) {
      say(error.message, "bad");
    }
    await load();
  }

  function targetRow() {
    const node = el("tr", {});
    let shown = "";
    function update(target) {
      // The button keeps the focus while its row stays the same.
      const text = JSON.stringify(target);
      if (text === shown) return;
      shown = text;
      const hasFocus = node.contains(document.activeElement);
      const button = el(
        "button",
        {
          type: "button",
          class: "tiny",
          onclick: () => turn(target.off ?? target.target, target.off ? "on" : "off"),
        },
        target.off ? "Switch on" : "Switch off",
        el("span", { class: "hidden" }, ` ${target.off ?? target.target}`),
      );
      node.replaceChildren(...labelled(columns, [...cells(target), el("td", { class: "number" }, button)]));
      if (hasFocus) button.focus();
    }
    return { node, update };
  }

  load();
  const timer = setInterval(load, EVERY_MS);
  const unfollow = follow(live, { target: load });
  return () => (clearInterval(timer), unfollow());
}

/** What of the target is switched off: itself, its key or its provider; null: nothing. */
function switchedOff(target, off) {
  const provider = target.target.split("/")[0];
  return [target.target, provider, provider.split("#")[0]].find((name) => name in off) ?? null;
}

function cells(target) {
  return [
    el(
      "td",
      { class: "model" },
      foreign(target.target),
      el("span", { class: "served" }, target.endpoint.replace(/^POST /, "")),
    ),
    el("td", { class: "state" }, state(target)),
    el("td", { class: "error-text" }, lastError(target) ?? el("span", { class: "muted" }, "none")),
    el("td", { class: "number" }, firstContent(target)),
    el("td", { class: "number" }, format.count(target.in_flight)),
    el(
      "td",
      { class: "number" },
      format.count(target.requests),
      target.failures > 0 &&
        el("span", { class: "part bad-text" }, `${format.count(target.failures)} failed`),
    ),
    el("td", { class: "number" }, format.share(target.cached_share)),
    el("td", {}, limits(target.rate_limit)),
  ];
}

function state({ target, off, circuit, key_circuit: key, rate_limit: limit }) {
  if (off)
    return [badge("switched off", "warn"), off !== target && el("span", { class: "part" }, foreign(off))];
  const broken = [circuit, key].find((each) => each && each.state !== "closed");
  if (broken) {
    const text =
      broken === key
        ? `key's circuit ${format.words(broken.state)}`
        : `circuit ${format.words(broken.state)}`;
    return [badge(text, broken.state === "open" ? "bad" : "warn"), retry(broken.retry_in_s)];
  }
  if (limit?.retry_in_s) return [badge("rate limited", "warn"), retry(limit.retry_in_s)];
  return badge("in use", "good");
}

const retry = (seconds) =>
  seconds > 0 && el("span", { class: "part" }, `retry in ${format.duration(1000 * seconds)}`);

/** The last failure in any worker: its text, its code and its time; null where there was none. */
export function lastError({ last_error: error }) {
  if (!error) return null;
  const title = format.dateTime(error.time);
  return [
    foreign(error.message || error.code),
    el("span", { class: "part", title }, foreign(error.code), ` · ${format.ago(error.time)}`),
  ];
}

/** The median and the 95th percentile of the last minutes; without streams in these, what is expected. */
function firstContent({ first_content_percentiles_ms: times, first_content_ms: expected }) {
  if (!times || times.p50 === null)
    return [format.duration(expected), expected && el("span", { class: "part" }, "expected")];
  return [format.duration(times.p50), el("span", { class: "part" }, `p95 ${format.duration(times.p95)}`)];
}

/** What providers say is left of their limits: "x-ratelimit-remaining-requests" is called requests. */
function limits(limit) {
  const left = Object.entries(limit?.left ?? {});
  if (left.length === 0) return el("span", { class: "muted" }, "–");
  return left.map(([name, quota]) =>
    el(
      "div",
      { class: "limit" },
      el(
        "span",
        {},
        `${format.short(quota.left)} of ${format.short(quota.limit)} ${name.replace(/^.*remaining-/, "")}`,
      ),
      bar(quota.left / quota.limit, quota.left < 0.1 * quota.limit ? "bad-bar" : "good-bar"),
    ),
  );
}
