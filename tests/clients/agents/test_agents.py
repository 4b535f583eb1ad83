"""The harness of the agents: its upstream APIs, scripts and verdicts. No agent, no network."""

from __future__ import annotations

import copy
import hashlib
import http.client
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients import environments
from tests.clients.agents import drive, mcp_server, run
from tests.clients.agents.agents import AGENTS, CHAT, GEMINI, MESSAGES, RESPONSES, STRAICO, Agent, Provider
from tests.clients.agents.programs import Codex, Launch
from tests.clients.agents.scenarios import AFTER, FILE, FINAL, SCENARIOS, Ended, Expected, Noticed, faults
from tests.clients.agents.shapes import base
from tests.clients.agents.shapes.base import Call, Round, Turn
from tests.clients.agents.shapes.gemini import signature
from tests.clients.agents.shapes.messages import SIGNATURE
from tests.clients.agents.shapes.responses import ENCRYPTED
from tests.support.upstream import Seen, Upstream

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
PROVIDERS = (CHAT, MESSAGES, RESPONSES, GEMINI, STRAICO)
SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}}
ARGUMENTS = json.dumps({"command": "date"})
SHELL_TURN = Turn("I look.", (Call("shell", {"command": "date"}),), "Hm.")

# A request of each API with one round of calls.
CHAT_BODY: dict[str, Any] = {
    "model": "agent",
    "stream": True,
    "tools": [{"type": "function", "function": {"name": "shell", "parameters": SCHEMA}}],
    "messages": [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": [{"type": "text", "text": "Go"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "shell", "arguments": ARGUMENTS}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "Friday"},
    ],
}
MESSAGES_BODY: dict[str, Any] = {
    "model": "agent",
    "max_tokens": 1000,
    "stream": True,
    "tools": [{"name": "shell", "input_schema": SCHEMA}],
    "messages": [
        {"role": "user", "content": "Go"},
        {"role": "system", "content": [{"type": "text", "text": "A reminder"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": SIGNATURE},
                {"type": "tool_use", "id": "c1", "name": "shell", "input": {"command": "date"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "Friday"}]},
    ],
}
RESPONSES_BODY: dict[str, Any] = {
    "model": "agent",
    "stream": True,
    "tools": [
        {"type": "function", "name": "shell", "parameters": SCHEMA},
        {"type": "custom", "name": "apply_patch"},
        {"type": "tool_search", "execution": "client"},
        {
            "type": "namespace",
            "name": "mcp__calculator",
            "tools": [{"type": "function", "name": "add", "parameters": SCHEMA}],
        },
    ],
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Go"}]},
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": ENCRYPTED,
        },
        {"type": "function_call", "call_id": "c1", "name": "shell", "arguments": ARGUMENTS},
        {"type": "function_call_output", "call_id": "c1", "output": "Friday"},
    ],
}
STRAICO_BODY: dict[str, Any] = {
    "model": "agent",
    "messages": [
        {
            "role": "system",
            "content": f"<tools>\n{json.dumps([{'name': 'shell', 'parameters': SCHEMA}])}\n</tools>",
        },
        {"role": "user", "content": "Go"},
        {
            "role": "assistant",
            "content": f'<tool_calls>\n[{{"id":"c1","name":"shell","arguments":{ARGUMENTS}}}]\n</tool_calls>',
        },
        {"role": "user", "content": '<tool_response id="c1" name="shell">\nFriday\n</tool_response>'},
    ],
}
GEMINI_BODY: dict[str, Any] = {
    "tools": [{"functionDeclarations": [{"name": "shell", "parametersJsonSchema": SCHEMA}]}],
    "systemInstruction": {"parts": [{"text": "You are an agent."}]},
    "generationConfig": {"temperature": 1, "thinkingConfig": {"includeThoughts": True}},
    "contents": [
        {"role": "user", "parts": [{"text": "Go"}]},
        {
            "role": "model",
            "parts": [
                {
                    "functionCall": {"id": "c1", "name": "shell", "args": {"command": "date"}},
                    "thoughtSignature": signature("Hm."),
                }
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "c1", "name": "shell", "response": {"output": "Friday"}}},
            ],
        },
    ],
}
BODIES: Mapping[str, dict[str, Any]] = {
    "chat": CHAT_BODY,
    "messages": MESSAGES_BODY,
    "responses": RESPONSES_BODY,
    "straico": STRAICO_BODY,
    "gemini": GEMINI_BODY,
}


