// Which targets a request for a model would try, without sending it: as things are, and while some of them
// fail.

import { get, query } from "./api.js";
import { badge, card, el, facts, field, foreign } from "./dom.js";
import * as format from "./format.js";

const CAUSES = [
  "error",
  "rate_limit",
  "timeout",
  "unreachable",
  "key_rejected",
  "bad_request",
  "context_length",
  "content_filter",
];

export function show(root, { parameters, remember }) {
  const model = el("input", {
    name: "model",
    required: true,
    value: parameters.get("model") ?? "",
    list: "explain-models",
    autocomplete: "off",
  });
  const result = el("div", { class: "stack", "aria-live": "polite" });
  const failing = new Map(); // cause by target
  const models = el("datalist", { id: "explain-models" });
  root.append(
    el(
      "p",
      { class: "muted" },
      "Shows the targets of a model in the order in which a request would try them now. Nothing is sent.",
    ),
    el(
      "form",
      { class: "row filters", onsubmit: submit },
      field("Model", model),
      models,
      el("button", { class: "primary" }, "Explain"),
    ),
    result,
  );
  offerModels(models);

  function submit(event) {
    event.preventDefault();
    failing.clear();
    explain();
  }

  async function explain() {
    remember({ model: model.value });
    try {
      const fail = [...failing].map(([target, cause]) => `${target}=${cause}`);
      const found = await get(query("admin/route", { model: model.value, fail }));
      result.replaceChildren(...described(found));
    } catch (error) {
      result.replaceChildren(el("p", { class: "notice bad", role: "alert" }, error.message));
    }
  }

  function described(found) {
    const about = facts([
      ["Table", found.table && el("code", {}, `[models.${found.table}]`)],
      ["Strategy", format.words(found.strategy)],
      ["Affinity", found.affinity],
    ]);
    return [
      card("Route", null, about),
      card("What a request does", null, el("ol", { class: "steps" }, found.steps.map(step))),
      card(
        "Targets",
        el("span", { class: "muted small" }, "Choose a failure to see what follows"),
        el("ol", { class: "plain stack targets" }, found.targets.map(target)),
      ),
    ];
  }

  function target(each) {
    const { target: name, state, ...further } = each;
    const select = el(
      "select",
      { "aria-label": `Failure of ${name}`, onchange: changed },
      el("option", { value: "" }, "answers"),
      CAUSES.map((cause) =>
        el(
          "option",
          { value: cause, selected: failing.get(name) === cause },
          `fails: ${format.words(cause)}`,
        ),
      ),
    );
    async function changed() {
      if (select.value) failing.set(name, select.value);
      else failing.delete(name);
      await explain();
      result
        .querySelectorAll("select")
        .forEach((node) => node.ariaLabel === select.ariaLabel && node.focus());
    }
    return el(
      "li",
      { class: "row spread target" },
      el(
        "div",
        { class: "stack tight" },
        el("span", {}, foreign(name), " ", state && badge(state, "warn")),
        el(
          "span",
          { class: "muted small" },
          Object.entries(further)
            .map(([key, value]) =>
              key === "share"
                ? `${format.share(value)} of requests first`
                : `${format.words(key)} ${Array.isArray(value) ? value.join(", ") : value}`,
            )
            .join(" · "),
        ),
      ),
      select,
    );
  }

  if (model.value) explain();
}

function step({ target, outcome, then }) {
  return el(
    "li",
    {},
    badge(format.words(outcome), outcome === "ok" ? "good" : "bad"),
    " ",
    foreign(target),
    el("span", { class: "muted" }, ` ${then}`),
  );
}

/** Fill a list of suggestions with the models of the proxy; without them, names can be typed. */
export async function offerModels(list) {
  const { data } = await get("ui/models").catch(() => ({ data: [] }));
  list.replaceChildren(...data.slice(0, 2000).map((model) => el("option", { value: model.id })));
  return data.map((model) => model.id);
}
