// What the proxy does at this moment, over all workers.

import { get } from "./api.js";
import { bar, sparkline } from "./charts.js";
import { badge, card, el, empty, foreign, keyedList, setText, table } from "./dom.js";
import * as format from "./format.js";
import { follow } from "./live.js";
import { cells, head } from "./requests.js";
import { lastError } from "./targets.js";

const SECONDS = 180; // of the sparklines
const LATEST = 6;

export function show(root, { live }) {
  const tiles = [
    tile(
      "In flight",
      (now) => format.count(now.in_flight),
      (now) => now.in_flight,
      (now) => now.waiting > 0 && `${format.count(now.waiting)} waiting`,
    ),
    tile(
      "Requests per second",
      (now) => format.rate(now.requests_per_s),
      (now) => now.requests_per_s,
    ),
    tile(
      "Tokens per second",
      (now) => format.rate(now.tokens_per_s),
      (now) => now.tokens_per_s,
      () => "in answers",
    ),
    tile(
      "Time to first content",
      ({ first_content_ms: ms }) => format.duration(ms.p50),
      (now) => now.first_content_ms.p50,
      ({ first_content_ms: ms }) => ms.p95 !== null && `95 % within ${format.duration(ms.p95)}`,
    ),
    tile(
      "Errors",
      (now) => format.count(errorsOf(now)),
      errorsOf,
      (now) => `in the last ${format.count(now.window_s)} s`,
      (now) => errorsOf(now) > 0,
    ),
    tile(
      "Spent today",
      (now) => format.usd(now.spend_today_usd),
      null,
      (now) => now.prices?.date && `prices of ${format.day(now.prices.date)}`,
    ),
  ];
  const errors = el("div", {});
  const ill = el("div", {});
  const workers = el("tbody", {});
  const latest = el("tbody", {});
  const nothing = empty("No requests yet", "They appear here as soon as they end.");
  root.append(
    el(
      "div",
      { class: "tiles" },
      tiles.map((each) => each.node),
    ),
    el(
      "div",
      { class: "pair" },
      card(
        "Errors by cause",
        el("a", { href: "#/requests?outcome=error", class: "small" }, "Failed requests"),
        errors,
      ),
      card("Targets out of use", el("a", { href: "#/targets", class: "small" }, "All targets"), ill),
    ),
    card(
      "Latest requests",
      el("a", { href: "#/requests", class: "small" }, "All requests"),
      nothing,
      table("Latest requests", head, latest, "cards dense"),
    ),
    card(
      "Workers",
      null,
      table(
        "Workers",
        [["Process"], ["In flight", "number"], ["Connections", "number"], ["Loop lag", "number"], [""]],
        workers,
      ),
    ),
  );

  const showErrors = keyedList(errors, ([cause]) => cause, errorRow);
  const noErrors = empty("No errors in the last minute");
  const showWorkers = keyedList(workers, (worker) => worker.pid, workerRow);
  const showLatest = keyedList(
    latest,
    (request) => request.number,
    (request) => ({ node: el("tr", {}, cells(request)) }),
  );

  function update() {
    const now = live.samples.at(-1);
    if (!now) return;
    for (const each of tiles) each.update(now, live.samples);
    const causes = Object.entries(now.errors).sort((a, b) => b[1] - a[1]);
    const most = causes[0]?.[1] ?? 1;
    noErrors.remove();
    showErrors(causes.map(([cause, number]) => [cause, number, number / most]));
    if (causes.length === 0) errors.append(noErrors);
    showWorkers(now.workers);
  }

  function updateLatest() {
    nothing.hidden = live.requests.length > 0;
    latest.closest(".scroll").hidden = live.requests.length === 0;
    showLatest(live.requests.slice(0, LATEST));
  }

  async function updateTargets() {
    try {
      const { targets, off } = await get("admin/targets");
      const open = targets.filter((target) => isIll(target, off));
      ill.replaceChildren(
        open.length === 0
          ? empty("All targets are in use")
          : el("ul", { class: "plain stack" }, open.map(illRow)),
      );
    } catch (error) {
      ill.replaceChildren(el("p", { class: "bad-text" }, error.message));
    }
  }

  update();
  updateLatest();
  updateTargets();
  return follow(live, { now: update, requests: updateLatest, target: updateTargets });
}

const errorsOf = (now) => Object.values(now.errors).reduce((sum, number) => sum + number, 0);

function tile(title, text, value, hint = () => null, isBad = () => false) {
  const strong = el("strong", {}, "–");
  const small = el("small", {});
  const spark = value && sparkline(SECONDS);
  const node = el("section", { class: "card stat tile" }, el("h2", {}, title), strong, small, spark?.node);
  function update(now, samples) {
    setText(strong, text(now));
    setText(small, hint(now) || "");
    node.classList.toggle("alarming", isBad(now));
    spark?.update(samples.map(value));
  }
  return { node, update };
}

function errorRow() {
  const name = el("span", {});
  const number = el("span", { class: "number" });
  const length = el("div", { class: "length" });
  const update = ([cause, value, share]) => {
    setText(name, format.words(cause));
    setText(number, format.count(value));
    length.replaceChildren(bar(share, "bad-bar"));
  };
  return { node: el("div", { class: "meter" }, name, number, length), update };
}

function workerRow(worker) {
  const spark = sparkline(60);
  const lags = [];
  const texts = ["number", "number", "number"].map((kind) => el("td", { class: kind }));
  const update = (now) => {
    setText(texts[0], format.count(now.in_flight));
    setText(texts[1], format.count(now.connections));
    setText(texts[2], format.duration(now.loop_lag_ms));
    lags.push(now.loop_lag_ms);
    if (lags.length > 60) lags.shift();
    spark.update(lags);
  };
  return {
    node: el(
      "tr",
      {},
      el("td", { class: "mono" }, worker.pid),
      texts,
      el("td", { class: "spark-cell" }, spark.node),
    ),
    update,
  };
}

const isIll = (target, off) => target.target in off || brokenCircuit(target) !== undefined;
const brokenCircuit = (target) =>
  [target.circuit, target.key_circuit].find((circuit) => circuit && circuit.state !== "closed");

function illRow(target) {
  const state = brokenCircuit(target)?.state ?? "off";
  return el(
    "li",
    { class: "ill" },
    badge(format.words(state), state === "open" ? "bad" : "warn"),
    el("div", {}, foreign(target.target), el("div", { class: "small muted" }, lastError(target))),
  );
}
