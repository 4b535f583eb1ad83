// The last requests, as they end; a row opens its attempts.

import { timeline } from "./charts.js";
import {
  badge,
  el,
  empty,
  facts,
  field,
  foreign,
  icon,
  keyedList,
  labelled,
  say,
  segments,
  table,
} from "./dom.js";
import * as format from "./format.js";
import { follow } from "./live.js";

const SHOWN = 200; // rows in the document at once

/** The columns of a table of requests; `cells` makes a row of them. */
export const head = [
  ["Time"],
  ["Client"],
  ["Model"],
  ["Outcome"],
  ["First content", "number"],
  ["Total", "number"],
  ["Tokens in", "number"],
  ["Tokens out", "number"],
  ["Cost", "number"],
];

/** How a request ended: ok, error, or its client left. */
export function outcomeOf(request) {
  if (request.ended === "client_left") return "left";
  return request.ended === "complete" && request.status < 400 ? "ok" : "error";
}

const TONES = { ok: "good", error: "bad", left: "warn" };

function outcomeBadge(request) {
  const outcome = outcomeOf(request);
  if (outcome === "ok") return badge(String(request.status), "good");
  const text =
    outcome === "left"
      ? "client left"
      : format.words(request.ended === "complete" ? request.status : request.ended);
  return badge(
    request.status && outcome === "error" && text !== String(request.status)
      ? `${request.status} ${text}`
      : text,
    TONES[outcome],
  );
}

/** The model that was asked for, and the target that answered. */
function route(request) {
  const served = request.target && request.target !== request.model ? request.target : null;
  const tries = request.attempts?.length ?? 0;
  return [
    foreign(request.model ?? request.path),
    served &&
      el("span", { class: "served" }, el("span", { class: "hidden" }, " served by "), foreign(served)),
    tries > 1 && el("span", { class: "part" }, `${format.count(tries)} attempts`),
  ];
}

const part = (value, name) =>
  value ? el("span", { class: "part" }, `${format.short(value)} ${name}`) : null;

export function cells(request) {
  const { usage } = request;
  return labelled(head, [
    el("td", { class: "nowrap" }, format.time(request.time)),
    el("td", {}, foreign(request.client ?? "–")),
    el("td", { class: "model" }, route(request)),
    el(
      "td",
      {},
      outcomeBadge(request),
      request.dropped_frames
        ? el("span", { class: "part" }, `${format.count(request.dropped_frames)} frames dropped`)
        : null,
    ),
    el("td", { class: "number" }, format.duration(request.first_content_ms)),
    el("td", { class: "number" }, format.duration(request.ms)),
    el("td", { class: "number" }, format.count(request.prompt_tokens), part(request.cached_tokens, "cached")),
    el(
      "td",
      { class: "number" },
      format.count(request.completion_tokens),
      part(usage?.completion_tokens_details?.reasoning_tokens, "reasoning"),
    ),
    el("td", { class: "number" }, format.usd(request.cost_usd)),
  ]);
}

export function show(root, { live, parameters, remember }) {
  const filter = {
    outcome: parameters.get("outcome") ?? "",
    model: parameters.get("model") ?? "",
    client: parameters.get("client") ?? "",
  };
  let isPaused = false;
  let waiting = 0; // requests that ended while the list is paused
  let frame = 0;

  const list = table("Requests", [["", "opener"], ...head], null, "cards dense");
  const nothing = empty(
    "No requests to show",
    "Requests appear here as soon as they end. Only the last ones are kept.",
  );
  const pause = el("button", { type: "button", "aria-pressed": "false", onclick: togglePause }, "Pause");
  const older = el("button", { type: "button", onclick: loadOlder }, "Load older requests");
  const choices = [
    ["", "All"],
    ["ok", "Succeeded"],
    ["error", "Failed"],
    ["left", "Client left"],
  ];
  root.append(
    el(
      "div",
      { class: "row filters" },
      segments("Outcome", "outcome", choices, filter.outcome, (value) => changed("outcome", value)),
      field("Model", search("model")),
      field("Key", search("client")),
      pause,
    ),
    el("section", { class: "card" }, nothing, list),
    el("div", { class: "row" }, older),
  );
  const showRows = keyedList(list.querySelector("table"), (request) => request.number, requestRow);

  function search(name) {
    return el("input", {
      type: "search",
      value: filter[name],
      oninput: (event) => changed(name, event.target.value),
    });
  }

  function changed(name, value) {
    filter[name] = value;
    remember(filter);
    update();
  }

  function matches(request) {
    const includes = (text, part) => !part || (text ?? "").toLowerCase().includes(part.toLowerCase());
    return (
      (!filter.outcome || outcomeOf(request) === filter.outcome) &&
      (includes(request.model, filter.model) || includes(request.target, filter.model)) &&
      includes(request.client, filter.client)
    );
  }

  function togglePause() {
    isPaused = !isPaused;
    waiting = 0;
    pause.setAttribute("aria-pressed", String(isPaused));
    pause.textContent = isPaused ? "Resume" : "Pause";
    if (!isPaused) update();
  }

  function update() {
    const found = live.requests.filter(matches);
    nothing.hidden = found.length > 0;
    list.hidden = found.length === 0;
    older.hidden = !live.hasOlder;
    showRows(found.slice(0, SHOWN));
  }

  function arrived(event) {
    if (!isPaused) {
      // Many requests may end within one frame of the screen.
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(update);
      return;
    }
    waiting += event.detail.length;
    pause.textContent = `Resume (${format.count(waiting)} new)`;
  }

  async function loadOlder() {
    older.disabled = true;
    try {
      await live.load(live.requests.at(-1)?.number);
      update();
    } catch (error) {
      say(error.message, "bad");
    } finally {
      older.disabled = false;
    }
  }

  update();
  return follow(live, { requests: arrived });
}

