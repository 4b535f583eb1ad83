"""Flags, environment, `.env`, TOML and defaults -> Settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import Settings, SettingsError

KEY = "gsk-canary-0123456789"


def names(settings: Settings) -> list[str]:
    return [provider.name for provider in settings.providers]


def problems(tmp_path: Path, environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ, tmp_path)
    return caught.value.problems


def with_toml(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "proxy.toml").write_text(text)
    return {"SANIC_PROXY_CONFIG": "proxy.toml"}


def test_the_defaults_are_those_of_the_table(tmp_path: Path) -> None:
    settings = load({}, tmp_path)
    assert (settings.host, settings.port, settings.max_body_bytes) == ("127.0.0.1", 8000, 33_554_432)
    clocks = settings.timeouts
    assert (clocks.connect_s, clocks.first_byte_s, clocks.idle_s, clocks.total_s) == (5, 300, 120, 600)
    pool = settings.pool
    assert (pool.idle_per_host, pool.idle_timeout_s, pool.tcp_keepalive_s) == (512, 15, 90)
    assert (settings.heartbeat, settings.heartbeat_interval_s, settings.access_log) == ("", 3, True)


def test_the_environment_wins_over_dotenv_and_that_over_toml(tmp_path: Path) -> None:
    environ = with_toml(tmp_path, "[proxy]\nport = 1\ntimeout_idle = 1\nlog_level = 'error'\n")
    (tmp_path / ".env").write_text("SANIC_PROXY_PORT=2\nSANIC_PROXY_TIMEOUT_IDLE=2\n")
    settings = load({**environ, "SANIC_PROXY_PORT": "3"}, tmp_path)
    assert (settings.port, settings.timeouts.idle_s, settings.log_level) == (3, 2, "error")


def test_the_toml_file_may_be_named_in_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("SANIC_PROXY_CONFIG=proxy.toml\n")
    with_toml(tmp_path, "[proxy]\nport = 9\naccess_log = false\ncors_origins = ['https://a.example']\n")
    settings = load({}, tmp_path)
    assert (settings.port, settings.access_log, settings.cors_origins.texts) == (
        9,
        False,
        ("https://a.example",),
    )


def test_a_blank_variable_switches_a_dotenv_entry_off(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"GROQ_API_KEY={KEY}\n")
    assert names(load({}, tmp_path)) == ["groq"]
    assert names(load({"GROQ_API_KEY": ""}, tmp_path)) == ["echo"]


def test_all_problems_are_reported_together_without_keys(tmp_path: Path) -> None:
    environ = {
        "SANIC_PROXY_PORT": "x",
        "SANIC_PROXY_TIMEOUT_TOTAL": "0",
        "SANIC_PROXY_ROUTER": "maybe",
        "GROQ_API_KEY": "secret key",
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": "ftp://x",
        "SANIC_PROXY_CONFIG": "missing.toml",
    }
    found = problems(tmp_path, environ)
    assert len(found) == 6
    assert not any("secret key" in problem or KEY in problem for problem in found)


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        "[proxy]\nprot = 1",
        "[other]\n",
        "[providers]\nmylab = 1",
        "[providers.mylab]\n",
        "[providers.MyLab]\nbase_url = 'http://x'",
        "[providers.echo]\nbase_url = 'http://x'",
        "[providers.gemini]\nbase_url = 'http://x'",
        "[providers.mylab]\nbase_url = 'http://user:pw@x'",
        "[providers.mylab]\nbase_url = 'http://x'\nheaders = {a = \"x\\ny\"}",
        "[providers.mylab]\nbase_url = 'http://x'\ntimeouts = {idle = 0}",
        "[providers.mylab]\nbase_url = 'http://x'\ntimeouts = {idel = 1}",
        "[providers.mylab]\nbase_url = 'http://x'\ncommit_delay = -1",
        "[models.fast]\ntargets = ['groq/m']\nfirst_content = -1",
        "[models.fast]\ntargets = ['groq/m']\nfirst_contents = 1",
        "[providers.mylab]\nbase_url = 'http://x'\nmodels = [1]",
        "[providers.mylab]\nbase_url = 'http://x'\ntypo = 1",
        "not toml",
    ],
)
def test_a_wrong_toml_file_is_refused(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, with_toml(tmp_path, text))


def test_a_custom_provider_is_a_table(tmp_path: Path) -> None:
    text = """
        [providers.mylab]
        base_url = "https://lab.example/v1/"
        api_key_env = "MYLAB_KEY"
        headers = {"X-Team" = "blue"}
        models = ["small", "large"]
        commit_delay = 0
        timeouts = {idle = 7}
    """
    environ = with_toml(tmp_path, text)
    assert names(load(environ, tmp_path)) == ["echo"]
    (mylab,) = load({**environ, "MYLAB_KEY": KEY}, tmp_path).providers
    assert (mylab.base_url, mylab.headers, mylab.models) == (
        "https://lab.example/v1",
        (("x-team", "blue"),),
        ("small", "large"),
    )
    assert (mylab.commit_delay_s, mylab.timeouts.idle_s, mylab.timeouts.total_s) == (0, 7, 600)
    assert mylab.key is not None
    assert mylab.key.reveal() == KEY


@pytest.mark.parametrize(
    ("text", "default_s", "own_s"),
    [
        ("", 30, None),
        ("first_content = 12", 30, 12),
        ("first_content = 0", 30, 0),
        ("[proxy]\ntimeout_first_content = 0", 0, None),
    ],
)
def test_the_limit_for_the_first_content_is_the_proxys_or_the_models(
    tmp_path: Path, text: str, default_s: float, own_s: float | None
) -> None:
    environ = with_toml(tmp_path, f"[models.fast]\ntargets = ['groq/m']\n{text}\n")
    settings = load({**environ, "GROQ_API_KEY": "g"}, tmp_path)
    assert settings.first_content_s == default_s
    assert settings.models[0].first_content_s == own_s


def test_a_known_provider_may_be_adjusted(tmp_path: Path) -> None:
    environ = with_toml(tmp_path, "[providers.groq]\ncommit_delay = 1\n")
    (groq,) = load({**environ, "GROQ_API_KEY": KEY}, tmp_path).providers
    assert (groq.base_url, groq.commit_delay_s) == ("https://api.groq.com/openai/v1", 1)


def test_echo_is_on_only_while_there_is_no_other(tmp_path: Path) -> None:
    assert names(load({}, tmp_path)) == ["echo"]
    assert names(load({"GROQ_API_KEY": KEY}, tmp_path)) == ["groq"]
    assert names(load({"GROQ_API_KEY": KEY, "SANIC_PROXY_ECHO": "on"}, tmp_path)) == ["groq", "echo"]
    assert names(load({"SANIC_PROXY_ECHO": "off"}, tmp_path)) == []


def test_the_router_steps_aside_for_straico(tmp_path: Path) -> None:
    straico = {"STRAICO_API_KEY": KEY}
    assert load({}, tmp_path).router_is_on
    assert not load(straico, tmp_path).router_is_on
    assert load({**straico, "SANIC_PROXY_ROUTER": "on"}, tmp_path).router_is_on
    assert not load({**straico, "SANIC_PROXY_ROUTER": "off"}, tmp_path).router_is_on


def test_the_commit_delay_is_three_for_straico_and_ten_else(tmp_path: Path) -> None:
    keys = {"STRAICO_API_KEY": KEY, "GROQ_API_KEY": KEY}
    delays = {p.name: p.commit_delay_s for p in load(keys, tmp_path).providers}
    assert delays == {"straico": 3, "groq": 10}
    both = load({**keys, "SANIC_PROXY_STREAM_COMMIT_DELAY": "0"}, tmp_path).providers
    assert {p.commit_delay_s for p in both} == {0}


def test_a_local_server_is_on_when_its_address_is_set(tmp_path: Path) -> None:
    (ollama,) = load({"OLLAMA_BASE_URL": "http://127.0.0.1:11434/v1"}, tmp_path).providers
    assert (ollama.name, ollama.key) == ("ollama", None)
    assert ("ollama", "OLLAMA_BASE_URL") in {
        (off.name, off.variable) for off in load({}, tmp_path).providers_off
    }


def test_an_outbound_proxy_is_used_unless_excepted(tmp_path: Path) -> None:
    environ = {
        "GROQ_API_KEY": KEY,
        "OLLAMA_BASE_URL": "http://10.0.0.1/v1",
        "VLLM_BASE_URL": "http://lab.example/v1",
        "HTTPS_PROXY": "http://user:pw@proxy:3128",
        "http_proxy": "proxy:3128",
        "NO_PROXY": "lab.example",
    }
    proxies = {p.name: p.proxy and p.proxy.reveal() for p in load(environ, tmp_path).providers}
    assert proxies == {"groq": "http://user:pw@proxy:3128", "ollama": "http://proxy:3128", "vllm": None}


def test_an_unknown_variable_is_reported(tmp_path: Path) -> None:
    settings = load({"SANIC_PROXY_TIMEOUT_IDEL": "1"}, tmp_path)
    assert settings.warnings == (
        "SANIC_PROXY_TIMEOUT_IDEL is not a setting of this proxy; did you mean 'SANIC_PROXY_TIMEOUT_IDLE'?",
    )


def test_every_origin_needs_keys(tmp_path: Path) -> None:
    assert problems(tmp_path, {"SANIC_PROXY_CORS_ORIGINS": "*"})
    keyed = load({"SANIC_PROXY_CORS_ORIGINS": "*", "SANIC_PROXY_API_KEYS": "k"}, tmp_path)
    assert keyed.cors_origins.allow_all


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("5", 5.0), ("2m", 120.0)])
def test_a_hang_timeout_is_off_or_longer_than_a_few_heartbeats(
    tmp_path: Path, text: str, seconds: float
) -> None:
    assert load({"SANIC_PROXY_HANG_TIMEOUT": text}, tmp_path).hang_timeout_s == seconds
    found = problems(tmp_path, {"SANIC_PROXY_HANG_TIMEOUT": "4.9"})
    assert found == ["SANIC_PROXY_HANG_TIMEOUT: must be 0 (off) or at least 5 seconds"]
