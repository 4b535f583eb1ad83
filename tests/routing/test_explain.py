"""What is said of a route before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.errors import InvalidRequest, ModelNotFound, UpstreamError
from sanic_proxy.routing.explain import explain, offline_router
from sanic_proxy.routing.router import Router
from sanic_proxy.routing.targets import Limits

TOML = """
[models.fast]
targets = ["groq/a", { provider = "xai", model = "b", context_window = 8000 }]

[models.spread]
strategy = "weighted"
targets = [
    { provider = "groq", model = "a", weight = 1 },
    { provider = "xai", model = "b", weight = 3 },
    { provider = "mistral", model = "c", order = 2, only_after = "context_length_exceeded" },
]

[models.busy]
strategy = "least_in_flight"
targets = ["groq/a", "xai/b"]

[models.quick]
strategy = "least_latency"
targets = ["groq/a", "xai/b"]

[models."gpt-*"]
targets = ["groq/openai/gpt-*"]
"""


@pytest.fixture
def router(tmp_path: Path) -> Router[str]:
    (tmp_path / "proxy.toml").write_text(TOML)
    keys = {"GROQ_API_KEY": "g1,g2", "XAI_API_KEY": "x", "MISTRAL_API_KEY": "m"}
    return offline_router(load({**keys, "SANIC_PROXY_CONFIG": "proxy.toml"}, tmp_path))


def steps(router: Router[str], model: str, *fail: str) -> list[tuple[str, str]]:
    return [(step.target, step.outcome) for step in explain(router, model, Limits(2, 6), fail).steps]


def test_without_failures_the_first_target_answers(router: Router[str]) -> None:
    assert steps(router, "fast") == [("groq/a", "ok")]
    assert steps(router, "gpt-5") == [("groq/openai/gpt-5", "ok")]
    assert steps(router, "xai/other") == [("xai/other", "ok")]


def test_failures_are_retried_and_moved_as_in_service(router: Router[str]) -> None:
    assert steps(router, "fast", "groq/a", "groq#2/a=timeout") == [
        ("groq/a", "error"),
        ("groq/a", "error"),
        ("groq#2/a", "timeout"),
        ("xai/b", "ok"),
    ]
    assert steps(router, "fast", "groq=bad_request") == [("groq/a", "bad_request")]
    assert steps(router, "spread", "groq=context_length", "xai=context_length") == [
        ("xai/b", "context_length"),
        ("mistral/c", "ok"),
    ]


def test_each_step_says_what_follows(router: Router[str]) -> None:
    explanation = explain(router, "fast", Limits(2, 3), ["groq/a", "groq#2/a", "xai/b"])
    assert [step.then for step in explanation.steps] == [
        "retried on the same target",
        "moved to groq#2/a",
        "the error goes to the client",
    ]


def test_targets_describe_themselves(router: Router[str]) -> None:
    explanation = explain(router, "spread", Limits())
    assert explanation.as_json()["targets"] == [
        {"target": "xai/b", "order": 1, "weight": 3.0, "share": 0.75, "in_flight": 0},
        {"target": "groq/a", "order": 1, "weight": 1.0, "share": 0.25, "in_flight": 0},
        {"target": "groq#2/a", "order": 1, "weight": 1.0, "in_flight": 0},
        {
            "target": "mistral/c",
            "order": 2,
            "weight": 1.0,
            "share": 0.0,
            "in_flight": 0,
            "only_after": "context_length_exceeded",
        },
    ]
    text = explanation.as_text()
    assert "[models.spread], strategy weighted, affinity auto: a session keeps its target\n" in text
    assert "1. xai/b (order 1, weight 3.0, first for 75 % of requests, in flight 0)" in text
    assert "xai/b: ok; the answer goes to the client" in text


def test_what_cannot_be_asked_now_is_named_and_not_changed(router: Router[str]) -> None:
    now = 1000.0
    first, second, other = router.resolve("fast")
    for _ in range(5):
        first.health.record_failure(UpstreamError("x"), "target", now, first.health.generation)
    second.rate_limit.limit(now, 7.0)
    explanation = explain(router, "fast", Limits(), now=now)
    states = {target["target"]: target.get("state", "") for target in explanation.targets}
    assert states["groq/a"].startswith("circuit open, next attempt in ")
    assert states["groq#2/a"] == "rate limited for 7 s"
    assert [step.target for step in explanation.steps] == ["xai/b"]
    other.key_health.record_failure(UpstreamError("x"), "key", now, other.key_health.generation)
    refused = explain(router, "fast", Limits(), now=now)
    assert refused.steps[0].then == "no target is available at the moment"
    later = now + 60
    assert first.health.admit(later) is None  # the probe is still free


def test_requests_in_flight_are_shown(router: Router[str]) -> None:
    busy = router.resolve("busy")
    for target in busy:
        if target.label == "groq/a":
            target.begin(0.0)
    explanation = explain(router, "busy", Limits())
    assert [(target["target"], target["in_flight"]) for target in explanation.targets] == [
        ("xai/b", 0),
        ("groq#2/a", 0),
        ("groq/a", 1),
    ]


def test_names_that_are_not_there_are_refused(router: Router[str]) -> None:
    with pytest.raises(ModelNotFound):
        explain(router, "nope/x", Limits())
    with pytest.raises(InvalidRequest, match="Its targets: groq/a, groq#2/a, xai/b"):
        explain(router, "fast", Limits(), ["grok"])
    with pytest.raises(InvalidRequest, match="context_length"):
        explain(router, "fast", Limits(), ["groq/a=nonsense"])


def test_the_latency_that_decides_is_shown(router: Router[str]) -> None:
    now = 1000.0
    for target in router.resolve("quick"):
        assert target.statistics is not None
        target.statistics.answered += 1
        target.statistics.slowness.observe(0.5 if target.label == "xai/b" else 2.0, now)
    explanation = explain(router, "quick", Limits(), now=now)
    shown = {target["target"]: target["first_content_ms"] for target in explanation.targets}
    assert shown == {"xai/b": 270, "groq/a": 1080, "groq#2/a": 1080}
    assert explanation.targets[0]["target"] == "xai/b"
    assert "1. xai/b (order 1, in flight 0, first content ms 270)" in explanation.as_text()
    assert explanation.steps[0].target == "xai/b"


def test_models_without_affinity_are_named_as_such(router: Router[str]) -> None:
    assert explain(router, "spread", Limits()).as_json()["affinity"] == "auto"
    assert explain(router, "fast", Limits()).as_json()["affinity"] == "off"
    assert "affinity" not in explain(router, "fast", Limits()).as_text()
