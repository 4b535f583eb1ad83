// Chats through any model, with tools, and with two models side by side.

import { stream } from "./api.js";
import { badge, el, field, foreign, say } from "./dom.js";
import { offerModels } from "./explain.js";
import * as format from "./format.js";

const EXAMPLE_TOOLS = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The present weather of a city",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];
const COST_WAIT_MS = 3000;

/** The playground stays as it is while other views are shown, and so do its running answers. */
export function show(root, { kept, live, parameters }) {
  kept.playground ??= playground(live);
  kept.playground.choose(parameters.get("model"));
  root.append(kept.playground.node);
}

function playground(live) {
  const models = el("datalist", { id: "playground-models" });
  const settings = settingsForm();
  const lanes = [lane("Model", live, settings), lane("Second model", live, settings)];
  const board = el(
    "div",
    { class: "lanes" },
    lanes.map((each) => each.node),
  );
  const text = el("textarea", { rows: 2, "aria-label": "Message", placeholder: "Message", onkeydown: onKey });
  const sendButton = el("button", { class: "primary" }, "Send");
  const stopButton = el("button", { type: "button", disabled: true, onclick: stop }, "Stop");
  const compare = el("input", { type: "checkbox", onchange: update });
  const composer = el(
    "form",
    { class: "card composer", onsubmit: (event) => (event.preventDefault(), send()) },
    text,
    el(
      "div",
      { class: "row spread" },
      el(
        "span",
        { class: "muted small keys-hint" },
        el("kbd", {}, "Enter"),
        " sends, ",
        el("kbd", {}, "Shift"),
        " ",
        el("kbd", {}, "Enter"),
        " begins a line",
      ),
      el(
        "div",
        { class: "row" },
        el("button", { type: "button", class: "quiet", onclick: clear }, "Clear"),
        stopButton,
        sendButton,
      ),
    ),
  );
  const node = el(
    "div",
    { class: "stack" },
    models,
    settings.node,
    el("label", { class: "check" }, compare, "Compare two models"),
    board,
    composer,
  );
  const used = () => (compare.checked ? lanes : lanes.slice(0, 1));

  function update() {
    lanes[1].node.hidden = !compare.checked;
    board.classList.toggle("two", compare.checked);
  }

  function onKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  }

  async function send() {
    const content = text.value.trim();
    if (content === "" || used().some((each) => each.isBusy())) return;
    const problem =
      used()
        .map((each) => each.problem())
        .find(Boolean) ?? settings.problem();
    if (problem) {
      say(problem, "bad");
      return;
    }
    text.value = "";
    used().forEach((each) => each.add({ role: "user", content }));
    await Promise.all(used().map((each) => each.run()));
  }

  function stop() {
    lanes.forEach((each) => each.stop());
  }

  function clear() {
    lanes.forEach((each) => each.clear());
    text.focus();
  }

  node.addEventListener("busychange", () => {
    const isBusy = lanes.some((each) => each.isBusy());
    stopButton.disabled = !isBusy;
    sendButton.disabled = isBusy;
  });
  update();
  offerModels(models).then((names) =>
    lanes.forEach((each, place) => each.suggest(names[place] ?? names[0] ?? "")),
  );
  return { node, close: stop, choose: (model) => model && lanes[0].choose(model) };
}

