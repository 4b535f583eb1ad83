"""Keys made at run time by HTTP: LiteLLM's documented calls, and those below /admin/keys."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from sanic_proxy.governance.litellm_keys import FIELDS
from tests.support.admin import ADMIN_KEY, CLIENT_KEY, bearer
from tests.support.proxy import GENEROUS_S, Proxy, running_proxy

ADMIN = bearer(ADMIN_KEY)
WORKERS = 3
TOML = """
[teams.core]
rpm = 1000

[clients.fixed]
key_env = "FIXED_KEY"
"""


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("keyed")
    (directory / "proxy.toml").write_text(TOML)
    settings = {
        "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY,
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(directory),
        "FIXED_KEY": CLIENT_KEY,
    }
    with running_proxy(settings, "--workers", str(WORKERS)) as proxy:
        yield proxy


def curl(proxy: Proxy, path: str, data: Any = None, *options: str) -> Any:
    """The JSON that curl prints, called as LiteLLM documents it."""
    command = ["curl", "--silent", "--show-error", "--location", f"{proxy.url}{path}"]
    command += ["--header", f"Authorization: Bearer {ADMIN_KEY}", *options]
    if data is not None:
        command += ["--header", "Content-Type: application/json", "--data", json.dumps(data)]
    return json.loads(subprocess.run(command, capture_output=True, check=True, timeout=GENEROUS_S).stdout)


def statuses(proxy: Proxy, key: str) -> set[int]:
    return {proxy.chat("echo/echo", headers=bearer(key)).status for _ in range(6 * WORKERS)}


def until(proxy: Proxy, key: str, status: int) -> None:
    """Until every worker answers with `status`; the design allows half a second, a busy machine more."""
    end = time.monotonic() + GENEROUS_S
    while statuses(proxy, key) != {status}:
        assert time.monotonic() < end


def test_litellms_calls_from_the_first_to_the_last(keyed: Proxy) -> None:
    made = curl(
        keyed,
        "/key/generate",
        {
            "models": ["echo/*", "fast"],
            "duration": "30d",
            "key_alias": "my-key",
            "max_budget": 10,
            "budget_duration": "30d",
            "soft_budget": 8,
            "rpm_limit": 600,
            "tpm_limit": 100_000,
            "max_parallel_requests": 50,
            "metadata": {"team": "core-infra", "app": "app2"},
            "user_id": "user-1234",
            "team_id": "core",
            "aliases": {},
            "ui": True,
        },
    )
    key, token = made["key"], made["token"]
    assert key.startswith("sk-")
    assert made["token_id"] == token
    assert statuses(keyed, key) == {200}
    info = curl(keyed, f"/key/info?key={token}")
    assert info["key"] == token
    assert re.fullmatch("20[0-9-]{6}01T00:00:00Z", info["info"].pop("budget_reset_at"))
    assert info["info"] | {"expires": None, "created_at": None, "updated_at": None} == {
        "key_name": f"sk-...{key[-4:]}",
        "key_alias": "my-key",
        "status": "active",
        "models": ["echo/*", "fast"],
        "allowed_routes": [],
        "spend": 0.0,
        "max_budget": 10.0,
        "soft_budget": 8.0,
        "budget_duration": "30d",
        "budget_limits": [],
        "budget_limits_usage": {},
        "rpm_limit": 600,
        "tpm_limit": 100_000,
        "max_parallel_requests": 50,
        "expires": None,
        "metadata": {"team": "core-infra", "app": "app2"},
        "ui": True,
        "blocked": False,
        "user_id": "user-1234",
        "team_id": "core",
        "aliases": {},
        "config": {},
        "permissions": {},
        "model_max_budget": {},
        "created_at": None,
        "updated_at": None,
    }
    again = curl(keyed, f"/key/info?key={key}")["info"]
    assert again | info["info"] == again
    updated = curl(keyed, "/key/update", {"key": key, "max_budget": 100, "rpm_limit": None, "duration": "-1"})
    assert (updated["key"], updated["max_budget"], updated["budget_duration"]) == (key, 100.0, "30d")
    assert (updated["rpm_limit"], updated["tpm_limit"], updated["expires"]) == (None, 100_000, None)
    listed = curl(keyed, "/key/list?page=1&size=10&key_alias=my-key")
    assert listed == {"keys": [token], "total_count": 1, "current_page": 1, "total_pages": 1}
    full = curl(keyed, "/key/list?return_full_object=true&user_id=user-1234")
    assert [entry["token"] for entry in full["keys"]] == [token]

    new = curl(
        keyed, f"/key/{key}/regenerate", {"grace_period": "24h", "max_budget": 50}, "--request", "POST"
    )
    assert (new["key_alias"], new["max_budget"]) == ("my-key", 50.0)
    assert statuses(keyed, key) == statuses(keyed, new["key"]) == {200}

    assert curl(keyed, "/key/block", {"key": new["key"]})["blocked"] is True
    until(keyed, key, 401)
    until(keyed, new["key"], 401)
    assert curl(keyed, "/key/unblock", {"key": new["token"]})["blocked"] is False
    until(keyed, new["key"], 200)
    assert curl(keyed, "/key/delete", {"key_aliases": ["my-key"]}) == {"deleted_keys": ["my-key"]}
    until(keyed, new["key"], 401)
    assert curl(keyed, f"/key/info?key={new['token']}")["info"]["status"] == "deleted"
    assert key not in keyed.log
    assert new["key"] not in keyed.log


def test_an_existing_key_is_imported(keyed: Proxy) -> None:
    literal = "sk-from-litellm-0123456789"
    assert keyed.chat("echo/echo", headers=bearer(literal)).status == 401
    assert curl(keyed, "/key/generate", {"key": literal})["key"] == literal
    until(keyed, literal, 200)
    client = openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=literal)
    answer = client.chat.completions.create(model="echo/echo", messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices[0].message.content
    again = keyed.request("POST", "/key/generate", {"key": literal}, headers=ADMIN)
    assert (again.status, again.error["code"]) == (409, "conflict")
    fixed = keyed.request("POST", "/key/generate", {"key_alias": "fixed"}, headers=ADMIN)
    assert fixed.error["message"] == "There is a client with the name 'fixed' in the settings"


def test_a_key_without_fields_may_do_everything(keyed: Proxy) -> None:
    made = curl(keyed, "/key/generate", None, "--request", "POST")
    assert (made["key_alias"], made["models"], made["max_budget"], made["expires"]) == (None, [], None, None)
    assert keyed.chat("echo/echo", headers=bearer(made["key"])).status == 200


def test_models_and_routes_of_a_key_hold(keyed: Proxy) -> None:
    key = curl(keyed, "/key/generate", {"models": ["gpt-*"], "allowed_routes": ["/chat/completions"]})["key"]
    assert keyed.chat("echo/echo", headers=bearer(key)).error["code"] == "model_not_allowed"
    reply = keyed.request("POST", "/v1/embeddings", {"model": "gpt-x"}, headers=bearer(key))
    assert reply.error["code"] == "endpoint_not_allowed"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guardrails": ["pii"]}, "`guardrails` is not supported: a restriction that would not hold here"),
        ({"budget_duration": "1h", "max_budget": 1}, "must be 1d, 7d, 30d or 1mo"),
        ({"max_budget": "much"}, "budget: usd: expected US dollars"),
        ({"max_budget": -1}, "budget: usd: expected US dollars from 0"),
        ({"soft_budget": 5}, "must be a part of `max_budget`"),
        ({"budget_limits": [1]}, "must be a list of objects"),
        ({"budget_limits": 1}, "must be a list of objects"),
        ({"team_id": "cor"}, "there is no [teams.cor] in the settings; did you mean 'core'?"),
        ({"duration": "soon"}, "Expected a duration such as 30s"),
        ({"models": "fast"}, "models: expected a list of model names"),
        ({"rpm_limit": 1.5}, "rpm: expected a whole number"),
        ({"key": "sk-short"}, "A key begins with sk- and has 16 to 512"),
        ({"key_alias": 5}, "`key_alias` must be a text"),
        ({"key_type": "management"}, "`key_type` must be `default` or `llm_api`"),
        ({"key_type": ["llm_api"]}, "`key_type` must be a text"),
        ({"metadata": {"a": "x" * 70_000}}, "at most 65536 characters"),
        ({"metadata": {"a": json.loads("[" * 300 + "]" * 300)}}, "cannot be written as JSON"),
    ],
)
def test_a_field_that_is_wrong_or_has_no_effect_here_is_named(
    keyed: Proxy, fields: dict[str, Any], message: str
) -> None:
    reply = keyed.request("POST", "/key/generate", fields, headers=ADMIN)
    assert reply.status == 400
    assert message in reply.error["message"]


def test_ignored_fields_are_in_a_header(keyed: Proxy) -> None:
    reply = keyed.request("POST", "/key/generate", {"tags": ["a"], "agent_id": None, "new": 1}, headers=ADMIN)
    assert reply.headers["x-sanic-proxy-ignored-fields"] == "tags, new"


@pytest.mark.parametrize("reference", ["sk-0123456789abcdef", "f" * 64, "nobody"])
def test_unknown_keys_are_not_found(keyed: Proxy, reference: str) -> None:
    calls = [
        keyed.request("GET", f"/key/info?key={reference}", headers=ADMIN),
        keyed.request("POST", "/key/update", {"key": reference}, headers=ADMIN),
        keyed.request("POST", "/key/block", {"key": reference}, headers=ADMIN),
        keyed.request("POST", "/key/delete", {"keys": [reference]}, headers=ADMIN),
        keyed.request("POST", f"/key/{reference}/regenerate", headers=ADMIN),
        keyed.request("GET", f"/admin/keys/{reference}", headers=ADMIN),
    ]
    assert [(call.status, call.error["code"]) for call in calls] == [(404, "not_found")] * 6


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/key/generate"), ("GET", "/key/list"), ("GET", "/admin/keys")]
)
def test_only_the_admin_key_opens_them(keyed: Proxy, proxy: Proxy, method: str, path: str) -> None:
    body: dict[str, Any] | None = {} if method == "POST" else None
    assert keyed.request(method, path, body, headers=bearer(CLIENT_KEY)).status == 401
    assert keyed.request(method, path, body).status == 401
    assert proxy.request(method, path, body, headers=ADMIN).status == 404  # it has no admin key


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/keys/{key}"),
        ("GET", "/admin/keys/{key}/nothing"),
        ("PUT", "/admin/keys/{key}"),
        ("POST", "/key/{key}/renew"),
        ("GET", "/admin/keys/%73k{rest}"),
    ],
)
def test_a_key_in_a_path_is_not_logged_even_if_the_path_is_wrong(
    keyed: Proxy, method: str, path: str
) -> None:
    rest = "-in-the-path-0123456789"
    reply = keyed.request(method, path.format(key=f"sk{rest}", rest=rest), headers=ADMIN)
    assert reply.status in {404, 405}
    assert "path=" in (line := keyed.log_line(reply.headers["x-request-id"]))
    assert rest not in line


def test_an_open_proxy_makes_no_keys_that_nobody_needs() -> None:
    with running_proxy({"SANIC_PROXY_ADMIN_KEY": ADMIN_KEY}) as proxy:
        reply = proxy.request("POST", "/key/generate", {}, headers=ADMIN)
        assert reply.status == 400
        assert "SANIC_PROXY_REQUIRE_KEYS=on" in reply.error["message"]


def test_our_own_calls(keyed: Proxy) -> None:
    body = {
        "name": "own",
        "models": ["echo/*"],
        "budget": {"usd": 0.1, "per": "day", "strict": True},
        "rpm": 600,
    }
    made = keyed.request("POST", "/admin/keys", body, headers=ADMIN)
    assert made.status == 201
    secret, id_ = made.json["secret"], made.json["id"]
    assert statuses(keyed, secret) == {200}
    shown = keyed.request("GET", f"/admin/keys/{id_}", headers=ADMIN).json
    assert shown["budget"] == [{"usd": 0.1, "per": "day", "time_zone": "UTC", "strict": True}]
    assert secret not in str(shown)
    listed = keyed.request("GET", "/admin/keys?name=own", headers=ADMIN).json
    assert listed == {"data": [shown], "total": 1}
    changed = keyed.request("PATCH", "/admin/keys/own", {"rpm": None, "blocked": True}, headers=ADMIN).json
    assert (changed["rpm"], changed["status"], changed["models"]) == (None, "revoked", ["echo/*"])
    until(keyed, secret, 401)
    rotated = keyed.request("POST", "/admin/keys/own/rotate", {"grace": "1h"}, headers=ADMIN).json
    assert rotated["id"] == id_
    assert keyed.request("PATCH", "/admin/keys/own", {"rmp": 5}, headers=ADMIN).status == 400
    assert keyed.request("DELETE", "/admin/keys/own", headers=ADMIN).json["status"] == "deleted"
    until(keyed, rotated["secret"], 401)


def test_the_document_has_every_field() -> None:
    text = (Path(__file__).parents[2] / "scripts/docs/governance-api.md").read_text("utf-8")
    rows = [f"| `{name}` | {outcome} | {meaning} |" for name, (outcome, meaning) in FIELDS.items()]
    assert [row for row in rows if row not in text] == []
