"""The runner's own logic: verdicts, the table, what the upstream must have seen. No client, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients import environments, examples, run, upstream_scripts
from tests.clients.clients import CLIENTS, Client, reason
from tests.clients.features import CALL_IDS, FEATURES, RESULT, TOOL, Feature, Noticed
from tests.clients.report import Key, Outcome, counted, has_failed, rendered, verdict
from tests.support.upstream import Seen, Upstream

BY_NAME = {feature.name: feature for feature in FEATURES}


def seen(**fields: Any) -> Seen:
    return Seen("POST", "/chat/completions", [], json.dumps({"model": "m", **fields}).encode(), 1)


def judged(name: str, noticed: Noticed, provider: str = "groq", left_at: float | None = None) -> str:
    return BY_NAME[name].judge(noticed, provider, left_at)


@pytest.mark.parametrize(
    ("fault", "gap", "kind", "why"),
    [
        ("", None, "pass", ""),
        ("broken", None, "FAIL", "broken"),
        ("broken", "a known bug", "gap", "a known bug [broken]"),
        ("", "a known bug", "fixed", "passes, but is listed as a gap: a known bug"),
    ],
)
def test_a_verdict_knows_gaps(fault: str, gap: str | None, kind: str, why: str) -> None:
    outcome = verdict(fault, gap)
    assert (outcome.kind, outcome.why) == (kind, why)


def test_only_a_fault_that_is_no_gap_fails() -> None:
    outcomes: dict[Key, Outcome] = {
        ("a", "text", "groq"): Outcome("pass"),
        ("a", "text", "straico"): Outcome("gap", "known"),
        ("a", "cut", "groq"): Outcome("fixed", "known"),
        ("a", "models", "groq"): Outcome("-", "has none"),
    }
    assert not has_failed(outcomes)
    assert has_failed({**outcomes, ("a", "cut", "straico"): Outcome("FAIL", "why")})
    assert counted(outcomes) == "1 pass, 1 gap, 1 fixed"


def test_the_table_has_a_column_per_client_and_each_reason_once() -> None:
    outcomes: dict[Key, Outcome] = {
        ("a", "text", "groq"): Outcome("pass"),
        ("a", "cut", "groq"): Outcome("FAIL", "quiet"),
        ("b", "text", "groq"): Outcome("FAIL", "quiet"),
        ("b", "cut", "groq"): Outcome("-", "has no streams"),
    }
    assert rendered(outcomes).splitlines() == [
        "| feature | through | a      | b      |",
        "|---------|---------|--------|--------|",
        "| text    | groq    | pass   | FAIL 1 |",
        "| cut     | groq    | FAIL 1 | - 2    |",
        "",
        "1. quiet",
        "2. has no streams",
    ]


def test_a_table_without_reasons_ends_with_its_lines() -> None:
    assert rendered({("a", "text", "groq"): Outcome("pass")}).endswith("| text    | groq    | pass |")


def test_a_row_has_its_own_reason_or_its_feature_s() -> None:
    reasons = {"cut": "of both", "cut/straico": "of one"}
    assert reason(reasons, "cut", "groq") == "of both"
    assert reason(reasons, "cut", "straico") == "of one"
    assert reason(reasons, "text", "groq") is None


def test_the_cells_of_a_client_are_all_features_with_their_providers() -> None:
    client = Client("a", "a", driver="a.py", not_for={"models": "has none"})
    features = (BY_NAME["embeddings"], BY_NAME["models"])
    assert [(feature.name, provider, why) for feature, provider, why in run.cells(client, features)] == [
        ("embeddings", "groq", None),
        ("models", "groq", "has none"),
        ("models", "straico", "has none"),
    ]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_each_client_is_pinned_and_driven(client: Client) -> None:
    assert (environments.DRIVERS / client.driver).is_file()
    assert client.version[0].isdigit()
    pinned = client.pins.read_text("utf-8")
    assert "http://" not in pinned
    assert "https://" not in pinned
    rows = {f"{feature.name}/{provider}" for feature in FEATURES for provider in feature.providers}
    assert {*client.not_for, *client.gaps} <= {*BY_NAME, *rows}


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
def test_each_row_has_its_script(feature: Feature, tmp_path: Path) -> None:
    requested_file = tmp_path / "requested"
    requested_file.touch()
    upstream = Upstream()
    for provider in feature.providers:
        upstream_scripts.prepare(upstream, feature.name, provider, requested_file)
    assert not requested_file.exists()


@pytest.mark.parametrize(
    ("gap_s", "fault"),
    [
        (0.2, "repeated after 0.20 s, Retry-After was 3"),
        (2.97, ""),
        (30, "repeated after 30.00 s, Retry-After was 3"),
    ],
)
def test_a_repeat_has_to_wait(gap_s: float, fault: str) -> None:
    assert judged("429-retried", Noticed(arrived_at=[100.0, 100.0 + gap_s])) == fault


def test_too_few_and_too_many_retries_are_reported() -> None:
    assert (
        judged("429-retried", Noticed(arrived_at=[100.0])) == "the upstream received 1 requests instead of 2"
    )
    assert judged("429-raised", Noticed([seen(), seen()])) == "the upstream received 2 requests instead of 1"


@pytest.mark.parametrize(
    ("closed_at", "fault"),
    [
        (100.1, ""),
        (103.0, "the upstream connection was closed 3.0 s later"),
        (None, "the upstream connection is still open 2 s later"),
    ],
)
def test_an_upstream_connection_must_not_outlive_its_client(closed_at: float | None, fault: str) -> None:
    assert judged("cancel", Noticed([seen()], closed_at=closed_at), left_at=100.0) == fault


def test_a_client_that_sent_no_request_has_not_disconnected() -> None:
    assert judged("cancel", Noticed(), left_at=100.0) == "the upstream received no request"
    assert judged("cancel", Noticed([seen()])) == "the driver did not report when the client left"


def test_a_refused_key_reaches_no_upstream() -> None:
    assert not judged("wrong-key", Noticed())
    assert judged("wrong-key", Noticed([seen()])) == "the upstream received 1 requests"


def test_a_stream_must_be_requested() -> None:
    assert not judged("stream", Noticed([seen(stream=True)]))
    assert judged("stream", Noticed([seen()])) == "the client did not request a stream"
    assert not judged("stream", Noticed([seen()]), "straico")


def native(*results: tuple[str, str], streaming: bool = True) -> Noticed:
    messages = [{"role": "tool", "tool_call_id": call, "content": content} for call, content in results]
    return Noticed([seen(stream=streaming), seen(stream=streaming, messages=messages)])


def test_results_have_to_come_back_under_their_ids() -> None:
    oslo, lima = f"{RESULT}Oslo", [{"type": "text", "text": f"{RESULT}Lima"}]
    whole = native((CALL_IDS[0], oslo), streaming=False)
    assert not judged("tools", whole)
    assert judged("tools-stream", whole) == "the client requested a whole answer"
    assert not judged("parallel", native((CALL_IDS[1], str(lima)), (CALL_IDS[0], oslo)))
    swapped = native((CALL_IDS[1], oslo), (CALL_IDS[0], str(lima)))
    assert judged("parallel", swapped) == "the second request lacks the result for Oslo, Lima"
    assert judged("tools-stream", Noticed([seen(stream=True)])).endswith("1 requests instead of 2")


def straico(call_id: str, result_id: str) -> Noticed:
    calls = json.dumps([{"id": call_id, "name": TOOL, "arguments": {"city": "Oslo"}}])
    messages = [
        {"role": "assistant", "content": f"<tool_calls>\n{calls}\n</tool_calls>"},
        {
            "role": "user",
            "content": f'<tool_response id="{result_id}" name="{TOOL}">\n{RESULT}Oslo\n</tool_response>',
        },
    ]
    return Noticed([seen(), seen(messages=messages)])


def test_results_sent_to_straico_are_matched_by_the_ids_the_proxy_made() -> None:
    assert not judged("tools", straico("call_a", "call_a"), "straico")
    fault = "the second request lacks the result for Oslo"
    assert judged("tools", straico("call_a", "call_b"), "straico") == fault
    assert (
        judged("tools", Noticed([seen(), seen(messages=[])]), "straico")
        == "the second request has calls for []"
    )


def test_a_schema_has_to_pass_unharmed() -> None:
    schema = {"type": "object", "properties": {"city": {}, "days": {}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "Trip", "schema": schema}}
    assert not judged("structured", Noticed([seen(response_format=wanted)]))
    assert judged("structured", Noticed([seen()])) == "response_format is missing"
    schema["properties"] = {}
    assert judged("structured", Noticed([seen(response_format=wanted)])) == "the schema has the properties []"


def test_the_list_names_clients_and_features(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(client.name in listed for client in CLIENTS)
    assert all(name in listed for name in BY_NAME)


@pytest.mark.parametrize("arguments", [["nobody"], ["--feature", "nothing"]])
def test_an_unknown_name_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run.main(arguments)
    assert caught.value.code == 2
    assert "no such" in capsys.readouterr().err


def test_every_example_of_a_client_has_an_environment() -> None:
    assert {path.name for path in examples.FOLDER.iterdir() if path.is_file()} == set(examples.EXAMPLES)
    assert set(examples.EXAMPLES.values()) <= {client.name for client in CLIENTS}
