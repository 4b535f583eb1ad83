"""What a client sees of each failure of a provider, through a real proxy: the catalogue, row by row.

Each case has the result of a whole answer and of a stream:

    whole               all of the answer, and its proper end
    502 some_code       an error with that status
    cut some_code       what came before, then an error frame and no `[DONE]`
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from loadtest import faults
from loadtest.faulty_upstream import FaultyUpstream
from tests.support.faulty import DATA, black_hole, faulty_upstream
from tests.support.load import wait_until
from tests.support.proxy import Proxy, Reply, free_port, running_proxy
from tests.support.settings import GROQ_KEY, ONCE
from tests.support.upstream_cases import CASES, Case

TEXT = "".join(f"wörd{number} " for number in range(faults.GOOD.words))


PARAMETERS = [
    pytest.param(case, is_streaming, id=f"{case.fault}-{kind}", marks=pytest.mark.row(case.row))
    for case in CASES
    for is_streaming, kind, expected in ((False, "whole", case.whole), (True, "streamed", case.streamed))
    if expected
]


@pytest.fixture(scope="module")
def faulty() -> Iterator[tuple[FaultyUpstream, Proxy]]:
    """The faulty upstream and a proxy before it, with providers that cannot be reached beside it."""
    with (
        faulty_upstream() as (upstream, port),
        faulty_upstream("localhost-key-and-cert.pem") as (_, unknown),
        faulty_upstream("expired-key-and-cert.pem") as (_, expired),
        black_hole() as hole,
    ):
        settings = {
            "GROQ_API_KEY": GROQ_KEY,
            "GROQ_BASE_URL": f"http://127.0.0.1:{port}/v1",
            **unreachable("MISTRAL", f"http://127.0.0.1:{free_port()}/v1"),
            **unreachable("XAI", f"http://127.0.0.1:{hole}/v1"),
            **unreachable("DEEPSEEK", "http://no-such-host.invalid/v1"),
            **unreachable("TOGETHER", f"https://localhost:{unknown}/v1"),
            **unreachable("FIREWORKS", f"https://localhost:{expired}/v1"),
            "SSL_CERT_FILE": str(DATA / "expired-cert.pem"),
            **ONCE,
            "SANIC_PROXY_HEARTBEAT_INTERVAL": "0.2",
            "SANIC_PROXY_STREAM_COMMIT_DELAY": "0.5",
            "SANIC_PROXY_TIMEOUT_CONNECT": "1.5",
            "SANIC_PROXY_TIMEOUT_FIRST_BYTE": "2",
            "SANIC_PROXY_TIMEOUT_IDLE": "1.5",
            "SANIC_PROXY_TIMEOUT_TOTAL": "5",
        }
        with running_proxy(settings) as proxy:
            yield upstream, proxy
        assert "Traceback" not in proxy.log


def unreachable(name: str, url: str) -> dict[str, str]:
    return {f"{name}_API_KEY": f"{name.lower()}-canary-0123456789", f"{name}_BASE_URL": url}


def text_of(reply: Reply) -> str:
    """The text of a whole answer, or of a stream that ends properly."""
    if "event-stream" not in reply.headers["content-type"]:
        return str(reply.json["choices"][0]["message"]["content"])
    *events, last = [part for part in reply.body.replace(b": ping\n", b"").split(b"\n\n") if part]
    assert last in {b"data: [DONE]", b"data:[DONE]"}
    chunks = [json.loads(event.removeprefix(b"data:")) for event in events]
    deltas = [choice.get("delta") or {} for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def outcome(reply: Reply) -> str:
    """What an answer comes to, in the words of the cases."""
    if reply.status != 200:
        return f"{reply.status} {reply.error['code']}"
    last = reply.body.rstrip(b"\n").rpartition(b"\n")[2]
    if last.startswith(b'data: {"error"'):
        assert b"[DONE]" not in reply.body
        error = json.loads(last[6:])["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return f"cut {error['code']}"
    # Beside the text there may be what the fault has put in: half a surrogate, a word with its usage.
    assert text_of(reply).replace("\ud83d", "").replace("x", "") == TEXT
    return "whole"


@pytest.mark.parametrize(("case", "is_streaming"), PARAMETERS)
def test_each_fault_gives_the_expected_result(
    faulty: tuple[FaultyUpstream, Proxy], case: Case, is_streaming: bool
) -> None:
    _, proxy = faulty
    request_id = f"fault-{CASES.index(case)}-{is_streaming}"
    model = case.fault if "/" in case.fault else f"groq/{case.fault}"
    reply = proxy.chat(model, stream=is_streaming, headers={"x-request-id": request_id})
    assert outcome(reply) == (case.streamed if is_streaming else case.whole)
    assert reply.headers["x-request-id"] == request_id
    assert b"gsk-leaked" not in reply.body
    assert not any(mark in reply.body for mark in (b"<html", b"Traceback", b"127.0.0.1", b"localhost"))
    assert f"status={reply.status} " in proxy.log_line(request_id)
    assert outcome(proxy.chat("groq/good", stream=is_streaming)) == "whole"


@pytest.mark.row(6)
def test_nothing_of_all_that_is_left_behind(faulty: tuple[FaultyUpstream, Proxy]) -> None:
    """What has been cut or given up is closed by the proxy too, and never used again."""
    upstream, proxy = faulty
    for how in ("fin", "rst"):
        proxy.chat(f"groq/good;cut=300;by={how}", stream=True)
    wait_until(lambda: upstream.open_connections <= 1)  # the one that the good answers come on
    assert upstream.half_closed == 0
    assert not upstream.requested["(on a closed connection)"]


@pytest.mark.row(12)
@pytest.mark.parametrize("play", ["good", "crlf", "multi-line", "lone-surrogate"])
def test_a_stream_is_the_same_however_it_is_cut(faulty: tuple[FaultyUpstream, Proxy], play: str) -> None:
    _, proxy = faulty
    expected = proxy.chat(f"groq/{play}", stream=True).body
    for step in (1, 2, 3, 5, 17, 64, 1000):
        assert proxy.chat(f"groq/{play};step={step}", stream=True).body == expected


@pytest.mark.row(27)
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("retry-after=7", "7"),
        ("retry-after=1.2", "2"),
        ("retry-after=0", "1"),
        ("retry-after=-5", "1"),
        ("retry-after=1000000000", "60"),
        ("retry-after=soon", "1"),
        ("retry-after=Wed, 21 Oct 2099 07:28:00 GMT", "60"),
        ("retry-after=Wed, 21 Oct 2015 07:28:00 GMT", "1"),
        ("retry-after=1e9", "1"),
        ("retry-after-ms=1500", "2"),
        ("retry-after-ms=1;retry-after=40", "1"),
        ("retry-after-ms=nan;retry-after=3", "3"),
        ("", "1"),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
def test_a_wait_is_passed_on_within_bounds(
    faulty: tuple[FaultyUpstream, Proxy], fields: str, expected: str, code: int
) -> None:
    _, proxy = faulty
    reply = proxy.chat(f"groq/status;code={code};{fields}".rstrip(";"))
    assert reply.status == code
    assert reply.headers.get("retry-after") == expected


@pytest.mark.row(34)
@pytest.mark.parametrize("code", [400, 413])
@pytest.mark.parametrize("size", [10, 300_000, 20_000_000])
def test_an_answer_that_comes_before_the_request_is_sent_is_passed_on(
    faulty: tuple[FaultyUpstream, Proxy], code: int, size: int
) -> None:
    _, proxy = faulty
    assert outcome(proxy.chat(f"groq/early;code={code}", padding="x" * size)) == f"{code} scripted"


@pytest.mark.row(34)
def test_a_provider_that_resets_while_it_is_sent_to_is_no_bug(faulty: tuple[FaultyUpstream, Proxy]) -> None:
    _, proxy = faulty
    reply = proxy.chat("groq/early;code=413;by=rst", padding="x" * 20_000_000)
    # Whether the provider's answer outruns the reset of its connection is the network's choice.
    assert outcome(reply) in {"413 scripted", "502 upstream_disconnected"}


@pytest.mark.row(36)
def test_thousands_of_tokens_come_in_order(faulty: tuple[FaultyUpstream, Proxy]) -> None:
    _, proxy = faulty
    words = 8_000
    reply = proxy.chat(f"groq/good;words={words}", stream=True)
    assert text_of(reply) == "".join(f"wörd{number} " for number in range(words))


@pytest.mark.row(37)
def test_only_incomplete_tool_calls_are_changed(faulty: tuple[FaultyUpstream, Proxy]) -> None:
    _, proxy = faulty
    sent = b"".join(faults.pieces(faults.parse("odd-tools"), is_streaming=True))
    received = proxy.chat("groq/odd-tools", stream=True).body
    frames = [part for part in received.split(b"\n\n") if b"tool_calls" in part]
    assert [part in sent for part in frames] == [True, True, False, False, True]
    no_index, no_id = (json.loads(part[6:])["choices"][0]["delta"]["tool_calls"][0] for part in frames[2:4])
    assert (no_index["id"], no_index["type"], no_index["index"]) == ("c", "function", 2)
    assert (no_id["id"][:5], no_id["type"], no_id["index"]) == ("call_", "function", 7)


@pytest.mark.row(38)
def test_no_usage_is_made_up(faulty: tuple[FaultyUpstream, Proxy]) -> None:
    _, proxy = faulty
    body = proxy.chat("groq/good", stream=True, stream_options={"include_usage": True}).body
    assert b"usage" not in body
    body = proxy.chat("groq/usage-mid", stream=True, stream_options={"include_usage": True}).body
    assert body.count(b'"usage"') == 1


@pytest.mark.row(18)
def test_dropped_frames_are_counted_in_the_log(faulty: tuple[FaultyUpstream, Proxy]) -> None:
    _, proxy = faulty
    for play, is_counted in (("empty-object", True), ("no-object", True), ("data-comment", False)):
        proxy.chat(f"groq/{play}", stream=True, headers={"x-request-id": f"dropped-{play}"})
        assert ("dropped_frames=1" in proxy.log_line(f"dropped-{play}")) == is_counted


@pytest.mark.row(32)
def test_a_redirect_leads_nowhere(faulty: tuple[FaultyUpstream, Proxy]) -> None:
    upstream, proxy = faulty
    with faulty_upstream() as (elsewhere, port):
        proxy.chat(f"groq/redirect;to=http://127.0.0.1:{port}/v1/chat/completions")
        assert elsewhere.connections == 0
    assert upstream.requested


@pytest.mark.row(4)
def test_a_bad_certificate_is_not_tried_again(faulty: tuple[FaultyUpstream, Proxy]) -> None:
    _, proxy = faulty
    for provider in ("together", "fireworks"):
        assert proxy.chat(f"{provider}/good").headers["x-should-retry"] == "false"


@pytest.mark.row(6)
def test_a_broken_answer_breaks_no_other(faulty: tuple[FaultyUpstream, Proxy]) -> None:
    """One client connection, faults and good answers in turn: an error before the answer keeps it."""
    _, proxy = faulty
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    for model in (
        "groq/good;cut=50",
        "groq/good",
        "groq/bad-status",
        "groq/good",
        "groq/status",
        "groq/good",
    ):
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == (200 if model == "groq/good" else 502)
    connection.close()
