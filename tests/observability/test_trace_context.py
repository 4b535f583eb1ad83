"""traceparent and tracestate: which are accepted, and what is passed on."""

from __future__ import annotations

import re

import pytest

from sanic_proxy.observability.trace_context import TraceContext, context_of, passed_headers

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


def never(trace_id: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("parent", "is_sampled"),
    [
        (PARENT, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),  # the flag of random ids, of level 2
        (f"00-{TRACE}-{SPAN}-fe", False),
        (f"cc-{TRACE}-{SPAN}-01-what-a-later-version-adds", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
    ],
)
def test_a_callers_trace_goes_on_and_is_sampled_as_it_says(parent: str, is_sampled: bool) -> None:
    context = context_of({"traceparent": parent, "tracestate": "a=1, b@c=2"}, never)
    assert (context.trace_id, context.parent_id, context.is_sampled) == (TRACE, SPAN, is_sampled)
    assert context.state == "a=1,b@c=2"
    assert re.fullmatch("[0-9a-f]{16}", context.span_id)
    assert context.span_id != SPAN


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00-a-b-01",
        PARENT.upper(),
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{PARENT}-more",
        f"{PARENT}, {PARENT}",  # sent twice
        f" {PARENT}",
        f"cc-{TRACE}-{SPAN}-01-\n",
        f"cc-{TRACE}-{SPAN}-01.more",
    ],
)
def test_an_invalid_parent_is_ignored_with_its_state(parent: str) -> None:
    headers = {"traceparent": parent, "tracestate": "a=1"}
    context = context_of(headers, lambda _: True)
    assert re.fullmatch("[0-9a-f]{32}", context.trace_id)
    assert context.trace_id != TRACE
    assert (context.parent_id, context.state, context.is_sampled) == ("", "", True)
    assert passed_headers(None, headers) == {}


@pytest.mark.parametrize(
    "state",
    [
        "",
        "no value",
        "A=1",
        "a=",
        "a=1\x00",
        "a=ü",
        ",".join(f"k{number}=1" for number in range(33)),
        "a=" + "x" * 600,
    ],
)
def test_an_invalid_state_is_ignored_alone(state: str) -> None:
    context = context_of({"traceparent": PARENT, "tracestate": state}, never)
    assert (context.trace_id, context.state) == (TRACE, "")


def test_a_root_is_sampled_by_its_id() -> None:
    decided: list[str] = []

    def decide(trace_id: str) -> bool:
        decided.append(trace_id)
        return False

    context = context_of({}, decide)
    assert decided == [context.trace_id]
    assert not context.is_sampled


def test_targets_get_the_span_of_the_attempt_that_has_begun_last() -> None:
    context = TraceContext(TRACE, SPAN, "a=1", is_sampled=True)
    context.begin_attempt(1.0)
    first = passed_headers(context, {"traceparent": "the client's"})
    context.begin_attempt(2.0)
    second = passed_headers(context, {})
    assert first == {"traceparent": f"00-{TRACE}-{context.attempt_id(1.0)}-01", "tracestate": "a=1"}
    assert second["traceparent"] == f"00-{TRACE}-{context.attempt_id(2.0)}-01"
    assert len({context.span_id, context.attempt_id(1.0), context.attempt_id(2.0)}) == 3


def test_without_tracing_the_clients_own_headers_are_passed() -> None:
    assert passed_headers(None, {"traceparent": PARENT}) == {"traceparent": PARENT}
    given = {"traceparent": PARENT, "tracestate": "a=1"}
    assert passed_headers(None, {**given, "cookie": "x"}) == given
    assert passed_headers(None, {"tracestate": "a=1"}) == {}


def test_a_request_that_another_one_causes_is_its_child() -> None:
    context = TraceContext(TRACE, SPAN, "a=1", is_sampled=True)
    child = context.child()
    assert (child.trace_id, child.parent_id, child.state) == (TRACE, context.span_id, "a=1")
    assert child.is_sampled
    assert child.span_id != context.span_id
