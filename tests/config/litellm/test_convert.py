"""LiteLLM's file -> our tables and a note for each key."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config import reference
from sanic_proxy.config.litellm import convert, keys
from sanic_proxy.config.litellm.document import Document, parse
from sanic_proxy.config.litellm.explain import explanation
from sanic_proxy.config.litellm.toml import dumps
from sanic_proxy.config.litellm.vendors import VENDORS
from sanic_proxy.config.loader import explain, load
from sanic_proxy.config.model import SettingsError
from tests.support.proxy import clean_environment

KEY = "sk-canary-0123456789"
FILES = sorted((Path(__file__).parents[2] / "litellm").glob("*.yaml"))


def converted(text: str, **environ: str) -> convert.Converted:
    return convert.convert(parse(text), environ)


def model(params: str, rest: str = "") -> str:
    return f"model_list:\n  - model_name: m\n    litellm_params: {{{params}}}\n{rest}"


def provider(params: str, **environ: str) -> tuple[str, dict[str, Any], Any]:
    """The one provider that a deployment needs: name, table, and the target."""
    tables = converted(model(params), **environ).tables
    ((name, table),) = tables["providers"].items()
    return name, table, tables["models"]["m"]["targets"][0]


def noted(found: convert.Converted, outcome: str) -> str:
    return "\n".join(str(note) for note in found.notes if note.outcome == outcome)


@pytest.mark.parametrize(
    ("params", "name", "table", "target"),
    [
        ("model: gpt-4o", "openai", {}, "openai/gpt-4o"),
        ("model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY", "openai", {}, "openai/gpt-4o"),
        ("model: openai/x, api_key: os.environ/MINE", "openai", {"api_key_env": "MINE"}, "openai/x"),
        ("model: x, custom_llm_provider: groq", "groq", {}, "groq/x"),
        ("model: groq/openai/gpt-oss", "groq", {}, "groq/openai/gpt-oss"),
        ("model: gemini/gemini-2.5-pro", "google", {}, "google/gemini-2.5-pro"),
        ("model: together_ai/org/x", "together", {}, "together/org/x"),
        ("model: fireworks_ai/x", "fireworks", {}, "fireworks/accounts/fireworks/models/x"),
        ("model: openai/responses/gpt-5", "openai", {}, "openai/gpt-5"),
        ("model: ollama/llama3", "ollama", {"base_url": "http://localhost:11434/v1"}, "ollama/llama3"),
        (
            "model: hosted_vllm/x, api_base: 'http://h:1/v1/'",
            "vllm",
            {"base_url": "http://h:1/v1"},
            "vllm/x",
        ),
        (
            "model: lm_studio/x, api_base: 'http://h:1'",
            "lmstudio",
            {"base_url": "http://h:1/v1"},
            "lmstudio/x",
        ),
        (
            "model: openai/x, api_base: 'http://h/v1/chat/completions'",
            "openai-compatible",
            {"base_url": "http://h/v1"},
            "openai-compatible/x",
        ),
        (
            "model: openai/x, api_base: 'https://api.openai.com/v1/'",
            "openai",
            {},
            "openai/x",
        ),
        ("model: some/x, api_base: 'http://h/v1'", "openai-compatible", {"base_url": "http://h/v1"}, None),
        (
            "model: azure/d, api_base: 'https://r.azure.com/openai/deployments/d', api_key: os.environ/K",
            "azure",
            {"base_url": "https://r.azure.com/openai/v1", "api_key_env": "K"},
            "azure/d",
        ),
        ("model: claude-opus-4-5", "anthropic", {}, "anthropic/claude-opus-4-5"),
        (
            "model: anthropic/c, api_base: 'http://h'",
            "anthropic-2",
            {"base_url": "http://h/v1", "dialects": ["messages"], "key_header": "x-api-key"},
            "anthropic-2/c",
        ),
        (
            "model: deepinfra/x",
            "deepinfra",
            {"base_url": "https://api.deepinfra.com/v1/openai", "api_key_env": "DEEPINFRA_API_KEY"},
            "deepinfra/x",
        ),
        (
            "model: groq/x, timeout: 700, organization: org",
            "groq",
            {
                "headers": {"openai-organization": "org"},
                "timeouts": {"first_byte": 700.0, "idle": 120.0, "total": 700.0},
            },
            "groq/x",
        ),
    ],
)
def test_a_deployment_is_a_target_of_a_provider(
    params: str, name: str, table: dict[str, Any], target: str | None
) -> None:
    found_name, found_table, found_target = provider(params)
    assert (found_name, found_table) == (name, table)
    assert target is None or found_target == target


def test_an_address_may_be_a_variable() -> None:
    params = "model: ollama/x, api_base: os.environ/HERE"
    assert provider(params, HERE="http://h:1")[1] == {"base_url": "${HERE}/v1"}
    assert provider(params, HERE="http://h:1/v1")[1] == {"base_url": "${HERE}"}
    assert provider(params, HERE="http://h:1/")[1] == {"base_url": "http://h:1/v1"}
    assert provider(params)[1] == {"base_url": "${HERE}"}
    assert provider("model: ollama/x", OLLAMA_API_BASE="http://h:1")[1] == {
        "base_url": "${OLLAMA_API_BASE}/v1"
    }


def test_without_a_key_the_vendors_variable_is_used_as_in_litellm() -> None:
    params = "model: openai/x, api_base: 'http://h/v1'"
    assert "api_key_env" not in provider(params)[1]
    assert provider(params, OPENAI_API_KEY=KEY)[1]["api_key_env"] == "OPENAI_API_KEY"


def test_deployments_share_a_provider_if_address_key_and_headers_are_equal() -> None:
    text = """
        model_list:
        - {model_name: a, litellm_params: {model: groq/a}}
        - {model_name: b, litellm_params: {model: groq/b, api_key: os.environ/OTHER}}
        - {model_name: c, litellm_params: {model: groq/c, api_key: os.environ/OTHER}}
        - {model_name: d, litellm_params: {model: groq/d, extra_headers: {x: y}}}
        - {model_name: e, litellm_params: {model: openai/e, api_base: 'http://h/v1'}}
        - {model_name: f, litellm_params: {model: openai/f, api_base: 'http://i/v1'}}
    """
    tables = converted(text).tables
    assert {name: table["targets"] for name, table in tables["models"].items()} == {
        "a": ["groq/a"],
        "b": ["groq-2/b"],
        "c": ["groq-2/c"],
        "d": ["groq-3/d"],
        "e": ["openai-compatible/e"],
        "f": ["openai-compatible-2/f"],
    }
    assert tables["providers"]["groq-2"] == {
        "base_url": "https://api.groq.com/openai/v1",
        "api_key_env": "OTHER",
    }
    assert tables["providers"]["groq-3"]["api_key_env"] == "GROQ_API_KEY"


def test_values_written_in_the_file_become_variables() -> None:
    text = model(
        f"model: groq/x, api_key: {KEY}, extra_headers: {{x-token: header-canary}}",
        "general_settings: {master_key: sk-master-canary}",
    )
    found = converted(text, LITELLM_KEY_1="taken")
    shown = explanation(found, "config.yaml")
    assert sorted(found.variables.values()) == sorted([KEY, "header-canary", "sk-master-canary"])
    assert "taken" not in found.variables.values()
    assert not any(value in shown for value in found.variables.values())
    for name in found.variables:
        assert f"# {name} (line " in shown
    assert tomllib.loads(shown)["proxy"]["api_keys"] == tomllib.loads(shown)["proxy"]["admin_key"].split()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ("model: bedrock/x", "the provider 'bedrock' is not supported"),
        ("model: vertex_ai/x", "the provider 'vertex_ai' is not supported"),
        ("model: gemni/x", "did you mean 'gemini'?"),
        ("model: my-own-model", "it is not known whose model it is"),
        ("model: hosted_vllm/x", "an api_base is needed"),
        ("model: openai/x, api_base: ftp://x", "no http or https URL"),
        ("model: openai/x, api_base: [1]", "api_base is no text"),
        ("model: openai/x, api_key: 'a b'", "the key holds"),
        ("api_key: x", "there is no model"),
        ("model: openai/", "is not"),
    ],
)
def test_what_cannot_be_served_is_named_and_left_out(params: str, said: str) -> None:
    found = converted(model(params, "  - {model_name: n, litellm_params: {model: groq/n}}\n"))
    assert list(found.tables["models"]) == ["n"]
    if said != "is not":
        assert said in noted(found, "ignored")
    assert "this target is left out" in noted(found, "ignored")


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "just text",
        "model_list: 1",
        "model_list: [1, {}, {model_name: x}, {model_name: 'ä', litellm_params: {model: groq/x}}]",
        "litellm_settings: []\nrouter_settings: null\ngeneral_settings: 3",
        "router_settings: {fallbacks: [1, [2], {a: 1}, {b: [{}]}], model_group_alias: [1], num_retries: x}",
    ],
)
def test_a_file_of_another_shape_is_no_failure(text: str) -> None:
    found = converted(text)
    assert "models" not in found.tables
    assert found.notes


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=True) | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = {section: sorted(rules) for section, rules in keys.SECTIONS.items()}


def section(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(NAMES[name]) | st.text(max_size=5), JSON, max_size=6)


PARAMS = st.fixed_dictionaries(
    {"model": st.sampled_from([f"{vendor}/x" for vendor in VENDORS] + ["*", "openai/*", "gpt-4o"])},
    optional={
        "api_base": st.sampled_from(["http://h", "http://h/v1", "os.environ/X", "nonsense"]),
        "api_key": st.sampled_from(["none", "os.environ/X", KEY]),
        "rpm": JSON,
        "weight": st.floats(0, 1e30) | JSON,
        "order": JSON,
        "timeout": st.floats(0, 1e30) | JSON,
        "stream_timeout": st.floats(0, 1e30) | JSON,
        "input_cost_per_token": st.floats(0, 1e30) | JSON,
        "extra_headers": JSON,
    },
)
ENTRIES = st.fixed_dictionaries(
    {"model_name": st.sampled_from(["a", "b", "c*"]), "litellm_params": PARAMS},
    optional={"model_info": section("model_list[].model_info")},
)
DOCUMENTS = st.fixed_dictionaries(
    {"model_list": st.lists(ENTRIES, max_size=4)},
    optional={
        "router_settings": section("router_settings"),
        "litellm_settings": section("litellm_settings"),
        "environment_variables": JSON,
    },
)


@given(DOCUMENTS)
def test_whatever_a_file_holds_the_result_is_a_file_that_we_read(root: dict[str, Any]) -> None:
    found = convert.convert(Document(root), {"X": "x"})
    validator = jsonschema_rs.validator_for(orjson.loads(reference.toml_schema()))
    tables = tomllib.loads(dumps(found.tables))
    assert tables == found.tables
    validator.validate(tables)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_toml_that_is_shown_does_what_the_file_does(path: Path, tmp_path: Path) -> None:
    variables = {
        name: f"{name.lower()}-canary-1"
        for name in (
            *("OPENAI_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY", "OPENROUTER_API_KEY", "ANTHROPIC_API_KEY"),
            *("GEMINI_API_KEY", "LAB_KEY", "INNER_KEY", "RELAY_TOKEN", "AZURE_API_KEY", "AZURE_API_KEY_2"),
            *("DATABASE_URL", "LITELLM_MASTER_KEY"),
        )
    }
    variables |= dict.fromkeys(("LAB_BASE", "VLLM_BASE", "ANTHROPIC_API_BASE"), "http://lab.example/v1")
    text = path.read_text("utf-8").replace("UPSTREAM", "http://upstream.example")
    (tmp_path / "config.yaml").write_text(text)
    direct = load({**variables, "SANIC_PROXY_CONFIG": "config.yaml"}, tmp_path)
    (tmp_path / "proxy.toml").write_text(
        explain({**variables, "SANIC_PROXY_CONFIG": "config.yaml"}, tmp_path)
    )
    made_up = convert.convert(parse(text), variables).variables
    by_hand = load({**made_up, **variables, "SANIC_PROXY_CONFIG": "proxy.toml"}, tmp_path)
    assert by_hand.models == direct.models
    assert [(p.name, p.base_url, p.timeouts, p.headers) for p in by_hand.providers] == [
        (p.name, p.base_url, p.timeouts, p.headers) for p in direct.providers
    ]
    assert [[key.reveal() for key in p.keys] for p in by_hand.providers] == [
        [key.reveal() for key in p.keys] for p in direct.providers
    ]
    assert (by_hand.attempts, by_hand.router) == (direct.attempts, direct.router)


def test_every_key_of_a_file_has_a_note() -> None:
    for path in FILES:
        document = parse(path.read_text("utf-8"))
        found = {note.where for note in convert.convert(document, {}).notes}
        wanted = {
            where
            for keys_ in document.lines
            if keys_ and isinstance(keys_[-1], str)
            if len(keys_) == 1
            or (len(keys_) == 2 and str(keys_[0]).endswith("_settings"))
            or (len(keys_) == 4 and keys_[2] in {"litellm_params", "model_info"})
            for where in [_shown(keys_)]
        }
        assert wanted - found == set()


def _shown(path: tuple[str | int, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


@pytest.mark.parametrize(
    ("settings_", "attempts", "per_target"),
    [
        ("", None, None),
        ("litellm_settings: {num_retries: 0}", 1, 1),
        ("litellm_settings: {num_retries: 2}\nrouter_settings: {num_retries: 3}", 4, 4),
        ("router_settings: {num_retries: 1, fallbacks: [{m: [n, o]}]}", 6, 2),
        ("litellm_settings: {num_retries: 50}", 20, 10),
        ("litellm_settings: {num_retries: -1}", None, None),
    ],
)
def test_retries_are_attempts(settings_: str, attempts: int | None, per_target: int | None) -> None:
    proxy = converted(model("model: groq/x", settings_)).tables["proxy"]
    assert (proxy.get("attempts"), proxy.get("attempts_per_target")) == (attempts, per_target)


def test_costs_become_prices_and_those_of_the_deployment_prevail() -> None:
    text = """
        model_list:
        - model_name: a
          litellm_params:
            model: groq/a1
            input_cost_per_token: 2.0e-06
            output_cost_per_token: os.environ/OUT
            cache_creation_input_token_cost: -1
          model_info:
            input_cost_per_token: 9.0e-06
            input_cost_per_token_above_200k_tokens: 4.0e-06
            output_cost_per_token_batches: "5e-06"
            max_output_tokens: 8192
    """
    found = converted(text, OUT="1e-05")
    (target,) = found.tables["models"]["a"]["targets"]
    assert target["prices"] == {
        "input": 2.0,
        "output": 10.0,
        "tiers": [{"above": 200_000, "input": 4.0}],
        "batch": {"output": 5.0},
    }
    assert target["max_output"] == 8192
    assert "cost" not in noted(found, "ignored")
    wrong = converted(model("model: groq/x, input_cost_per_token: dear"))
    assert "expected a number from 0" in noted(wrong, "ignored")


def test_fallbacks_are_targets_behind_the_own_ones() -> None:
    text = """
        model_list:
        - {model_name: a, litellm_params: {model: groq/a1, order: 5}}
        - {model_name: a, litellm_params: {model: groq/a2, order: 2}}
        - {model_name: a, litellm_params: {model: groq/a3, order: 2}}
        - {model_name: b, litellm_params: {model: groq/b}}
        - {model_name: c, litellm_params: {model: groq/c}}
        - {model_name: "w/*", litellm_params: {model: "xai/*"}}
        litellm_settings:
          fallbacks: [{a: [b]}, {b: [c, a]}, {"*": [w/grok, nothing]}]
    """
    found = converted(text)
    targets = found.tables["models"]["a"]["targets"]
    assert [(target["model"], target.get("order", 1)) for target in map(_table, targets)] == [
        ("a1", 2),
        ("a2", 1),
        ("a3", 1),
        ("b", 3),
        ("c", 4),
        ("grok", 5),
    ]
    assert "'nothing' is no model that can be served" in noted(found, "ignored")
    assert found.tables["models"]["a"]["strategy"] == "weighted"
    assert "strategy" not in found.tables["models"]["c"]


def _table(target: Any) -> dict[str, Any]:
    if isinstance(target, dict):
        return target
    provider_, _, model_ = target.partition("/")
    return {"provider": provider_, "model": model_}


GROUP = """
    model_list:
    - {model_name: a, litellm_params: {model: groq/a1, rpm: 30, tpm: 5}}
    - {model_name: a, litellm_params: {model: groq/a2, rpm: 90, max_parallel_requests: 3}}