/** A request's row; its details are a second row, made when they are first opened. */
function requestRow(request) {
  const details = `request-${request.number}`;
  const button = el(
    "button",
    {
      type: "button",
      class: "quiet tiny",
      "aria-expanded": "false",
      "aria-controls": details,
      onclick: toggle,
    },
    icon("m9 6 6 6-6 6"),
    el("span", { class: "hidden" }, `Attempts of request ${request.id}`),
  );
  const row = el("tr", {}, el("td", { class: "opener" }, button), cells(request));
  row.addEventListener("click", (event) => {
    if (!event.target.closest("button") && getSelection().isCollapsed) toggle();
  });
  const node = el("tbody", {}, row);
  let opened = null;
  function toggle() {
    const isOpen = button.getAttribute("aria-expanded") === "true";
    opened ??= el(
      "tr",
      { id: details, class: "details" },
      el("td", { colspan: head.length + 1 }, described(request)),
    );
    if (isOpen) opened.remove();
    else node.append(opened);
    row.classList.toggle("chosen", !isOpen);
    button.setAttribute("aria-expanded", String(!isOpen));
  }
  return { node };
}

/** All that is known of a request: its attempts over time, and the fields of its record. */
function described(request) {
  const attempts = request.attempts ?? [];
  const spans = attempts.map((attempt) => {
    const from = attempt.started_ms ?? 0;
    const isOk = attempt.outcome === "ok";
    const tone =
      attempt.started_ms === undefined
        ? "skipped"
        : isOk
          ? "good-bar"
          : attempt.outcome === "hedge_lost"
            ? "lost-bar"
            : "bad-bar";
    // An attempt that succeeded goes on until the end of the answer; its own time is that to the first
    // content.
    const to = isOk ? request.ms : from + (attempt.ms ?? 0);
    const took = attempt.ms === undefined ? "not sent" : format.duration(attempt.ms);
    const status = attempt.status ? `${attempt.status} ` : "";
    const resumed =
      attempt.resumed_at === undefined ? "" : `, resumed at character ${format.count(attempt.resumed_at)}`;
    return {
      label: foreign(attempt.target),
      from,
      to,
      tone,
      mark: isOk && attempt.ms !== undefined && request.stream ? from + attempt.ms : undefined,
      text: `${status}${format.words(attempt.outcome)}, ${took}${resumed}`,
    };
  });
  return el(
    "div",
    { class: "stack" },
    spans.length > 0 && timeline(request.ms, spans, format.duration),
    facts([
      ["Request", el("code", {}, request.id)],
      ["Ended", format.dateTime(request.time)],
      ["Call", foreign(`${request.method} ${request.path}`)],
      ["Dialect", request.dialect],
      ["Streamed", request.stream ? "yes" : "no"],
      ["How it ended", format.words(request.ended)],
      [
        "First byte to the client",
        request.first_byte_ms === undefined ? null : format.duration(request.first_byte_ms),
      ],
      ["Longest gap", request.longest_gap_ms === undefined ? null : format.duration(request.longest_gap_ms)],
      ["Waited in the proxy", request.waited_ms === undefined ? null : format.duration(request.waited_ms)],
      ["Bytes sent", format.count(request.bytes)],
      ["Frames dropped", request.dropped_frames && format.count(request.dropped_frames)],
      ["Session", request.session && el("code", {}, request.session)],
      ["Trace", request.trace_id && el("code", {}, request.trace_id)],
    ]),
  );
}
