// What has been spent, by key, model, target and day.

import { get, query } from "./api.js";
import { bar, columns, legend, MAX_SERIES, swatch } from "./charts.js";
import { card, el, empty, foreign, labelled, segments, table } from "./dom.js";
import * as format from "./format.js";

const RANGES = [
  ["1", "Today"],
  ["7", "7 days"],
  ["30", "30 days"],
];
const GROUPS = [
  ["key", "Key"],
  ["model", "Model"],
  ["target", "Target"],
  ["day", "Day"],
];
const MEASURES = [
  ["usd", "Spend"],
  ["tokens", "Tokens"],
];
const MAX_ROWS = 100;
const KINDS = [
  ["Input", "input"],
  ["Cached input", "cached"],
  ["Output", "output"],
];

export function show(root, { parameters, remember }) {
  const chosen = {
    days: pick(RANGES, parameters.get("days"), "7"),
    by: pick(GROUPS, parameters.get("by"), "model"),
    of: pick(MEASURES, parameters.get("of"), "usd"),
  };
  const result = el("div", { class: "stack", "aria-live": "polite" });
  root.append(
    el(
      "div",
      { class: "row filters" },
      segments("Time", "days", RANGES, chosen.days, choose("days")),
      segments("Group by", "by", GROUPS, chosen.by, choose("by")),
      segments("Measure", "of", MEASURES, chosen.of, choose("of")),
    ),
    result,
  );
  let request = new AbortController();

  function choose(name) {
    return (value) => {
      chosen[name] = value;
      remember(chosen);
      load();
    };
  }

  async function load() {
    request.abort();
    request = new AbortController();
    result.setAttribute("aria-busy", "true");
    const by = chosen.by === "day" ? "day" : `day,${chosen.by}`;
    try {
      const since = format.utcDay(Number(chosen.days) - 1);
      const { data } = await get(query("admin/usage", { by, since }), request.signal);
      result.replaceChildren(...report(data, chosen));
    } catch (error) {
      if (error.name === "AbortError") return;
      result.replaceChildren(el("p", { class: "notice bad", role: "alert" }, error.message));
    }
    result.removeAttribute("aria-busy");
  }

  load();
  return () => request.abort();
}

const pick = (choices, value, otherwise) =>
  choices.some(([choice]) => choice === value) ? value : otherwise;

/**
 * Plot, totals and table of rows by day and group.
 * @param {{day: string, usd: number, attempts: number, input: number, cached: number, output: number}[]} rows
 * @param {{days: string, by: string, of: string}} chosen
 */
export function report(rows, { days, by, of }) {
  if (rows.length === 0) {
    return [
      empty(
        "Nothing has been spent in this time",
        "Requests of clients with keys of their own are recorded as they end.",
      ),
    ];
  }
  const measure = of === "usd" ? (row) => row.usd : (row) => row.input + row.output;
  const shown = of === "usd" ? format.usd : format.short;
  const groups = grouped(rows, by).sort((a, b) => measure(b) - measure(a));
  const total = groups.reduce(add, { ...NOTHING });
  return [
    el(
      "div",
      { class: "tiles" },
      figure("Spend", format.usd(total.usd)),
      figure(
        "Tokens",
        format.short(total.input + total.output),
        `${format.short(total.input)} in, ${format.short(total.output)} out`,
      ),
      figure(
        "Attempts",
        format.count(total.attempts),
        total.estimated > 0 && `${format.count(total.estimated)} estimated`,
      ),
      figure("Input from caches", format.share(total.input ? total.cached / total.input : null)),
    ),
    card(
      of === "usd" ? "Spend by day" : "Tokens by day",
      null,
      plot(rows, groups, { days, by, of, measure, shown }),
    ),
    card(by === "day" ? "Days" : `By ${by}`, null, sums(groups, total, { by, of, measure })),
  ];
}