def by_shape(provider: Provider) -> str:
    return provider.shape.name


@pytest.mark.parametrize("provider", PROVIDERS, ids=by_shape)
def test_a_valid_request_is_read(provider: Provider) -> None:
    body = BODIES[provider.shape.name]
    assert [*provider.shape.violations(body)] == []
    assert "shell" in provider.shape.tool_names(body)
    (past,) = provider.shape.rounds(body)
    assert [call.tool for call in past.calls] == ["shell"]
    assert [base.json_object(result) or result for result in past.results] == [
        {"output": "Friday"} if provider is GEMINI else "Friday"
    ]
    assert past.thought == ("Hm." if provider.shape.keeps_reasoning else "")


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("shape", "change", "violation"),
    [
        ("chat", lambda body: body.update(thinking={}), "body.thinking is unknown"),
        ("chat", lambda body: body.update(max_tokens="9"), "body.max_tokens is a str"),
        ("chat", lambda body: body["messages"].pop(), "results are missing for ['c1']"),
        ("chat", lambda body: body["messages"].pop(2), "is a result without its call"),
        ("chat", lambda body: body["messages"].reverse(), "system after the conversation has begun"),
        ("chat", lambda body: body["messages"][1]["content"].clear(), "messages[1] is empty"),
        (
            "chat",
            lambda body: body["messages"].insert(1, {"role": "critic"}),
            "messages[1] is a critic",
        ),
        ("chat", lambda body: body["tools"].append(body["tools"][0]), "declared twice"),
        ("chat", lambda body: body["tools"][0]["function"].update(name="a b"), "'a b' is invalid"),
        ("messages", lambda body: body.pop("max_tokens"), "max_tokens is missing"),
        ("messages", lambda body: body["messages"].pop(), "results are missing for ['c1']"),
        ("messages", lambda body: body["messages"].pop(2), "is a result without its call"),
        ("messages", lambda body: body["messages"].pop(0), "the turns do not alternate"),
        ("messages", lambda body: body["messages"][2]["content"][0].update(signature=""), "signature"),
        ("messages", lambda body: body["messages"][2]["content"][1].update(id="a|b"), "'a|b' is invalid"),
        (
            "messages",
            lambda body: body["messages"][3]["content"].insert(0, {"type": "text", "text": "x"}),
            "results after other blocks",
        ),
        ("responses", lambda body: body.update(messages=[]), "body.messages is unknown"),
        ("responses", lambda body: body["input"].pop(), "results are missing for ['c1']"),
        ("responses", lambda body: body["input"].pop(2), "is a result without its call"),
        ("responses", lambda body: body["input"][1].update(encrypted_content="x"), "not the upstream's"),
        ("responses", lambda body: body["input"][0].update(role="assistant"), "part of type input_text"),
        ("gemini", lambda body: body.update(stream=True), "body.stream is unknown"),
        ("gemini", lambda body: body["contents"].pop(), "are missing"),
        ("gemini", lambda body: body["contents"].pop(1), "to the calls []"),
        ("gemini", lambda body: body["contents"][0]["parts"].clear(), "contents[0] is empty"),
        ("gemini", lambda body: body["contents"][1].update(role="user"), "calls of the user"),
        ("gemini", lambda body: body["contents"][1]["parts"][0].update(text="x"), "has a part with"),
        (
            "gemini",
            lambda body: body["contents"][1]["parts"][0].update(thoughtSignature="c2ln"),
            "not the upstream's",
        ),
        ("straico", lambda body: body.update(tools=[]), "body.tools is unknown"),
        ("straico", lambda body: body["messages"].pop(), "the last message is not the user's"),
        ("straico", lambda body: body["messages"].pop(1), "the role assistant after system"),
    ],
)
def test_an_invalid_request_is_found(shape: str, change: Change, violation: str) -> None:
    body = copy.deepcopy(BODIES[shape])
    change(body)
    (provider,) = (provider for provider in PROVIDERS if provider.shape.name == shape)
    found = [*provider.shape.violations(body)]
    assert any(violation in text for text in found), found


