"""LiteLLM's fields of a key (its version 1.110) as the keys of our tables, and back. Pure.

`FIELDS` says what each field of a request does here; the document has the same table.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sanic_proxy.config.rules import DEFAULT_SOFT, NANO, Budget, ClientRules, Period, iso_time
from sanic_proxy.errors import InvalidRequest
from sanic_proxy.governance.accounts import Spending
from sanic_proxy.governance.budgets import FOREVER
from sanic_proxy.governance.durations import seconds_of
from sanic_proxy.governance.keys import StoredKey
from sanic_proxy.json_types import Json

Outcome = Literal["works", "ignored", "refused"]

_DAY_S = 86_400
# Budgets begin anew with the calendar, as LiteLLM's do for these durations.
_PERIODS: Mapping[float, Period] = {
    _DAY_S: "day",
    7 * _DAY_S: "week",
    30 * _DAY_S: "month",
    31 * _DAY_S: "month",
}
_DURATIONS: Mapping[str, str | None] = {"day": "1d", "week": "7d", "month": "30d", "total": None}
_ALL_MODELS = frozenset({"all-team-models", "all-proxy-models"})
_ALL_ROUTES = frozenset({"llm_api_routes", "openai_routes"})

# Fields whose values are those of a key of the table; null, 0 and empty ones remove it.
_SAME = {
    "rpm_limit": "rpm",
    "tpm_limit": "tpm",
    "max_parallel_requests": "concurrent",
    "metadata": "metadata",
    "team_id": "team",
    "ui": "ui",
}

FIELDS: Mapping[str, tuple[Outcome, str]] = {
    "key": ("works", "an existing key to import: `sk-` and at least 16 characters"),
    "key_alias": ("works", "the client's name, unique"),
    "duration": ("works", "`30s`, `10m`, `24h`, `30d`, `1mo`; null or `-1`: the key does not expire"),
    "models": ("works", "`models`; empty or `all-proxy-models`: all"),
    "allowed_routes": ("works", "`endpoints`; empty or `llm_api_routes`: all"),
    "max_budget": ("works", "`budget`: its `usd`"),
    "budget_duration": ("works", "its `per`: `1d`, `7d`, `30d` or `1mo`; null: in all; others are refused"),
    "budget_limits": ("works", "further budgets: `[{budget_duration, max_budget}]`"),
    "soft_budget": ("works", "`soft`: as a whole percentage of `max_budget`"),
    "rpm_limit": ("works", "`rpm`"),
    "tpm_limit": ("works", "`tpm`"),
    "max_parallel_requests": ("works", "`concurrent`"),
    "metadata": ("works", "`metadata`"),
    "blocked": ("works", "the key is refused until it is unblocked"),
    "team_id": ("works", "`team`: the name of a `[teams.NAME]` table"),
    "user_id": ("works", "a label, by which keys are listed"),
    "grace_period": ("works", "of `regenerate`: how long the present key stays valid"),
    "new_key": ("works", "of `regenerate`: the new key, instead of a random one"),
    "ui": ("works", "not a field of LiteLLM's: the key opens the page `/ui`, for its own use"),
    "key_type": ("works", "`llm_api`, `default`; others are refused"),
    **dict.fromkeys(
        ("agent_id", "organization_id", "project_id", "tags", "send_invite_email", "rpm_limit_type"),
        ("ignored", "a label, or of no effect here"),
    ),
    **dict.fromkeys(
        (
            "tpm_limit_type",
            "allowed_cache_controls",
            "disable_global_guardrails",
            "enable_prompt_caching",
            "default_estimated_output_tokens",
            "default_estimated_output_tokens_per_model",
            "end_user_budget_id",
            "allowed_vector_store_indexes",
        ),
        ("ignored", "there is nothing here that it would change"),
    ),
    **dict.fromkeys(
        (
            "model_max_budget",
            "model_rpm_limit",
            "model_tpm_limit",
            "mcp_rpm_limit",
            "tag_rpm_limit",
            "tpd_limit",
            "budget_id",
            "budget_fallbacks",
            "temp_budget_increase",
            "temp_budget_expiry",
            "throttle_on_budget_exceeded",
        ),
        ("refused", "a limit of a kind that a key does not have here"),
    ),
    **dict.fromkeys(
        (
            "permissions",
            "guardrails",
            "policies",
            "prompts",
            "enforced_params",
            "object_permission",
            "allowed_passthrough_routes",
            "denied_passthrough_routes",
            "access_group_ids",
        ),
        ("refused", "a restriction that would not hold here"),
    ),
    **dict.fromkeys(
        ("aliases", "config", "router_settings"),
        ("refused", "models are named in the settings: `[models.NAME]`"),
    ),
    **dict.fromkeys(("auto_rotate", "rotation_interval"), ("refused", "keys are replaced by `regenerate`")),
    **dict.fromkeys(
        ("spend", "new_master_key"), ("refused", "the accounts cannot be changed, nor the admin key")
    ),
}


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """What a request says of a key: keys of a `[clients.NAME]` table, and the rest; None: nothing is said.

    `ignored` are the names of the fields that had a value and no effect.
    """

    table: dict[str, object] = field(default_factory=dict)
    name: str | None = None
    key: str | None = None
    is_blocked: bool | None = None
    user_id: str | None = None
    grace_s: float = 0.0
    ignored: tuple[str, ...] = ()


def read_request(fields: Mapping[str, Any], old: ClientRules | None = None) -> KeyRequest:
    """The fields of a request to make a key, or to change one with the rules `old`.

    Raises InvalidRequest for a field that would have to have an effect and cannot.
    """
    _check_supported(fields)
    table: dict[str, object] = {key: fields[name] or None for name, key in _SAME.items() if name in fields}
    if "models" in fields:
        table["models"] = _names(fields, "models", _ALL_MODELS)
    if "allowed_routes" in fields:
        table["endpoints"] = _names(fields, "allowed_routes", _ALL_ROUTES)
    if "duration" in fields:
        table["expires"] = _expiry(fields["duration"])
    return KeyRequest(
        {**table, **_budgets(fields, old)},
        _text(fields, "key_alias"),
        _text(fields, "new_key" if fields.get("new_key") else "key"),
        _flag(fields, "blocked"),
        _text(fields, "user_id"),
        seconds_of(_text(fields, "grace_period") or "0s"),
        tuple(name for name, value in fields.items() if value and _outcome(name) == "ignored"),
    )


def _budgets(fields: Mapping[str, Any], old: ClientRules | None) -> dict[str, object]:
    """The keys `budget` and `soft` of the table, as far as the request says something of them."""
    if not {"max_budget", "budget_duration", "budget_limits", "soft_budget"} & fields.keys():
        return {}
    known = list(map(Budget.as_table, old.limits.budgets)) if old is not None else []
    main: dict[str, Any] | None = known[0] if known else None
    further = known[1:]
    per = main["per"] if main is not None else "total"
    if "budget_duration" in fields:
        per = _period(fields["budget_duration"])
    if "max_budget" in fields:
        usd = fields["max_budget"]
        main = None if usd in (None, "") else {**(main or {}), "usd": usd}
    if main is not None:
        main = {**main, "per": per}
    if "budget_limits" in fields:
        further = _windows(fields["budget_limits"] or [])
    budgets = [budget for budget in (main, *further) if budget is not None]
    table: dict[str, object] = {"budget": budgets or None}
    if "soft_budget" in fields:
        table["soft"] = _soft(fields["soft_budget"], main)
    return table


def _outcome(name: str) -> Outcome:
    return FIELDS[name][0] if name in FIELDS else "ignored"


def _check_supported(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if value and _outcome(name) == "refused":
            raise InvalidRequest(f"The field `{name}` is not supported: {FIELDS[name][1]}", param=name)
    if _text(fields, "key_type") not in {None, "default", "llm_api"}:
        raise InvalidRequest("The field `key_type` must be `default` or `llm_api`", param="key_type")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _windows(entries: Any) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and "max_budget" in entry for entry in entries
    ):
        raise InvalidRequest(
            "The field `budget_limits` must be a list of objects with budget_duration and max_budget",
            param="budget_limits",
        )
    return [{"usd": entry["max_budget"], "per": _period(entry.get("budget_duration"))} for entry in entries]


def _soft(value: Any, main: Mapping[str, Any] | None) -> list[int] | None:
    if value is None:
        return None
    usd = main["usd"] if main is not None else 0
    if not (_is_number(value) and _is_number(usd) and 0 < value <= usd):
        raise InvalidRequest("The field `soft_budget` must be a part of `max_budget`", param="soft_budget")
    return [max(1, round(100 * value / usd))]


def _period(duration: Any) -> Period:
    if duration is None:
        return "total"
    seconds = seconds_of(duration) if isinstance(duration, str) else 0.0
    if seconds not in _PERIODS:
        raise InvalidRequest(
            "The field `budget_duration` must be 1d, 7d, 30d or 1mo: a day, a week or a month",
            param="budget_duration",
        )
    return _PERIODS[seconds]


def _expiry(duration: Any) -> str | None:
    if duration in (None, "-1", ""):
        return None
    if not isinstance(duration, str):
        raise InvalidRequest("The field `duration` must be a text such as 30d", param="duration")
    return iso_time(time.time() + seconds_of(duration))


def _names(fields: Mapping[str, Any], name: str, everything: frozenset[str]) -> object:
    value = fields[name]
    if isinstance(value, list) and everything.intersection(text for text in value if isinstance(text, str)):
        return None
    return value or None


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if not isinstance(value, str | None):
        raise InvalidRequest(f"The field `{name}` must be a text", param=name)
    return value


def _flag(fields: Mapping[str, Any], name: str) -> bool | None:
    value = fields.get(name)
    if not isinstance(value, bool | None):
        raise InvalidRequest(f"The field `{name}` must be true or false", param=name)
    return value


def key_info(key: StoredKey, spending: Spending, now: float) -> Json:
    """A key as LiteLLM describes it in `/key/info`. Sums of money are US dollars.

    `spend` is what its first budget counts: in the present period, or in all. `budget_limits_usage` has the
    same of further budgets.
    """
    rules, limits = key.rules, key.rules.limits
    uses = spending.budgets
    resets = uses[0].resets if uses else FOREVER
    main, further = (limits.budgets or (None,))[0], limits.budgets[1:]
    soft = None
    if main is not None and limits.soft not in {DEFAULT_SOFT, ()}:
        soft = main.limit_nano / NANO * limits.soft[0] / 100
    return {
        "key_name": f"sk-...{key.hint[-4:]}",
        "key_alias": rules.name or None,
        "status": key.status(now),
        "models": list(rules.models),
        "allowed_routes": list(rules.endpoints),
        "spend": (uses[0].used if uses else spending.total) / NANO,
        "max_budget": None if main is None else main.limit_nano / NANO,
        "soft_budget": soft,
        "budget_duration": None if main is None else _DURATIONS[main.per],
        "budget_reset_at": None if resets == FOREVER else iso_time(resets),
        "budget_limits": [
            {"budget_duration": _DURATIONS[each.per], "max_budget": each.limit_nano / NANO}
            for each in further
        ],
        "budget_limits_usage": {
            _DURATIONS[use.per] or "total": {"current_spend": use.used / NANO} for use in uses[1:]
        },
        "rpm_limit": limits.rpm,
        "tpm_limit": limits.tpm,
        "max_parallel_requests": limits.concurrent,
        "expires": None if rules.expires is None else iso_time(rules.expires),
        "metadata": dict(rules.metadata),
        "ui": rules.ui,
        "blocked": key.is_blocked,
        "user_id": key.user_id or None,
        "team_id": rules.team or None,
        "aliases": {},
        "config": {},
        "permissions": {},
        "model_max_budget": {},
        "created_at": iso_time(key.created),
        "updated_at": iso_time(key.updated),
    }