const NOTHING = {
  usd: 0,
  attempts: 0,
  estimated: 0,
  input: 0,
  cached: 0,
  cache_write: 0,
  output: 0,
  reasoning: 0,
};

function add(total, row) {
  for (const name of Object.keys(NOTHING)) total[name] += row[name] ?? 0;
  return total;
}

function grouped(rows, by) {
  const groups = new Map();
  for (const row of rows) {
    const name = row[by] || "–";
    if (!groups.has(name)) groups.set(name, { name, ...NOTHING });
    add(groups.get(name), row);
  }
  return [...groups.values()];
}

function figure(title, text, hint) {
  return el(
    "section",
    { class: "card stat tile" },
    el("h2", {}, title),
    el("strong", {}, text),
    hint && el("small", {}, hint),
  );
}

function plot(rows, groups, { days, by, of, measure, shown }) {
  const labels = Array.from({ length: Number(days) }, (_, place) => format.utcDay(Number(days) - 1 - place));
  const place = new Map(labels.map((label, number) => [label, number]));
  const series = new Map();
  const addTo = (name, row, value) => {
    if (!series.has(name))
      series.set(
        name,
        labels.map(() => 0),
      );
    if (place.has(row.day)) series.get(name)[place.get(row.day)] += value;
  };
  const own = new Set(groups.slice(0, MAX_SERIES).map((group) => group.name));
  if (by !== "day")
    groups.slice(0, MAX_SERIES).forEach((group) =>
      series.set(
        group.name,
        labels.map(() => 0),
      ),
    );
  for (const row of rows) {
    if (by !== "day") addTo(own.has(row[by] || "–") ? row[by] || "–" : "all others", row, measure(row));
    else if (of === "usd") addTo("Spend", row, row.usd);
    else
      KINDS.forEach(([name, key]) => addTo(name, row, key === "input" ? row.input - row.cached : row[key]));
  }
  const list = [...series].map(([name, values]) => ({ name, values }));
  return [
    columns(
      of === "usd" ? "Spend by day, in US dollars" : "Tokens by day",
      labels,
      list,
      shown,
      format.shortDay,
    ),
    el(
      "div",
      { class: "row spread small muted" },
      list.length > 1 ? legend(list.map((each) => each.name)) : el("span", {}),
      "Days in UTC",
    ),
  ];
}

function sums(groups, total, { by, of, measure }) {
  const rows = by === "day" ? [...groups].sort((a, b) => b.name.localeCompare(a.name)) : groups;
  const most = Math.max(...groups.map(measure), 1e-12);
  const head = [
    [by === "day" ? "Day" : by[0].toUpperCase() + by.slice(1)],
    ["Spend", "number"],
    ["Share"],
    ["Attempts", "number"],
    ["Input", "number"],
    ["Cached", "number"],
    ["Output", "number"],
    ["Reasoning", "number"],
  ];
  const body = el(
    "tbody",
    {},
    rows
      .slice(0, MAX_ROWS)
      .map((row) =>
        el(
          "tr",
          {},
          labelled(head, [
            el(
              "td",
              { class: "model" },
              by !== "day" && swatch(Math.min(groups.indexOf(row), MAX_SERIES)),
              by === "day" ? format.day(row.name) : foreign(row.name),
            ),
            el("td", { class: "number" }, format.usd(row.usd)),
            el(
              "td",
              { class: "share" },
              bar(measure(row) / most),
              el("span", { class: "hidden" }, format.share(measure(row) / (measure(total) || 1))),
            ),
            ...["attempts", "input", "cached", "output", "reasoning"].map((name) =>
              el("td", { class: "number" }, format.count(row[name])),
            ),
          ]),
        ),
      ),
  );
  const more = groups.length - MAX_ROWS;
  return [
    table(of === "usd" ? "Spend" : "Tokens", head, body, "cards dense"),
    more > 0 && el("p", { class: "muted small" }, `${format.count(more)} more with less.`),
  ];
}
