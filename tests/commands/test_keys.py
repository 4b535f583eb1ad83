"""`sanic-proxy keys`, beside a running proxy and without one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sanic_proxy.cli import main
from tests.support.admin import bearer
from tests.support.commands import run_command
from tests.support.proxy import GENEROUS_S, Proxy, running_proxy

WORKERS = 3


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="module")
def settings(directory: Path) -> dict[str, str]:
    return {"SANIC_PROXY_STATE_DIR": str(directory / "state"), "SANIC_PROXY_REQUIRE_KEYS": "on"}


@pytest.fixture(scope="module")
def keyed(settings: dict[str, str]) -> Iterator[Proxy]:
    with running_proxy(settings, "--workers", str(WORKERS)) as proxy:
        yield proxy


def keys(directory: Path, settings: dict[str, str], *arguments: str) -> Any:
    done = run_command(directory, settings, "keys", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def statuses(proxy: Proxy, key: str, times: int = 8 * WORKERS) -> set[int]:
    """The statuses of requests on connections of their own, which the kernel spreads over the workers."""
    return {proxy.chat("echo/echo", headers=bearer(key)).status for _ in range(times)}


def until_refused(proxy: Proxy, key: str) -> None:
    """Until every worker refuses the key; the design allows half a second, a busy machine more."""
    until = time.monotonic() + GENEROUS_S
    while statuses(proxy, key) != {401}:
        assert time.monotonic() < until


def test_a_key_is_made_used_replaced_blocked_and_deleted(
    directory: Path, settings: dict[str, str], keyed: Proxy
) -> None:
    assert statuses(keyed, "sk-" + "x" * 43) == {401}
    made = keys(directory, settings, "create", "app", "--rpm", "600", "--budget", "20/month")
    key = made["secret"]
    assert statuses(keyed, key) == {200}
    rotated = keys(directory, settings, "rotate", "app", "--grace", "1h")
    new = rotated["secret"]
    assert (rotated["id"], rotated["rpm"]) == (made["id"], 600)
    assert statuses(keyed, key) == statuses(keyed, new) == {200}
    assert keys(directory, settings, "block", "app")["status"] == "revoked"
    until_refused(keyed, key)
    until_refused(keyed, new)
    refusal = keyed.chat("echo/echo", headers=bearer(new))
    assert (refusal.error["code"], refusal.error["message"]) == ("key_blocked", "The API key is blocked")
    keys(directory, settings, "unblock", made["id"])
    until = time.monotonic() + GENEROUS_S
    while statuses(keyed, new) != {200}:
        assert time.monotonic() < until
    assert keys(directory, settings, "delete", new)["status"] == "deleted"
    until_refused(keyed, new)
    assert key not in keyed.log
    assert new not in keyed.log


def test_keys_are_limited_where_only_they_have_limits(tmp_path: Path) -> None:
    """Neither the settings nor an administrator limit anything, and the proxy runs when the key is made."""
    plain = "sk-of-the-settings-0123456789"
    settings = {
        "SANIC_PROXY_API_KEYS": plain,
        "SANIC_PROXY_STATE_DIR": str(tmp_path / "state"),
        "SANIC_PROXY_PROVIDERS": "echo",
    }
    with running_proxy(settings, "--workers", str(WORKERS)) as proxy:
        assert statuses(proxy, plain) == {200}
        assert statuses(proxy, "sk-of-nobody-0123456789abcdef") == {401}
        assert not (tmp_path / "state").exists()
        key = keys(tmp_path, settings, "create", "app", "--rpm", "2", "--burst", "2")["secret"]
        found = [proxy.chat("echo/echo", headers=bearer(key)) for _ in range(6 * WORKERS)]
        assert [reply.status for reply in found].count(200) == 2
        assert {reply.error["code"] for reply in found if reply.status != 200} == {"rate_limit_exceeded"}
        assert statuses(proxy, plain) == {200}
        keys(tmp_path, settings, "update", "app", "--rpm", "6000", "--burst", "6000")
        until = time.monotonic() + GENEROUS_S
        while statuses(proxy, key) != {200}:
            assert time.monotonic() < until
        keys(tmp_path, settings, "block", "app")
        until_refused(proxy, key)
    done = run_command(tmp_path, settings, "spend", "--by", "key", "--json")
    attempts = {entry["key"]: entry["attempts"] for entry in json.loads(done.stdout)}
    assert attempts["app"] >= 2 + 8 * WORKERS


def test_a_proxy_that_starts_with_keys_limits_them(tmp_path: Path) -> None:
    settings = {
        "SANIC_PROXY_API_KEYS": "sk-of-the-settings-0123456789",
        "SANIC_PROXY_STATE_DIR": str(tmp_path / "state"),
        "SANIC_PROXY_UNOWNED_FILES": "app",
    }
    key = keys(tmp_path, settings, "create", "app", "--budget", "1/day", "--models", "echo/*")["secret"]
    with running_proxy(settings, "--workers", "1") as proxy:
        assert statuses(proxy, key, 2) == {200}
        batch = {"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        reply = proxy.request("POST", "/v1/batches?provider=echo", batch, bearer(key))
        assert (reply.status, reply.error["code"]) == (403, "endpoint_not_allowed")


def test_the_log_names_the_client(directory: Path, settings: dict[str, str], keyed: Proxy) -> None:
    key = keys(directory, settings, "create", "logged")["secret"]
    reply = keyed.chat("echo/echo", headers=bearer(key))
    assert "client=logged " in keyed.log_line(reply.headers["x-request-id"])


def test_an_expired_key_is_refused(directory: Path, settings: dict[str, str], keyed: Proxy) -> None:
    key = keys(directory, settings, "create", "old", "--expires", "2020-01-01")["secret"]
    reply = keyed.chat("echo/echo", headers=bearer(key))
    assert (reply.status, reply.error["code"]) == (401, "key_expired")
    assert reply.error["message"] == "The API key expired at 2020-01-01T00:00:00Z"


def test_an_existing_key_is_imported(directory: Path, settings: dict[str, str], keyed: Proxy) -> None:
    old = "sk-of-another-gateway-0123"
    environ = {**settings, "OLD_KEY": f" {old} "}
    done = run_command(directory, environ, "keys", "create", "migrated", "--key-env", "OLD_KEY")
    assert (done.returncode, done.stdout) == (0, "")
    assert old not in done.stderr
    assert statuses(keyed, old) == {200}
    again = run_command(directory, environ, "keys", "create", "again", "--key-env", "OLD_KEY")
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_the_key_alone_is_on_standard_output(tmp_path: Path) -> None:
    environ = {"SANIC_PROXY_STATE_DIR": str(tmp_path / "state")}
    done = run_command(tmp_path, environ, "keys", "create", "app")
    assert re.fullmatch(r"sk-[0-9A-Za-z]{43}\n", done.stdout)
    assert "SANIC_PROXY_REQUIRE_KEYS" in done.stderr
    assert (tmp_path / "state" / "state.sqlite").stat().st_mode & 0o777 == 0o600


def test_keys_are_listed_and_shown_without_their_secrets(tmp_path: Path) -> None:
    environ = {"SANIC_PROXY_STATE_DIR": str(tmp_path), "SANIC_PROXY_REQUIRE_KEYS": "on"}
    assert keys(tmp_path, environ, "list") == []
    options = (
        *("--models", "fast, groq/*", "--endpoints", "/v1/chat/completions", "--tpm", "1000"),
        *("--concurrent", "2", "--burst", "5", "--rpm", "10", "--max-requests", "9", "--max-cost", "1.5"),
        *("--budget", "0.1/day", "--budget", "20", "--time-zone", "Europe/Berlin", "--strict"),
        *("--soft", "90,50", "--metadata", "owner=a=b", "--expires", "2030-01-01", "--ui"),
    )
    made = keys(tmp_path, environ, "create", "app", *options)
    secret = made.pop("secret")
    shown = keys(tmp_path, environ, "show", secret)
    assert shown == made
    assert shown == {
        "id": made["id"],
        "name": "app",
        "key": f"{secret[:4]}...{secret[-4:]}",
        "status": "active",
        "models": ["fast", "groq/*"],
        "endpoints": ["/chat/completions"],
        "rpm": 10,
        "tpm": 1000,
        "concurrent": 2,
        "burst": 5,
        "budget": [
            {"usd": 0.1, "per": "day", "time_zone": "Europe/Berlin", "strict": True},
            {"usd": 20.0, "per": "total", "time_zone": "Europe/Berlin", "strict": True},
        ],
        "soft": [50, 90],
        "max_requests": 9,
        "max_cost": 1.5,
        "expires": "2030-01-01T00:00:00Z",
        "team": None,
        "metadata": {"owner": "a=b"},
        "ui": True,
        "created": made["created"],
        "updated": made["updated"],
    }
    text = run_command(tmp_path, environ, "keys", "list").stdout
    assert re.search(
        r"^app +sk-.\.\.\..{4} +active +\S+Z +rpm 10, tpm 1000, concurrent 2, 0.10 USD/day", text, re.M
    )
    assert secret not in text
    assert (
        "budget:       0.10 USD/day, 20.00 USD/total"
        in run_command(tmp_path, environ, "keys", "show", "app").stdout
    )
    changed = keys(tmp_path, environ, "update", "app", "--rpm", "20", "--models", "")
    assert (changed["rpm"], changed["models"], changed["tpm"], changed["ui"]) == (20, [], 1000, True)
    assert keys(tmp_path, environ, "update", "app", "--no-ui")["ui"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "nobody"), "There is no key 'nobody'"),
        (("show", "sk-0123456789abcdef"), "There is no key 'sk-0...cdef'"),
        (("create", "key_x"), "does not begin with sk- or key_"),
        (("create", "a", "--rpm", "0"), "rpm: expected a whole number from 1"),
        (("create", "a", "--team", "red"), "there is no [teams.red]"),
        (("create", "a", "--budget", "much"), "expected US dollars and a period such as 20/month"),
        (("create", "a", "--budget", "1/year"), "per: expected one of day, week, month, total"),
        (("create", "a", "--expires", "30x"), "Expected a duration such as 30s"),
        (("create", "a", "--key-env", "UNSET"), "the variable UNSET is not set"),
        (("rotate", "a", "--grace", "9999d"), "A grace period lasts from 0 to 366 days"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SANIC_PROXY_STATE_DIR", str(tmp_path / "state"))
    with pytest.raises(SystemExit) as ended:
        main(["keys", *arguments])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (1, "")
    assert message in printed.err.splitlines()[0]


def test_help_has_examples(tmp_path: Path) -> None:
    done = run_command(tmp_path, {}, "keys", "--help")
    assert "sanic-proxy keys create app --models" in done.stdout
    assert run_command(tmp_path, {}, "keys", "create").returncode == 2