/** System prompt, parameters and tools, which both models get. */
function settingsForm() {
  const number = (name, max, step) =>
    el("input", { type: "number", name, min: 0, max, step, inputmode: "decimal" });
  const json = (name, rows, placeholder) =>
    el("textarea", { name, rows, class: "mono", spellcheck: "false", autocomplete: "off", placeholder });
  const system = el("textarea", { name: "system", rows: 2 });
  const tools = json("tools", 6, "[]");
  const extra = json("extra", 2, '{"reasoning_effort": "low"}');
  const temperature = number("temperature", 2, 0.1);
  const topP = number("top_p", 1, 0.05);
  const maxTokens = number("max_tokens", null, 1);
  const node = el(
    "details",
    { class: "card settings" },
    el("summary", {}, "System prompt, parameters and tools"),
    el(
      "div",
      { class: "stack more" },
      field("System prompt", system),
      el(
        "div",
        { class: "triple" },
        field("Temperature", temperature),
        field("Top p", topP),
        field("Max tokens", maxTokens),
      ),
      field("Tools", tools, "A JSON array, as in the field tools of a chat request."),
      el(
        "div",
        { class: "row" },
        el(
          "button",
          {
            type: "button",
            class: "tiny",
            onclick: () => (tools.value = JSON.stringify(EXAMPLE_TOOLS, null, 2)),
          },
          "Insert an example",
        ),
      ),
      field("Further fields", extra, "A JSON object whose fields are added to the request."),
    ),
  );

  function parsed(input, isRight, what) {
    if (input.value.trim() === "") return null;
    let value;
    try {
      value = JSON.parse(input.value);
    } catch (error) {
      throw new Error(`${what}: ${error.message}`);
    }
    if (!isRight(value)) throw new Error(what);
    return value;
  }

  /** The fields of a request, apart from the model and its messages. Raises an Error that says what is wrong. */
  function fields() {
    const list = parsed(tools, Array.isArray, "The tools must be a JSON array");
    const further = parsed(
      extra,
      (value) => value !== null && typeof value === "object" && !Array.isArray(value),
      "Further fields must be a JSON object",
    );
    const numbers = [
      ["temperature", temperature],
      ["top_p", topP],
      ["max_tokens", maxTokens],
    ].filter(([, input]) => input.value !== "");
    return {
      ...Object.fromEntries(numbers.map(([name, input]) => [name, Number(input.value)])),
      ...(list?.length ? { tools: list } : {}),
      ...further,
    };
  }

  function problem() {
    try {
      fields();
    } catch (error) {
      node.open = true;
      return error.message;
    }
    return null;
  }
  return { node, fields, problem, system: () => system.value.trim() };
}

