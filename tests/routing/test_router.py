"""Model names -> providers."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from sanic_proxy.config.model import ModelSettings, ProviderOff
from sanic_proxy.config.targets import Affinity, TargetSettings
from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.dialects.responses import RESPONSES
from sanic_proxy.errors import ClientError, ModelNotFound, ProviderNotConfigured
from sanic_proxy.observability.record import Attempt, Client, RequestRecord
from sanic_proxy.openai import codec
from sanic_proxy.routing.router import Router

OFF = (ProviderOff("openai", "OPENAI_API_KEY"), ProviderOff("google", "GOOGLE_API_KEY", ("gemini",)))


def router(*names: str, is_on: bool = True) -> Router[str]:
    return Router({name: [name] for name in names}, OFF, is_on=is_on, embedded=frozenset({"echo"}))


def resolved(model: str, *names: str, is_on: bool = True) -> tuple[str, str]:
    (target,) = router(*names, is_on=is_on).resolve(model)
    return target.provider, target.upstream_model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("groq/llama-3.1-70b", ("groq", "llama-3.1-70b")),
        ("GROQ/Llama", ("groq", "Llama")),
        ("groq/openai/gpt-oss", ("groq", "openai/gpt-oss")),
        ("groq:llama", ("groq", "llama")),
        ("Groq:openai/gpt-oss:free", ("groq", "openai/gpt-oss:free")),
        ("groq/llama:8b", ("groq", "llama:8b")),
        ("straico/openai/gpt-4o", ("straico", "openai/gpt-4o")),
        ("claude-haiku-4-5-5", ("straico", "claude-haiku-4-5-5")),
        ("llama:8b", ("straico", "llama:8b")),
        ("openai:gpt-4o", ("straico", "openai:gpt-4o")),
        ("echo/echo", ("echo", "echo")),
    ],
)
def test_the_prefix_names_the_provider_and_is_cut_off(model: str, expected: tuple[str, str]) -> None:
    assert resolved(model, "groq", "straico", "echo") == expected


def test_off_everything_is_straicos_unchanged() -> None:
    assert resolved("openai/gpt-4o", "straico", "groq", is_on=False) == ("straico", "openai/gpt-4o")
    with pytest.raises(ProviderNotConfigured, match="STRAICO_API_KEY"):
        resolved("openai/gpt-4o", "groq", is_on=False)


def test_without_prefix_the_only_provider_is_meant() -> None:
    assert resolved("llama", "groq") == ("groq", "llama")
    assert resolved("llama", "groq", "echo") == ("groq", "llama")


@pytest.mark.parametrize("model", ["gpt-4o", "openai/gpt-oss-120b", "meta-llama/Llama-3/8b", "Gemini/x"])
@pytest.mark.parametrize("names", [("groq",), ("groq", "echo"), ("echo",), ("straico",)])
def test_an_unprefixed_name_goes_to_the_only_provider_unchanged(model: str, names: tuple[str, ...]) -> None:
    assert resolved(model, *names) == (names[0], model)


def test_a_provider_with_an_alias_is_still_the_only_one() -> None:
    google = ["google"]
    made = Router({"google": google, "gemini": google}, OFF, is_on=True, embedded=frozenset())
    assert made.resolve("openai/gpt-oss")[0].upstream_model == "openai/gpt-oss"


def test_without_any_provider_the_error_names_what_to_set() -> None:
    with pytest.raises(ProviderNotConfigured, match="OPENAI_API_KEY"):
        resolved("llama")


def names_advised(error: ClientError) -> list[str]:
    return re.findall(r"`([^` ]+/[^` ]+)`", error.message)


@pytest.mark.parametrize("names", [("groq", "xai"), ("groq", "xai", "echo"), ("straico", "groq")])
@pytest.mark.parametrize("model", ["llama", "openai/gpt-oss-120b", "gorq/llama", "Gemini/" + "x" * 150])
def test_where_a_name_cannot_be_placed_the_message_has_one_that_works(
    model: str, names: tuple[str, ...]
) -> None:
    try:
        resolved(model, *names)
    except ClientError as exc:
        (advised,) = names_advised(exc)
        provider, upstream_model = resolved(advised, *names)
        assert provider in names
        assert upstream_model.endswith(model)
    else:
        assert (names[0], model) == ("straico", "llama")


def test_with_the_router_off_and_no_straico_the_header_that_is_advised_works() -> None:
    with pytest.raises(ProviderNotConfigured) as caught:
        resolved("llama", "groq", "echo", is_on=False)
    advised = re.findall(r"`x-provider: (\w+)`", caught.value.message)
    (target,) = router("groq", "echo", is_on=False).named(advised[0], "llama")
    assert (target.provider, target.upstream_model) == ("groq", "llama")


def test_an_unknown_prefix_names_the_known_ones() -> None:
    with pytest.raises(ModelNotFound, match="groq, xai"):
        resolved("gorq/llama", "groq", "xai")


@pytest.mark.parametrize(
    ("model", "variable"), [("openai/x", "OPENAI_API_KEY"), ("Gemini/x", "GOOGLE_API_KEY")]
)
def test_a_known_provider_without_key_names_its_variable(model: str, variable: str) -> None:
    with pytest.raises(ProviderNotConfigured, match=variable):
        resolved(model, "groq", "xai")


@pytest.mark.row(54)
@pytest.mark.parametrize(
    "model", ["", "groq/", "groq:", "/x", "a\nb", "groq/\x00", "x" * 257, "groq/a\u2028"]
)
def test_a_name_that_cannot_be_one_is_not_found(model: str) -> None:
    with pytest.raises(ModelNotFound):
        resolved(model, "groq")


def test_a_name_of_ones_own_stands_for_targets_in_order() -> None:
    models = [ModelSettings("fast", (TargetSettings("groq", "llama"), TargetSettings("xai", "grok")))]
    made = Router(
        {"groq": ["groq", "groq"], "xai": ["xai"]}, OFF, is_on=True, embedded=frozenset(), models=models
    )
    targets = made.resolve("fast")
    assert [(target.provider, target.upstream_model) for target in targets] == [
        ("groq", "llama"),
        ("groq", "llama"),
        ("xai", "grok"),
    ]
    assert [target.label for target in targets] == ["groq/llama", "groq#2/llama", "xai/grok"]
    assert targets[0].health is not targets[1].health


def test_what_is_known_of_a_target_is_known_under_every_name_of_it() -> None:
    models = [ModelSettings("fast", (TargetSettings("groq", "llama"),))]
    made = Router({"groq": ["groq"]}, OFF, is_on=True, embedded=frozenset(), models=models)
    (fast,), (direct,) = made.resolve("fast"), made.resolve("groq/llama")
    (other,) = made.resolve("groq/other")
    assert fast.health is direct.health is not other.health
    assert fast.key_health is direct.key_health is other.key_health


def test_endpoints_share_a_key_and_its_rate_limits_but_not_their_health() -> None:
    made = router("groq")
    (chat,), (embeddings,) = made.resolve("groq/llama"), made.resolve("groq/llama", "POST /embeddings")
    (named,) = made.named("groq", "llama", "POST /embeddings")
    assert chat.health is not embeddings.health is named.health
    assert chat.key_health is embeddings.key_health is named.key_health
    assert chat.rate_limit is embeddings.rate_limit is named.rate_limit
    assert chat.budget is embeddings.budget is named.budget


def test_a_provider_may_be_named_whatever_the_model() -> None:
    (target,) = router("groq", "xai").named(" XAI ", "openai/gpt")
    assert (target.provider, target.upstream_model) == ("xai", "openai/gpt")
    with pytest.raises(ClientError, match="groq, xai"):
        router("groq", "xai").named("nope")
    with pytest.raises(ProviderNotConfigured, match="OPENAI_API_KEY"):
        router("groq").named("openai")


def test_a_provider_that_is_named_without_a_model_is_another_thing_than_its_key() -> None:
    (target,) = router("groq").named("groq")
    assert target.health is not target.key_health
    assert target.label == "groq"


@pytest.mark.parametrize("model", ["", "a\nb", "x" * 300])
def test_a_model_is_checked_however_the_provider_is_selected(model: str) -> None:
    with pytest.raises(ModelNotFound):
        router("groq").named("groq", model)


def test_a_target_has_the_limit_of_its_model_or_that_of_the_proxy() -> None:
    models = [
        ModelSettings("own", (TargetSettings("groq", "m"),), 0.0),
        ModelSettings("none", (TargetSettings("groq", "m"),)),
    ]
    made = Router(
        {"groq": ["groq"]}, OFF, is_on=True, embedded=frozenset(), models=models, first_content_s=30.0
    )
    limits = [made.resolve(name)[0].first_content_s for name in ("own", "none", "groq/m")]
    assert limits == [0.0, 30.0, 30.0]


def own(*models: ModelSettings, draws: Sequence[float] = ()) -> Router[str]:
    names = ("groq", "xai")
    return Router(
        {name: [name] for name in names},
        OFF,
        is_on=False,
        embedded=frozenset(),
        models=models,
        random=iter(draws).__next__,
    )


def labels(made: Router[str], model: str) -> list[str]:
    return [target.label for target in made.resolve(model)]


def test_a_star_in_a_name_is_put_into_the_targets() -> None:
    made = own(
        ModelSettings("*", (TargetSettings("xai", "*"),)),
        ModelSettings("gpt-*", (TargetSettings("groq", "openai/gpt-*"), TargetSettings("xai", "grok"))),
        ModelSettings("gpt-oss", (TargetSettings("xai", "exact"),)),
    )
    assert labels(made, "gpt-4o") == ["groq/openai/gpt-4o", "xai/grok"]
    assert labels(made, "gpt-oss") == ["xai/exact"]
    assert labels(made, "groq/llama") == ["xai/groq/llama"]


@pytest.mark.parametrize("model", ["gpt-\n", "gpt-" + "x" * 256, "gpt-\x7f"])
def test_a_name_that_matches_a_star_is_checked(model: str) -> None:
    with pytest.raises(ModelNotFound):
        own(ModelSettings("gpt-*", (TargetSettings("groq", "*"),))).resolve(model)


def test_with_the_router_off_an_unknown_name_is_answered_with_those_that_are_listed() -> None:
    target = (TargetSettings("groq", "llama"),)
    made = own(ModelSettings("fast", target), ModelSettings("secret", target, hidden=True))
    assert labels(made, "secret") == ["groq/llama"]
    with pytest.raises(ModelNotFound, match=r"there are: fast$"):
        made.resolve("slow")


def test_each_request_draws_its_own_order() -> None:
    targets = (TargetSettings("groq", "a", weight=1), TargetSettings("xai", "b", weight=1))
    made = own(ModelSettings("fast", targets, strategy="weighted"), draws=(0.1, 0.9, 0.9, 0.1))
    assert labels(made, "fast") == ["groq/a", "xai/b"]
    assert labels(made, "fast") == ["xai/b", "groq/a"]


def test_a_targets_own_order_comes_before_the_place_in_the_list() -> None:
    targets = (TargetSettings("groq", "a", order=2), TargetSettings("xai", "b"))
    assert labels(own(ModelSettings("fast", targets)), "fast") == ["xai/b", "groq/a"]


def test_limits_are_counted_for_the_target_and_not_for_each_request() -> None:
    limited = ModelSettings("fast", (TargetSettings("groq", "a", rpm=1),))
    made = own(limited, ModelSettings("free", (TargetSettings("groq", "a"),)))
    (first,), (second,), (free,) = made.resolve("fast"), made.resolve("fast"), made.resolve("free")
    assert first.load is second.load is not None
    assert free.load is None


def test_a_model_without_limits_of_its_own_waits_as_the_proxy_says() -> None:
    target = (TargetSettings("groq", "a"),)
    models = [
        ModelSettings("fast", target),
        ModelSettings("slow", target, max_wait_s=60.0),
        ModelSettings("none", target, max_wait_s=0.0),
    ]
    providers = {"groq": ["groq"]}
    made = Router(providers, (), is_on=True, embedded=frozenset(), models=models, max_wait_s=10.0)
    queues = [made.resolve(name)[0].request_queue for name in ("fast", "slow", "none", "groq/a")]
    assert [queue and queue.max_wait_s for queue in queues] == [10.0, 60.0, None, 10.0]
    assert made.resolve("fast")[0].request_queue is queues[0]


def test_keys_with_weights_are_drawn_for_each_request() -> None:
    drawn = iter((0.9, 0.1, 0.1, 0.9))
    made = Router(
        {"groq": ["g1", "g2"]},
        (),
        is_on=True,
        embedded=frozenset(),
        key_weights_of=lambda _: (1.0, 2.0),
        random=lambda: next(drawn),
    )
    assert [made.resolve("groq/a")[0].provider for _ in range(2)] == ["g2", "g1"]


# Sessions

KEYS = {"groq": ["g1", "g2"], "xai": ["x1", "x2"]}
TARGETS = (
    TargetSettings("groq", "a"),
    TargetSettings("xai", "b"),
    TargetSettings("groq", "spare", order=2),
)


def balanced(affinity: Affinity = "auto") -> Router[str]:
    return Router(
        KEYS,
        (),
        is_on=False,
        embedded=frozenset(),
        models=[ModelSettings("m", TARGETS, strategy="weighted", affinity=affinity)],
        name_of=lambda key: {"g": "groq", "x": "xai"}[key[0]],
        random=random.Random(1).random,
        clock=lambda: 1000.0,
    )


def chat_fields(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}


def order_of(
    made: Router[str], fields: dict[str, Any], client: str = "", **headers: str
) -> tuple[list[str], RequestRecord]:
    record = RequestRecord("id", "POST", "/", client=Client(client, client), started=1000.0)
    dialect = CHAT if "messages" in fields else RESPONSES
    asked = dialect.parse(codec.dumps(fields), fields, None)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return [target.provider for target in made.resolve_conversation(asked, sent, record)], record


def digest_of(record: RequestRecord) -> bytes:
    return b"" if record.session is None else record.session.digest


def test_a_session_has_a_target_and_a_key_of_its_own() -> None:
    made = balanced()
    firsts = Counter[str]()
    for number in range(200):
        name = str(number)
        first, record = order_of(made, chat_fields(user=name))
        assert record.session
        assert first[:4] == order_of(made, chat_fields(user=name))[0][:4]
        assert sorted(first[:4]) == ["g1", "g2", "x1", "x2"]
        assert sorted(first[4:]) == ["g1", "g2"]
        firsts[first[0]] += 1
    assert min(firsts.values()) > 25


def test_clients_with_the_same_name_for_a_session_have_different_ones() -> None:
    made = balanced()
    records = [order_of(made, chat_fields(), str(n), x_session_affinity="s")[1] for n in range(9)]
    assert len({digest_of(record) for record in records}) == 9


@pytest.mark.parametrize(("affinity", "digests"), [("auto", 0), ("prompt", 1), ("off", 0)])
def test_conversations_without_a_name_are_known_by_their_beginning_if_that_is_wanted(
    affinity: Affinity, digests: int
) -> None:
    made = balanced(affinity)
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    first, second = order_of(made, chat_fields()), order_of(made, chat_fields(messages=turns))
    assert digest_of(first[1]) == digest_of(second[1])
    assert bool(digest_of(first[1])) == bool(digests)


def test_off_and_in_order_sessions_do_not_matter() -> None:
    assert not order_of(balanced("off"), chat_fields(user="u"))[1].session
    made = own(ModelSettings("m", TARGETS))
    targets, record = order_of(made, chat_fields(user="u"))
    assert targets == ["groq", "xai", "groq"]
    assert not record.session


def test_encrypted_reasoning_goes_where_it_was_made() -> None:
    made = balanced()
    item = {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
    fields = {"model": "m", "input": [item, {"role": "user", "content": "Hi"}]}
    guess, record = order_of(made, fields)
    labels = {"g1": "groq/a", "g2": "groq#2/a", "x1": "xai/b", "x2": "xai#2/b"}
    maker = guess[2]
    record.attempts = [Attempt(labels[guess[0]], "invalid_encrypted_content"), Attempt(labels[maker], "ok")]
    assert record.session is not None
    record.session.record_answer(record)
    assert order_of(made, fields)[0][0] == maker
    target = next(target for target in made.resolve("m") if target.label == labels[maker])
    target.rate_limit.limit(1000.0, 5.0)
    assert order_of(made, fields)[0] == [maker]  # no other one could read it


def test_the_prompt_goes_where_its_beginning_is_known() -> None:
    made = Router(
        KEYS,
        (),
        is_on=False,
        embedded=frozenset(),
        models=[ModelSettings("m", TARGETS, strategy="prefix")],
        random=random.Random(1).random,
        clock=lambda: 1000.0,
    )
    firsts = {}
    for text in ("a" * 4000, "b" * 4000, "c" * 4000):
        turns = [{"role": "user", "content": text}]
        firsts[text], record = order_of(made, chat_fields(messages=turns, user="u"))
        assert not record.session
    for text, order in firsts.items():
        turns = [{"role": "user", "content": text}, {"role": "user", "content": "more"}]
        again = order_of(made, chat_fields(messages=turns))[0]
        assert again[0] == order[0]
        assert len(again) == 6
    home = next(iter(firsts.values()))[0]
    target = next(target for target in made.resolve("m") if target.provider == home)
    target.rate_limit.limit(1000.0, 5.0)
    turns = [{"role": "user", "content": "a" * 4000}]
    assert order_of(made, chat_fields(messages=turns))[0][3] == home


def test_a_request_of_many_megabytes_is_not_compared() -> None:
    made = own(ModelSettings("m", TARGETS[:2], strategy="prefix"), draws=[0.5] * 100)
    turns = [{"role": "user", "content": "a" * 5_000_000}]
    order_of(made, chat_fields(messages=turns))
    assert not any(len(t.statistics.prefixes) for t in made.resolve("m") if t.statistics is not None)
