// What one client may use and has used: its own session's, or for administrators that of any key.

import { get, query } from "./api.js";
import { bar } from "./charts.js";
import { card, el, empty, facts, foreign, segments } from "./dom.js";
import * as format from "./format.js";
import { report } from "./spend.js";

export function show(root, { session, parameters }) {
  const key = session.kind === "admin" ? parameters.get("key") : null;
  const result = el("div", { class: "stack" });
  root.append(result);

  async function load() {
    try {
      const { usage, days } = await get(query("ui/usage", { key }));
      const spending = el("div", { class: "stack" });
      const chosen = { days: "30", by: "model", of: "usd" };
      const update = () => spending.replaceChildren(...report(days, chosen));
      const choose = (name) => (value) => ((chosen[name] = value), update());
      update();
      result.replaceChildren(
        limits(usage),
        budgets(usage.budgets),
        el(
          "div",
          { class: "row filters" },
          segments(
            "Group by",
            "by",
            [
              ["model", "Model"],
              ["day", "Day"],
            ],
            "model",
            choose("by"),
          ),
          segments(
            "Measure",
            "of",
            [
              ["usd", "Spend"],
              ["tokens", "Tokens"],
            ],
            "usd",
            choose("of"),
          ),
        ),
        spending,
      );
    } catch (error) {
      result.replaceChildren(el("p", { class: "notice bad", role: "alert" }, error.message));
    }
  }

  load();
}

function limits(usage) {
  const names = (list) =>
    list.length > 0 ? list.map((name) => foreign(name, { class: "foreign badge" })) : "all";
  return card(
    usage.client ?? "This key",
    null,
    facts([
      ["Team", usage.team && foreign(usage.team)],
      ["Expires", usage.expires ? format.dateTime(usage.expires) : "never"],
      ["Models", names(usage.models)],
      ["Endpoints", names(usage.endpoints)],
      ["Requests per minute", limit(usage.limits.rpm)],
      ["Tokens per minute", limit(usage.limits.tpm)],
      ["Requests at once", limit(usage.limits.concurrent)],
    ]),
  );
}

const limit = (value) => (value === null ? "no limit" : format.count(value));

function budgets(list) {
  if (list.length === 0) return card("Budgets", null, empty("No budget"));
  return card(
    "Budgets",
    null,
    el(
      "ul",
      { class: "plain stack" },
      list.map((budget) => {
        const used = budget.used_usd + budget.reserved_usd;
        const share = budget.limit_usd > 0 ? used / budget.limit_usd : 1;
        return el(
          "li",
          { class: "stack budget" },
          el(
            "div",
            { class: "row spread" },
            el(
              "span",
              {},
              el("strong", {}, `${format.usd(budget.left_usd)} left`),
              ` of ${format.usd(budget.limit_usd)} per ${budget.per}${budget.scope === "team" ? ", of the team" : ""}`,
            ),
            el(
              "span",
              { class: "muted small" },
              budget.resets ? `begins again ${format.dateTime(budget.resets)}` : "does not begin again",
            ),
          ),
          bar(share, share > 0.95 ? "bad-bar" : share > 0.8 ? "warn-bar" : "good-bar"),
        );
      }),
    ),
  );
}