/** One conversation with one model. */
function lane(label, live, settings) {
  let messages = [];
  let abort = null;
  let answerTools = null; // sends the results of the tool calls that the model waits for
  let isChosen = false; // the model is the user's choice, not the first of the list
  const model = el("input", {
    list: "playground-models",
    autocomplete: "off",
    placeholder: "provider/model",
    oninput: () => (isChosen = true),
  });
  const log = el("div", {
    class: "log stack",
    role: "log",
    "aria-label": `${label}: conversation`,
    tabindex: "0",
  });
  const hint = el(
    "p",
    { class: "muted hint" },
    "Choose a model and send a message. Requests from here count as those of the client (admin).",
  );
  log.append(hint);
  const node = el("section", { class: "card lane" }, field(label, model), log);

  function setBusy(controller) {
    abort = controller;
    log.setAttribute("aria-busy", String(controller !== null));
    node.dispatchEvent(new CustomEvent("busychange", { bubbles: true }));
  }

  /** Change the conversation. Its end stays in sight, unless the user has scrolled back. */
  function change(work) {
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    work();
    if (isAtEnd) log.scrollTop = log.scrollHeight;
  }

  function append(node) {
    hint.remove();
    change(() => log.append(node));
  }

  function add(message) {
    messages.push(message);
    append(turn(message.role, message.content).node);
  }

  /** Request the next message of the model, and show it as it arrives. */
  async function run() {
    const controller = new AbortController();
    const shown = turn("assistant", "", model.value.trim());
    const answer = { text: "", reasoning: "", calls: [], usage: null, finish: null, error: null };
    const clock = { start: performance.now(), first: null, end: null };
    let requestId = null;
    let isStopped = false;
    append(shown.node);
    setBusy(controller);
    try {
      const system = settings.system();
      const body = {
        model: model.value.trim(),
        messages: [...(system ? [{ role: "system", content: system }] : []), ...messages],
        stream: true,
        stream_options: { include_usage: true },
        ...settings.fields(),
      };
      const { headers, events } = await stream("ui/chat/completions", body, controller.signal);
      requestId = headers.get("x-request-id");
      for await (const data of events) {
        if (data === "[DONE]") break;
        if (take(answer, JSON.parse(data))) clock.first ??= performance.now();
        change(() => shown.update(answer));
        if (answer.error) break;
      }
    } catch (error) {
      if (error.name === "AbortError") isStopped = true;
      else
        answer.error = {
          message: error.message,
          code: error.code,
          status: error.status,
          requestId: error.requestId,
        };
    }
    clock.end = performance.now();
    if (answer.text || answer.calls.length > 0) messages.push(asMessage(answer));
    change(() => finish(shown, answer, clock, { isStopped, requestId }));
    setBusy(null);
  }

  function finish(shown, answer, clock, { isStopped, requestId }) {
    if (isStopped) shown.node.append(badge("stopped", "warn"));
    if (answer.error)
      shown.node.append(errorBox(answer.error, messages.at(-1)?.role === "assistant" ? null : run));
    if (clock.first !== null) {
      const { node: line, settle } = figures(answer, clock);
      shown.node.append(line);
      recordOf(requestId, live).then((record) => change(() => settle(record)));
    }
    answerTools = null;
    if (answer.calls.length > 0 && !answer.error && !isStopped) askResults(shown, answer.calls);
    else if (answer.calls.length > 0) messages.pop(); // half a call cannot be answered, and no model accepts it without
  }

  function askResults(shown, calls) {
    const inputs = calls.map((call) => el("textarea", { rows: 2, class: "mono", spellcheck: "false" }));
    const form = el(
      "form",
      { class: "stack results", onsubmit: submit },
      calls.map((call, place) =>
        field(el("span", {}, "Result of ", foreign(call.function.name)), inputs[place]),
      ),
      el(
        "div",
        { class: "row end" },
        el("button", { class: "primary" }, calls.length > 1 ? "Send results" : "Send result"),
      ),
    );
    function submit(event) {
      event.preventDefault();
      answerTools = null;
      form.remove();
      calls.forEach((call, place) =>
        add({ role: "tool", tool_call_id: call.id, content: inputs[place].value }),
      );
      run();
    }
    answerTools = () => inputs[0].focus();
    shown.node.append(form);
  }

  function problem() {
    if (model.value.trim() === "") return "Choose a model first";
    if (answerTools === null) return null;
    answerTools();
    return "The model waits for the results of its tool calls";
  }

  function clear() {
    abort?.abort();
    messages = [];
    answerTools = null;
    log.replaceChildren(hint);
  }

  return {
    node,
    add,
    run,
    clear,
    problem,
    stop: () => abort?.abort(),
    isBusy: () => abort !== null,
    choose: (name) => ((model.value = name), (isChosen = true)),
    suggest: (name) => isChosen || (model.value = name),
  };
}

/** Add a chunk of a stream to the answer. Whether it had content. */
function take(answer, chunk) {
  if (chunk.error) answer.error = chunk.error;
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (!choice) return false;
  const delta = choice.delta ?? {};
  answer.finish = choice.finish_reason ?? answer.finish;
  answer.text += delta.content ?? delta.refusal ?? "";
  const reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
  if (typeof reasoning === "string") answer.reasoning += reasoning;
  for (const part of delta.tool_calls ?? []) {
    const call = (answer.calls[part.index ?? answer.calls.length] ??= {
      id: "",
      type: "function",
      function: { name: "", arguments: "" },
    });
    call.id ||= part.id ?? "";
    call.function.name += part.function?.name ?? "";
    call.function.arguments += part.function?.arguments ?? "";
  }
  return Boolean(delta.content || delta.refusal || reasoning || delta.tool_calls?.length);
}

function asMessage(answer) {
  const calls = answer.calls.length > 0 ? { tool_calls: answer.calls } : {};
  return { role: "assistant", content: answer.text || null, ...calls };
}

