"""Provider and model tables, and settings that cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import ModelSettings, SettingsError
from sanic_proxy.config.prices import Prices
from sanic_proxy.config.targets import TargetSettings

KEY = "gsk-canary-0123456789"


def problems(directory: Path, environ: dict[str, str], toml: str = "") -> str:
    if toml:
        (directory / "proxy.toml").write_text(toml)
        environ = {**environ, "SANIC_PROXY_CONFIG": "proxy.toml"}
    with pytest.raises(SettingsError) as caught:
        load(environ, directory)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.groq.com/openai/v1/chat/completions",
        "https://api.groq.com/openai/v1/chat/completions/",
        "https://api.groq.com/openai/v1/models",
        "https://api.groq.com/openai/v1/embeddings",
    ],
)
def test_a_base_url_that_ends_in_an_endpoint_is_explained(tmp_path: Path, url: str) -> None:
    assert "leave out /" in problems(tmp_path, {"GROQ_API_KEY": KEY, "GROQ_BASE_URL": url})


@pytest.mark.parametrize("url", ["ftp://x", "x", "http://", "http://x:99999", "http://x?y=1", "http://x/ y"])
def test_a_base_url_that_cannot_work_is_refused(tmp_path: Path, url: str) -> None:
    assert "expected an http or https URL" in problems(tmp_path, {"GROQ_API_KEY": KEY, "GROQ_BASE_URL": url})


def test_a_password_in_a_base_url_is_not_shown(tmp_path: Path) -> None:
    message = problems(tmp_path, {"GROQ_API_KEY": KEY, "GROQ_BASE_URL": f"http://me:{KEY}@x"})
    assert KEY not in message
    assert "***" in message


@pytest.mark.parametrize("name", ["OLLAMA", "VLLM", "LMSTUDIO", "LLAMACPP"])
def test_a_local_server_without_a_path_gets_v1_and_a_log_line(tmp_path: Path, name: str) -> None:
    settings = load({f"{name}_BASE_URL": "http://host:11434/"}, tmp_path)
    assert settings.providers[0].base_url == "http://host:11434/v1"
    assert settings.warnings == (f"{name}_BASE_URL has no path: http://host:11434/v1 is used",)


def test_a_table_whose_key_is_not_set_is_explained(tmp_path: Path) -> None:
    (tmp_path / "proxy.toml").write_text(
        "[providers.lab]\nbase_url = 'http://x/v1'\napi_key_env = 'LAB_KEY'\n"
    )
    settings = load({"SANIC_PROXY_CONFIG": "proxy.toml"}, tmp_path)
    assert settings.warnings == ("[providers.lab] is off: the variable LAB_KEY is not set",)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[providers.gorq]\n", "did you mean 'groq'?"),
        ("[providers.gemini]\nbase_url = 'http://x'", "use [providers.google]"),
        ("[providers.x]\nbase_url = 'http://x'\nheader = {}", "did you mean 'headers'?"),
        ("[providers.x]\nbase_url = 'http://x'\ntimeouts = 5", "expected a table with connect, first_byte"),
        (
            "[providers.x]\nbase_url = 'http://x'\ntimeouts = {idle = 'x'}",
            "[providers.x] timeouts idle: expected seconds",
        ),
        ("[models.fast]\n", "needs targets"),
        ("[models.fast]\ntargets = ['ech/x']", "did you mean 'echo'?"),
        ("[models.fast]\ntargets = 'echo/x'", "expected a list"),
        ("[models.fast]\ntargets = [{provider='echo', model='x', weightt=1}]", "did you mean 'weight'?"),
        ("[models.fast]\ntargets = [{provider='echo', model='x', weight=-1}]", "weight: expected a number"),
        ("[models.fast]\ntargets = [{provider='echo', model='x', rpm=0}]", "rpm: expected a whole number"),
        (
            "[models.fast]\ntargets = [{provider='echo', model='x', only_after='x'}]",
            "only_after: expected one",
        ),
        (
            "[models.fast]\ntargets = [{provider='echo', model='x', prices={out=1}}]",
            "is not a key of a table",
        ),
        ("[models.fast]\ntargets = [{provider='echo', model=1}]", "model: expected the provider's name"),
        (
            "[models.fast]\ntargets = ['echo/x']\nstrategy = 'random'",
            "one of order, weighted, least_in_flight, least_latency, prefix",
        ),
        ("[models.fast]\ntargets = ['echo/x']\naffinity = true", "one of auto, prompt, off"),
        (
            "[providers.x]\nbase_url = 'http://x'\nmetrics_url = 'x/metrics'",
            "[providers.x] metrics_url: expected an http or https URL",
        ),
        (
            "[models.fast]\ntargets = ['echo/x']\nhedge = 5",
            "expected true, false or a table with the keys after",
        ),
        (
            "[models.fast]\ntargets = ['echo/x']\nhedge = {after='p5'}",
            'after: expected a percentile from "p10"',
        ),
        ("[models.fast]\ntargets = ['echo/x']\nhedge = {budget=2}", "budget: expected a number from 0 to 1"),
        ("[models.fast]\ntargets = ['echo/x']\nhedge = {budgte=0}", "did you mean 'budget'?"),
        ('[models." a"]\ntargets = ["echo/x"]', "no space at its ends"),
    ],
)
def test_a_wrong_table_is_explained(tmp_path: Path, toml: str, message: str) -> None:
    assert message in problems(tmp_path, {}, toml)


def test_targets_say_what_is_known_of_them_or_the_model_says_it(tmp_path: Path) -> None:
    (tmp_path / "proxy.toml").write_text("""
        [models."big*"]
        strategy = "weighted"
        hidden = true
        context_window = 128000
        prices = { input = 0.5, output = 1 }
        targets = [
            "echo/*",
            { provider = "Echo", model = "x", order = 2, weight = 0.5, rpm = 3, tpm = 4, concurrent = 5, \
context_window = 6, prices = { input = 2.5, cached_input = 0.1 }, only_after = "content_filter" },
        ]
    """)
    (model,) = load({"SANIC_PROXY_CONFIG": "proxy.toml"}, tmp_path).models
    assert model == ModelSettings(
        "big*",
        (
            TargetSettings("echo", "*", context_window=128000, prices=Prices(input=0.5, output=1)),
            TargetSettings(
                "echo", "x", 2, 0.5, 3, 4, 5, 6, Prices(input=2.5, cached_input=0.1), "content_filter"
            ),
        ),
        strategy="weighted",
        hidden=True,
    )


def test_with_the_router_off_a_provider_that_no_name_reaches_is_a_warning(tmp_path: Path) -> None:
    keys = {"STRAICO_API_KEY": KEY, "GROQ_API_KEY": KEY}
    assert "no model name reaches groq" in load(keys, tmp_path).warnings[0]
    (tmp_path / "proxy.toml").write_text("[models.fast]\ntargets = ['groq/m']\n")
    assert load({**keys, "SANIC_PROXY_CONFIG": "proxy.toml"}, tmp_path).warnings == ()


def test_with_the_router_off_and_nothing_to_reach_it_does_not_start(tmp_path: Path) -> None:
    message = problems(tmp_path, {"GROQ_API_KEY": KEY, "SANIC_PROXY_ROUTER": "off"})
    assert "no model name reaches a provider" in message


def test_keys_have_weights(tmp_path: Path) -> None:
    toml = "[providers.groq]\nkey_weights = [3, 0.5]\n"
    (tmp_path / "proxy.toml").write_text(toml)
    environ = {"GROQ_API_KEY": f"{KEY},{KEY}-2", "SANIC_PROXY_CONFIG": "proxy.toml"}
    assert load(environ, tmp_path).providers[0].key_weights == (3, 0.5)
    one_key = problems(tmp_path, {"GROQ_API_KEY": KEY}, toml)
    assert one_key == "[providers.groq] key_weights: 2 weights for 1 keys"


@pytest.mark.parametrize("weights", ["[]", "[0, 0]", "[-1, 2]", "['a', 1]", "3"])
def test_weights_that_cannot_work_are_explained(tmp_path: Path, weights: str) -> None:
    toml = f"[providers.groq]\nkey_weights = {weights}\n"
    assert "key_weights: expected a list of numbers" in problems(tmp_path, {"GROQ_API_KEY": KEY}, toml)