@pytest.fixture
def scripted() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.start()
    yield upstream
    upstream.stop()


def post(upstream: Upstream, path: str, body: Mapping[str, Any]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        try:
            return answer.status, answer.read().decode()
        except http.client.IncompleteRead as exc:
            return answer.status, exc.partial.decode()
    finally:
        connection.close()


def without_rounds(shape: str) -> dict[str, Any]:
    """The request that has no calls yet."""
    body = copy.deepcopy(BODIES[shape])
    name = {"responses": "input", "gemini": "contents"}.get(shape, "messages")
    del body[name][1 if name != "messages" else 2 :]
    return body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("provider", PROVIDERS, ids=by_shape)
def test_the_turn_that_is_due_is_answered(scripted: Upstream, provider: Provider, stream: bool) -> None:
    noticed, shape = Noticed(), provider.shape
    turns = [SHELL_TURN, Turn(FINAL)]
    scripted.on("*", drive.script(BY_NAME["shell"], turns, shape, noticed))
    more = {} if shape in (STRAICO.shape, GEMINI.shape) else {"stream": stream}
    path = shape.path if stream else shape.whole_path
    status, first = post(scripted, path, {**without_rounds(shape.name), **more})
    assert status == 200
    assert "shell" in first
    status, second = post(scripted, f"{path}?beta=true", {**BODIES[shape.name], **more})
    assert status == 200
    assert all(piece in second for piece in (base.pieces(FINAL) if stream else [FINAL]))
    assert [len(rounds) for rounds in noticed.rounds] == [0, 1]
    assert noticed.problems == []


@pytest.mark.parametrize("provider", PROVIDERS, ids=by_shape)
def test_faults_are_the_first_answers(scripted: Upstream, provider: Provider) -> None:
    shape = provider.shape
    body = without_rounds(shape.name)
    for name, statuses in (("busy", [429, 200]), ("quota", [0, 0]), ("cut", [200, 200, 200])):
        scripted.on("*", drive.script(BY_NAME[name], [Turn(FINAL)], shape, Noticed()))
        answers = [post(scripted, shape.path, body) for _ in statuses]
        if name == "quota":
            assert {status for status, _ in answers} <= {402, 422, 429}
            continue
        assert [status for status, _ in answers] == statuses
        last = base.pieces(FINAL)[-1]
        assert [last in text for _, text in answers] == [False] * (len(answers) - 1) + [True]


def test_a_request_that_cannot_be_served_is_a_problem(scripted: Upstream) -> None:
    noticed = Noticed()
    scripted.on("*", drive.script(BY_NAME["shell"], [Turn(FINAL)], CHAT.shape, noticed))
    assert post(scripted, "/elsewhere", CHAT_BODY)[0] == 404
    assert post(scripted, CHAT.shape.path, {"tools": CHAT_BODY["tools"]})[0] == 400
    assert post(scripted, CHAT.shape.path, CHAT_BODY)[0] == 200
    assert noticed.problems == [
        "an unexpected request: POST /elsewhere",
        "the request cannot be read: KeyError: 'messages'",
        "1 rounds of calls instead of 0",
    ]


def test_a_request_without_tools_is_no_step(scripted: Upstream) -> None:
    noticed = Noticed()
    scripted.on("*", drive.script(BY_NAME["quota"], [Turn(FINAL)], MESSAGES.shape, noticed))
    body = {name: value for name, value in without_rounds("messages").items() if name != "tools"}
    assert post(scripted, MESSAGES.shape.path, body)[0] == 200
    assert (noticed.others, noticed.rounds, noticed.problems) == (1, [], [])


@pytest.mark.parametrize(
    ("call", "item"),
    [
        (Call("add", {"a": 1}), {"type": "function_call", "name": "add", "namespace": "mcp__calculator"}),
        (Call("apply_patch", "***"), {"type": "custom_tool_call", "name": "apply_patch", "input": "***"}),
        (Call("tool_search", {"query": "x"}), {"type": "tool_search_call", "arguments": {"query": "x"}}),
    ],
)
def test_each_kind_of_tool_has_its_item(scripted: Upstream, call: Call, item: Mapping[str, Any]) -> None:
    turns = [Turn(calls=(call,)), Turn(FINAL)]
    scripted.on("*", drive.script(BY_NAME["shell"], turns, RESPONSES.shape, Noticed()))
    _, text = post(scripted, RESPONSES.shape.path, {**without_rounds("responses"), "stream": False})
    (made,) = json.loads(text)["output"]
    assert {**made, **item} == made


def test_a_custom_tool_is_a_function_where_there_are_only_functions(scripted: Upstream) -> None:
    tools = [{"type": "function", "function": {"name": "apply_patch", "parameters": SCHEMA}}]
    turns = [Turn(calls=(Call("apply_patch", "***"),)), Turn(FINAL)]
    scripted.on("*", drive.script(BY_NAME["edit"], turns, CHAT.shape, Noticed()))
    _, text = post(scripted, CHAT.shape.path, {**without_rounds("chat"), "tools": tools, "stream": False})
    (call,) = json.loads(text)["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"input": "***"}


def test_a_tool_is_found_below_its_prefix() -> None:
    assert base.declared("add", ["mcp__calculator__add", "xadd"]) == "mcp__calculator__add"
    with pytest.raises(LookupError, match="declared 0 times"):
        base.declared("add", ["xadd"])


def test_headers_are_the_provider_s_own() -> None:
    headers = [("host", "x"), ("authorization", f"Bearer {run.KEY}"), ("x-api-key", "sk"), ("x-app", "cli")]
    seen = Seen("POST", "/", headers, b"", 1)
    assert [*drive.header_faults([seen], CHAT.shape, run.KEY)] == [
        "the client's key reached the upstream in authorization",
        "the header x-api-key reached the upstream",
        "the header x-app reached the upstream",
    ]
    bare = Seen("POST", "/", [], run.KEY.encode(), 1)
    assert [*drive.header_faults([bare], MESSAGES.shape, run.KEY)] == [
        "the client's key reached the upstream in a body",
        "the header x-api-key is missing",
    ]


TURNS = (SHELL_TURN, Turn(FINAL))
DONE = Noticed(rounds=[[], [Round((), ("sum-1737\n",))]])


def judged(name: str, ended: Ended, noticed: Noticed, work: Path, error: str | None = None) -> list[str]:
    return [*faults(BY_NAME[name], Expected(TURNS, error), ended, noticed, work)]


def test_a_run_is_judged_by_its_end_its_requests_and_its_files(tmp_path: Path) -> None:
    good = Ended(0, f"{FINAL}\n", "")
    assert judged("shell", good, DONE, tmp_path) == []
    assert judged("shell", good, Noticed(rounds=[[], []]), tmp_path) == [
        "the last request lacks the results ['sum-1737']: []"
    ]
    assert judged("shell", good, Noticed(rounds=DONE.rounds * 2), tmp_path) == [
        "the upstream got 4 requests instead of 2"
    ]
    assert judged("edit", good, DONE, tmp_path) == [f"{FILE} is 'missing'"]
    (tmp_path / FILE).write_text(f"{AFTER}\n")
    assert judged("edit", good, DONE, tmp_path) == []


@pytest.mark.parametrize(
    ("ended", "error", "fault"),
    [
        (Ended(None, FINAL, ""), None, "it did not end"),
        (Ended(1, FINAL, ""), None, "it ended with 1"),
        (Ended(0, "All of", ""), None, "it did not show the answer"),
        (Ended(0, "quota", ""), "quota", "it ended as if it had succeeded"),
        (Ended(1, "no", ""), "quota", "it did not show 'quota'"),
    ],
)
def test_a_run_that_ends_otherwise_is_a_fault(
    ended: Ended, error: str | None, fault: str, tmp_path: Path
) -> None:
    (found,) = judged("shell", ended, DONE, tmp_path, error)
    assert found.startswith(fault)


def test_reasoning_has_to_come_back(tmp_path: Path) -> None:
    expected = Expected(TURNS, thoughts=["Hm."])
    good = Noticed(rounds=[[], [Round((), ("sum-1737",), "Hm.")]])
    ended = Ended(0, FINAL, "")
    assert [*faults(BY_NAME["reasoning"], expected, ended, good, tmp_path)] == []
    (found,) = faults(BY_NAME["reasoning"], expected, ended, DONE, tmp_path)
    assert found == "the last request has the thoughts []"


def test_an_expected_error_is_none(tmp_path: Path) -> None:
    noticed = Noticed(rounds=[[]])
    assert judged("quota", Ended(1, "", "Quota exceeded"), noticed, tmp_path, "Quota exceeded") == []


def test_a_program_runs_in_its_home(tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['HOME'], os.getcwd(), os.environ['X']); sys.exit(3)"
    ended = drive.run(Launch([sys.executable, "-c", code], {"X": "y"}), tmp_path, tmp_path)
    assert ended == Ended(3, f"{tmp_path} {tmp_path} y\n", "")


@pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
def test_each_agent_is_pinned_and_its_reasons_name_rows(agent: Agent) -> None:
    assert agent.version[0].isdigit()
    assert "http" not in agent.pins.read_text("utf-8")
    rows = {
        *BY_NAME,
        *(f"{scenario.name}/{provider.name}" for scenario, provider, _ in run.cells(agent, SCENARIOS)),
    }
    assert {*agent.not_for, *agent.gaps, *agent.errors} <= rows


def test_directly_an_agent_has_one_provider() -> None:
    (agent,) = (agent for agent in AGENTS if isinstance(agent.program, Codex))
    assert {provider.name for _, provider, _ in run.cells(agent, SCENARIOS, is_direct=True)} == {"openai"}
    assert len([*run.cells(agent, SCENARIOS)]) == 4 * len(SCENARIOS)


def test_after_the_time_limit_no_agent_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "CACHE", tmp_path)
    agent = AGENTS[0]
    (tmp_path / agent.name).mkdir()
    stamp = hashlib.sha256(agent.pins.read_bytes()).hexdigest()
    (tmp_path / agent.name / ".installed").write_text(stamp)
    outcomes = run.run_directly([agent], [BY_NAME["answer"], BY_NAME["namespace"]], limit_s=-1.0)
    assert {scenario: outcome.why for (_, scenario, _), outcome in outcomes.items()} == {
        "answer": run.NO_TIME,
        "namespace": "the agent has no namespaces of tools",
    }


def test_the_mcp_server_adds() -> None:
    assert mcp_server.result("tools/list", {}) == {"tools": [mcp_server.TOOL]}
    called = mcp_server.result("tools/call", {"name": "add", "arguments": {"a": 1700, "b": 37}})
    assert called == {"content": [{"type": "text", "text": "total-1737"}]}
    assert mcp_server.result("resources/list", {}) is None