const ROLES = { user: "You", tool: "Tool result" };

/** One message of a conversation. `update` shows more of an answer that is arriving. */
function turn(role, content, name = ROLES[role]) {
  const text = el("div", { class: "text" }, content);
  const reasoning = el(
    "details",
    { class: "reasoning", hidden: true },
    el("summary", {}, "Reasoning"),
    el("div", { class: "text" }),
  );
  const calls = el("div", { class: "stack" });
  const node = el("article", { class: `turn ${role}` }, el("h3", {}, foreign(name)), reasoning, text, calls);
  function update(answer) {
    text.textContent = answer.text;
    reasoning.hidden = answer.reasoning === "";
    reasoning.lastChild.textContent = answer.reasoning;
    calls.replaceChildren(...answer.calls.map(callBox));
  }
  return { node, update };
}

function callBox(call) {
  let text = call.function.arguments;
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // It is shown as it is: the model has not finished it, or it is no JSON.
  }
  return el(
    "figure",
    { class: "code" },
    el("figcaption", {}, "Tool call", foreign(call.function.name, { class: "foreign mono" })),
    el("pre", {}, el("code", {}, text)),
  );
}

function errorBox(error, retry) {
  const about = [error.status, error.code, error.requestId && `request ${error.requestId}`]
    .filter(Boolean)
    .join(" · ");
  const node = el(
    "div",
    { class: "notice bad stack tight", role: "alert" },
    foreign(error.message ?? "The stream ended with an error"),
    about && el("small", {}, foreign(about)),
  );
  if (retry)
    node.append(
      el(
        "div",
        {},
        el(
          "button",
          { type: "button", class: "tiny", onclick: () => (node.closest(".turn").remove(), retry()) },
          "Try again",
        ),
      ),
    );
  return node;
}

/** Time to first content, speed, tokens and cost of an answer. The cost comes with the record of the request. */
function figures(answer, clock) {
  const { usage } = answer;
  const seconds = (clock.end - clock.first) / 1000;
  const reasoning = usage?.completion_tokens_details?.reasoning_tokens;
  const cached = usage?.prompt_tokens_details?.cached_tokens;
  const cost = el("span", { class: "cost" });
  const entries = [
    ["First content", format.duration(clock.first - clock.start)],
    ["Total", format.duration(clock.end - clock.start)],
    usage?.completion_tokens > 1 &&
      seconds > 0.2 && ["Speed", `${format.rate(usage.completion_tokens / seconds)} tokens/s`],
    usage && [
      "Input",
      `${format.count(usage.prompt_tokens)} tokens${cached ? `, ${format.count(cached)} cached` : ""}`,
    ],
    usage && [
      "Output",
      `${format.count(usage.completion_tokens)} tokens${reasoning ? `, ${format.count(reasoning)} reasoning` : ""}`,
    ],
    ["Cost", cost],
    answer.finish && answer.finish !== "stop" && ["Ended by", format.words(answer.finish)],
  ].filter(Boolean);
  const node = el(
    "dl",
    { class: "figures-line" },
    entries.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
  const settle = (record) => {
    cost.textContent = format.usd(record?.cost_usd);
    if (record?.target && record.target !== record.model)
      node.append(el("div", {}, el("dt", {}, "Served by"), el("dd", {}, foreign(record.target))));
  };
  return { node, settle };
}

/** The record of a request, which arrives shortly after its end; null if it does not. */
function recordOf(requestId, live) {
  const find = () => live.requests.find((request) => request.id === requestId) ?? null;
  return new Promise((resolve) => {
    const found = find();
    if (found !== null || requestId === null) {
      resolve(found);
      return;
    }
    const done = (record) => {
      clearTimeout(timer);
      live.removeEventListener("requests", look);
      resolve(record);
    };
    const look = () => find() !== null && done(find());
    const timer = setTimeout(() => done(null), COST_WAIT_MS);
    live.addEventListener("requests", look);
  });
}