"""


@pytest.mark.parametrize(
    ("router", "strategy", "first"),
    [
        ("{}", "weighted", {"weight": 30}),
        ("{routing_strategy: simple-shuffle}", "weighted", {"weight": 30}),
        ("{routing_strategy: least-busy}", "least_in_flight", {}),
        ("{routing_strategy: latency-based-routing}", "least_latency", {}),
        ("{routing_strategy: cost-based-routing}", "weighted", {"weight": 30}),
        ("{routing_strategy: usage-based-routing-v2}", "weighted", {"weight": 30, "rpm": 30, "tpm": 5}),
        ("{enable_pre_call_checks: true}", "weighted", {"weight": 30, "rpm": 30, "tpm": 5}),
        (
            "{optional_pre_call_checks: [enforce_model_rate_limits]}",
            "weighted",
            {"weight": 30, "rpm": 30, "tpm": 5},
        ),
    ],
)
def test_the_strategy_says_what_rpm_means(router: str, strategy: str, first: dict[str, Any]) -> None:
    table = converted(f"{GROUP}\n    router_settings: {router}").tables["models"]["a"]
    assert table["strategy"] == strategy
    target = _table(table["targets"][0])
    assert {name: target[name] for name in ("weight", "rpm", "tpm") if name in target} == first
    assert table["targets"][1]["concurrent"] == 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("router_settings: {timeout: 30}", {"timeout_first_byte": 30.0, "timeout_idle": 30.0}),
        ("router_settings: {disable_cooldowns: true}", {"breaker": False}),
        ("litellm_settings: {json_logs: true}", {"log_format": "json"}),
        ("general_settings: {max_request_size_mb: 2}", {"max_body_bytes": 2097152}),
        ("general_settings: {global_max_parallel_requests: 9}", {"max_concurrent": 9}),
        ("router_settings: {stream_timeout: 5}", {"timeout_first_content": 5.0}),
        ("general_settings: {master_key: ''}", {}),
    ],
)
def test_settings_of_the_proxy(line: str, expected: dict[str, Any]) -> None:
    assert converted(line).tables.get("proxy", {}) == expected


def test_a_star_for_a_star_lets_prefixes_pick_the_provider() -> None:
    text = model("model: groq/x", "  - {model_name: '*', litellm_params: {model: '*'}}")
    found = converted(text)
    assert found.tables["proxy"] == {"router": "on"}
    assert list(found.tables["models"]) == ["m"]


def test_credentials_and_defaults_are_filled_in() -> None:
    text = """
        model_list:
        - {model_name: m, litellm_params: {model: openai/x, litellm_credential_name: lab}}
        - {model_name: n, litellm_params: {model: openai/x, litellm_credential_name: none}}
        credential_list:
        - {credential_name: lab, credential_values: {api_base: 'http://lab/v1', api_key: os.environ/LAB}}
        router_settings: {default_litellm_params: {max_parallel_requests: 4}}
    """
    found = converted(text)
    assert found.tables["providers"]["openai-compatible"] == {
        "base_url": "http://lab/v1",
        "api_key_env": "LAB",
    }
    assert found.tables["models"]["m"]["targets"][0]["concurrent"] == 4
    assert "no credential of that name" in noted(found, "ignored")


def test_targets_without_their_variables_are_left_out_and_named(tmp_path: Path) -> None:
    text = """
        model_list:
        - {model_name: both, litellm_params: {model: groq/x}}
        - {model_name: both, litellm_params: {model: xai/x, api_key: os.environ/NOT_SET}}
        - {model_name: gone, litellm_params: {model: xai/x, api_key: os.environ/NOT_SET}}
        - {model_name: lost, litellm_params: {model: xai/y, api_key: os.environ/NOT_SET}}
        router_settings: {context_window_fallbacks: [{lost: [both]}]}
    """
    (tmp_path / "c.yml").write_text(text)
    found = load({"SANIC_PROXY_CONFIG": "c.yml", "GROQ_API_KEY": KEY}, tmp_path)
    assert [(m.name, [t.label for t in m.targets]) for m in found.models] == [("both", ["groq/x"])]
    said = "the variable NOT_SET is not set: without xai, of both, gone, lost"
    assert f"c.yml: {said}" in found.warnings


@pytest.mark.parametrize("value", ["[a, b]", "{a: b}"])
def test_a_master_key_of_another_shape_does_not_open_the_proxy(tmp_path: Path, value: str) -> None:
    (tmp_path / "c.yaml").write_text(f"general_settings: {{master_key: {value}}}")
    with pytest.raises(SettingsError, match="everybody could use the proxy"):
        load({"SANIC_PROXY_CONFIG": "c.yaml"}, tmp_path)


def test_a_master_key_that_is_not_set_does_not_open_the_proxy(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("general_settings: {master_key: os.environ/NOT_SET}")
    with pytest.raises(SettingsError) as caught:
        load({"SANIC_PROXY_CONFIG": "c.yaml"}, tmp_path)
    assert caught.value.problems == [
        "c.yaml: the variable NOT_SET of the master_key is not set: everybody could use the proxy"
    ]


def test_a_file_of_which_nothing_can_be_served_is_refused_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "model_list:\n"
        "  - {model_name: a, litellm_params: {model: bedrock/x}}\n"
        "  - {model_name: b, litellm_params: {model: groq/x}}\n"
    )
    with pytest.raises(SettingsError) as caught:
        load({"SANIC_PROXY_CONFIG": "c.yaml"}, tmp_path)
    assert caught.value.problems == [
        "c.yaml: none of the models can be served",
        "c.yaml: line 2: model_list[0].litellm_params.model: ignored: "
        "the provider 'bedrock' is not supported: this target is left out",
        "c.yaml: the variable GROQ_API_KEY is not set: without groq, of b",
    ]


def test_the_variable_of_the_master_key_counts_without_a_key_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing\n")
    found = load({"SANIC_PROXY_CONFIG": "c.yaml", "LITELLM_MASTER_KEY": KEY}, tmp_path)
    assert [key.reveal() for key in found.api_keys] == [KEY]
    assert found.admin_key is not None


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "environment_variables: {GROQ_API_KEY: from-the-file-1, XAI_API_KEY: os.environ/OTHER}\n"
        "general_settings: {master_key: sk-file-canary}\n"
    )
    environ = {"SANIC_PROXY_CONFIG": "c.yaml", "OTHER": "other-canary"}
    keys_of = {p.name: p.keys[0].reveal() for p in load(environ, tmp_path).providers}
    assert keys_of == {"groq": "from-the-file-1", "xai": "other-canary"}
    own = {**environ, "GROQ_API_KEY": "own-canary-1", "SANIC_PROXY_API_KEYS": "own-client-key"}
    found = load(own, tmp_path)
    assert found.providers[0].keys[0].reveal() == "own-canary-1"
    assert [key.reveal() for key in found.api_keys] == ["own-client-key"]


def test_without_such_a_file_nothing_of_this_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[proxy]\nport = 9000\n")
    code = "import sys, sanic_proxy.app, sanic_proxy.config.loader as l; l.load(); print([*sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=clean_environment({"SANIC_PROXY_CONFIG": "p.toml"}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'sanic_proxy.config.loader'" in done.stdout
    assert "'yaml'" not in done.stdout
    assert "sanic_proxy.config.litellm" not in done.stdout


def test_a_file_that_is_no_yaml_is_a_problem_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("a: 1\nb: [\n")
    with pytest.raises(SettingsError, match="line 3"):
        load({"SANIC_PROXY_CONFIG": "c.yaml"}, tmp_path)
    with pytest.raises(SettingsError, match="No such file"):
        load({"SANIC_PROXY_CONFIG": "d.yaml"}, tmp_path)
    with pytest.raises(SettingsError, match="--explain needs"):
        explain({}, tmp_path)


def test_parameters_are_for_requests_without_them() -> None:
    text = """
        model_list:
        - model_name: m
          litellm_params: {model: groq/x, temperature: 0.2, stop: [a], extra_body: {custom: {deep: 1}}}
        - model_name: m
          litellm_params: {model: groq/y, temperature: 0.3}
        - model_name: n
          litellm_params: {model: groq/z, seed: .nan, tools: null, additional_drop_params: [store, 1]}
    """
    found = converted(text)
    assert found.tables["models"]["m"]["default_params"] == {
        "temperature": 0.2,
        "stop": ["a"],
        "custom": {"deep": 1},
    }
    assert "parameters of the name's first deployment" in noted(found, "approximate")
    assert found.tables["models"]["n"]["remove_params"] == ["store"]
    assert "default_params" not in found.tables["models"]["n"]
    assert noted(found, "ignored").count("cannot be a parameter") == 2


@pytest.mark.parametrize(
    ("whole", "own", "is_removed"),
    [
        ("", "", False),
        ("true", "", True),
        ("true", ", drop_params: false", False),
        ("", ", drop_params: true", True),
    ],
)
def test_what_a_vendor_rejects_is_removed_if_it_is_to_be_dropped(
    whole: str, own: str, is_removed: bool
) -> None:
    found = converted(model(f"model: groq/x{own}", f"litellm_settings: {{drop_params: {whole or 'null'}}}"))
    table = found.tables["providers"]["groq"]
    assert table.get("remove_params", []) == (
        ["logit_bias", "logprobs", "top_logprobs"] if is_removed else []
    )
