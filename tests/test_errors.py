"""The tree of errors."""

from __future__ import annotations

import pytest

from sanic_proxy import errors
from sanic_proxy.dialects.chat import error_object

ALL = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ProxyError)
]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_openais_object(kind: type[errors.ProxyError]) -> None:
    made = error_object(kind("what happened", param="p"))
    assert list(made) == ["message", "type", "param", "code"]
    assert made["param"] == "p"
    assert isinstance(made["type"], str)


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_in_the_drawn_tree(kind: type[errors.ProxyError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", [kind for kind in ALL if issubclass(kind, errors.ClientError)])
def test_the_same_wrong_request_is_not_worth_repeating(kind: type[errors.ProxyError]) -> None:
    assert not kind.retryable
    assert 400 <= kind.status < 500


@pytest.mark.parametrize("kind", [kind for kind in ALL if issubclass(kind, errors.UpstreamError)])
def test_a_failing_provider_is_never_the_clients_fault(kind: type[errors.ProxyError]) -> None:
    assert kind.status >= 500


KEY = "Canary-key-0123456789"


def test_a_redacted_error_is_a_copy_without_the_secrets() -> None:
    error = errors.UpstreamRefusedRequest(
        {"message": f"m {KEY}", "type": KEY, "param": KEY, "code": f"c-{KEY}"},
        status=422,
        details={"raw": [{KEY: KEY, "n": 1}], "deep": {"a": {"b": KEY}}},
        headers=[("x-ratelimit-limit", KEY)],
        log_text=KEY,
        upstream_status=422,
        wait_s=7.5,
    )
    clean = error.redacted([KEY])
    assert type(clean) is type(error)
    assert KEY not in f"{clean} {error_object(clean)} {clean.headers} {clean.log_text}"
    assert (clean.status, clean.upstream_status, clean.wait_s, clean.retryable) == (422, 422, 7.5, False)
    assert error_object(clean) == {
        "message": "m [redacted]",
        "type": "[redacted]",
        "param": "[redacted]",
        "code": "c-[redacted]",
        "raw": [{"[redacted]": "[redacted]", "n": 1}],
        "deep": {"a": {"b": "[redacted]"}},
    }
    assert KEY in error.message
    assert error.redacted([]) is error


@pytest.mark.parametrize(
    ("text", "secrets", "clean"),
    [
        ("a key", ["nothing"], "a key"),
        ("Canary1mistral", ["Canary1", "Canary1mistral"], "[redacted]"),
        ("xCanary1x", ["Canary1"], "x[redacted]x"),
        ("a.b+c", ["a.b+c"], "[redacted]"),
        # A text that was cut to its bound inside a key.
        ("cut: Canary-key-0123", [KEY], "cut: [redacted]"),
        ("cut: Canary", [KEY], "cut: [redacted]"),
        ("cut: Cana", [KEY], "cut: Cana"),
        ("Canary-key-0123 and more", [KEY], "Canary-key-0123 and more"),
        (f"{KEY}{KEY} {KEY}", [KEY], "[redacted][redacted] [redacted]"),
        ("", [KEY], ""),
        ("abc abcdef", ["abc"], "[redacted] [redacted]def"),
        (
            "the 4999th is key-4999-of-many",
            [f"key-{n}-of-many" for n in range(5000)],
            "the 4999th is [redacted]",
        ),
        ("hf-inference, key_findings, sk_search_docs", [KEY], "hf-inference, key_findings, sk_search_docs"),
    ],
)
def test_redaction_removes_exactly_the_secrets(text: str, secrets: list[str], clean: str) -> None:
    assert errors.ProxyError(text).redacted(secrets).message == clean


def test_details_come_after_the_standard_keys_and_replace_none() -> None:
    error = errors.UpstreamError("m", details={"code": "other", "metadata": 1})
    assert list(error_object(error).items()) == [
        ("message", "m"),
        ("type", "server_error"),
        ("param", None),
        ("code", "upstream_error"),
        ("metadata", 1),
    ]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_takes_a_text_and_the_facts(kind: type[errors.ProxyError]) -> None:
    made = kind("m", upstream_status=418, blames_target=False, headers=[("x", "y")])
    assert (made.message, made.upstream_status, made.blames_target) == ("m", 418, False)
    assert type(made.redacted(["nothing"])) is kind


def test_a_redacted_error_keeps_what_its_class_adds() -> None:
    error = errors.UpstreamDisconnected("m", is_stale_connection=True)
    assert error.redacted(["nothing"]).is_stale_connection


@pytest.mark.parametrize("kind", ALL)
def test_a_replaced_error_is_a_copy(kind: type[errors.ProxyError]) -> None:
    made = kind("m", upstream_status=418)
    other = made.replaced(blames_target=not made.blames_target, is_final=True)
    assert type(other) is kind
    assert (other.message, other.upstream_status, other.is_final) == ("m", 418, True)
    assert other.blames_target is not made.blames_target
    assert made.is_final is kind.is_final
