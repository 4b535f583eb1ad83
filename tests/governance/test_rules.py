"""Which scopes, models and endpoints the rules of a client give it."""

import pytest

from sanic_proxy.config.rules import Budget, ClientRules, ScopeLimits, TeamRules
from sanic_proxy.governance.rules import Rulebook, Scope, endpoint_of, lists_endpoint

RPM = ScopeLimits(rpm=10)
DOLLAR = ScopeLimits(budgets=(Budget(10**9, "day"),))


def test_a_request_is_in_each_scope_that_has_limits() -> None:
    book = Rulebook([TeamRules("red", DOLLAR), TeamRules("blue")], {"fast": RPM, "big-*": DOLLAR}, RPM)
    rules = ClientRules(id="client-a", limits=DOLLAR, team="red")
    assert [str(found.scope) for found in book.limits_for(rules, "fast")] == [
        "client client-a",
        "team red",
        "model fast",
        "all clients",
    ]
    assert [found.scope for found in book.limits_for(ClientRules(id="b", team="blue"), "big-one")] == [
        Scope("model", "big-*"),
        Scope("all"),
    ]


def test_nothing_is_limited_without_limits() -> None:
    book = Rulebook([TeamRules("blue", models=("a",))], {"fast": ScopeLimits()}, ScopeLimits())
    assert book.is_empty
    assert book.limits_for(ClientRules(id="a", team="blue"), "fast") == ()
    assert not Rulebook([], {"fast": RPM}, ScopeLimits()).is_empty


def test_models_are_those_that_the_client_and_its_team_may_use() -> None:
    book = Rulebook([TeamRules("red", models=("groq/*",))], {}, ScopeLimits())
    client = ClientRules(id="a", models=("*/llama-*", "gpt-4o"), team="red")
    assert book.may_use(client, "groq/llama-3")
    assert not book.may_use(client, "openai/llama-3")
    assert not book.may_use(client, "gpt-4o")
    assert book.may_use(ClientRules(id="b"), "anything")


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/chat/completions", "/chat/completions"),
        ("/chat/completions", "/chat/completions"),
        ("/openai/v1/responses", "/responses"),
        ("/openai/deployments/a/b/chat/completions", "/chat/completions"),
        ("/openai/deployments/a/audio/speech", "/audio/speech"),
        ("/v1beta/models/g:generateContent", "/models/g:generateContent"),
        ("/v1/files/file-1", "/files/file-1"),
    ],
)
def test_an_endpoint_has_one_name_below_every_base_url(path: str, endpoint: str) -> None:
    assert endpoint_of(path) == endpoint


def test_endpoints_are_patterns() -> None:
    book = Rulebook([], {}, ScopeLimits())
    client = ClientRules(id="a", endpoints=("/chat/completions", "/files*"))
    assert book.may_call(client, "/files/file-1")
    assert not book.may_call(client, "/batches")
    assert lists_endpoint(client, "/files")
    assert book.may_call(ClientRules(), "/batches")
    assert not lists_endpoint(ClientRules(), "/batches")
