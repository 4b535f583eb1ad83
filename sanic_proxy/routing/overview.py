"""What all workers together know of the targets, out of what each of them shows. Pure.

A worker shows the targets that it has used last, with times that are relative to the moment at which it
showed them. Requests, failures and tokens are added up. Each worker has circuits of its own, so a target is
shown with the worst of them, and with the last error of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sanic_proxy.config.rules import iso_time
from sanic_proxy.json_types import Json
from sanic_proxy.routing.breaker import BreakerRegistry
from sanic_proxy.routing.statistics import StatisticsRegistry

# So many targets of each worker: what it shows has to fit into the memory for it.
MAX_SHOWN = 250
_SUMS = ("in_flight", "answered", "failed", "prompt_tokens", "cached_tokens")
_BY_SEVERITY = ("closed", "half_open", "open")


def shown_targets(statistics: StatisticsRegistry, registry: BreakerRegistry, now: float) -> list[Json]:
    """What this worker shows."""
    return statistics.as_json(now, lambda name: registry.described(name, now), MAX_SHOWN)


def merged(shown: Iterable[tuple[float, Iterable[Json]]], wall: float) -> list[Json]:
    """The targets by name, as `/admin/targets` shows them.

    `shown` are, for each worker, how many seconds ago it has shown its targets, and these. `wall` is the
    present time in seconds since the epoch.
    """
    found: dict[tuple[str, str], list[Json]] = {}
    for age_s, targets in shown:
        for target in targets:
            found.setdefault((target["target"], target["endpoint"]), []).append(_aged(target, age_s))
    return [_merged(found[name], wall) for name in sorted(found)]


def _aged(target: Json, age_s: float) -> Json:
    """What a worker would show now, `age_s` later."""
    circuits = {name: _aged_circuit(target[name], age_s) for name in ("circuit", "key_circuit")}
    limit = target["rate_limit"]
    if limit is not None:
        left = {
            name: {**quota, "reset_in_s": round(quota["reset_in_s"] - age_s, 1)}
            for name, quota in limit["left"].items()
            if quota["reset_in_s"] > age_s
        }
        retry_in_s = limit["retry_in_s"]
        is_over = retry_in_s is None or retry_in_s <= age_s
        limit = {"retry_in_s": None if is_over else round(retry_in_s - age_s, 1), "left": left}
    return {**target, **circuits, "rate_limit": limit}


def _aged_circuit(circuit: Json | None, age_s: float) -> Json | None:
    if circuit is None:
        return None
    aged = dict(circuit)
    if aged["retry_in_s"] is not None:
        aged["retry_in_s"] = round(max(0.0, aged["retry_in_s"] - age_s), 1)
        aged["state"] = "open" if aged["retry_in_s"] else "half_open"
    if aged["last_error_s_ago"] is not None:
        aged["last_error_s_ago"] = round(aged["last_error_s_ago"] + age_s, 1)
    return aged


def _merged(entries: Sequence[Json], wall: float) -> Json:
    sums = {name: sum(entry[name] for entry in entries) for name in _SUMS}
    circuit, key_circuit = (
        _circuit([entry[name] for entry in entries if entry[name] is not None])
        for name in ("circuit", "key_circuit")
    )
    return {
        "target": entries[0]["target"],
        "endpoint": entries[0]["endpoint"],
        "requests": sums["answered"] + sums["failed"],
        "failures": sums["failed"],
        **sums,
        "first_content_ms": _expected_ms(entries),
        "cached_share": round(sums["cached_tokens"] / sums["prompt_tokens"], 4)
        if sums["prompt_tokens"]
        else None,
        "circuit": circuit,
        "key_circuit": key_circuit,
        "last_error": _last_error([one for one in (circuit, key_circuit) if one is not None], wall),
        "rate_limit": _rate_limit(
            [entry["rate_limit"] for entry in entries if entry["rate_limit"] is not None]
        ),
    }


def _expected_ms(entries: Iterable[Json]) -> int | None:
    """The mean of what the workers expect, by the number of their requests."""
    known = [entry for entry in entries if entry["first_content_ms"] is not None]
    weights = [entry["answered"] + entry["failed"] for entry in known]
    if not sum(weights):
        return None
    total = sum(entry["first_content_ms"] * weight for entry, weight in zip(known, weights, strict=True))
    mean_ms: int = round(total / sum(weights))
    return mean_ms


def _circuit(circuits: Sequence[Json]) -> Json | None:
    """The worst of several workers' circuits of one target; `open_in`: in how many it is not closed."""
    if not circuits:
        return None
    worst = max(circuits, key=lambda one: (_BY_SEVERITY.index(one["state"]), one["retry_in_s"] or 0.0))
    latest = min((one for one in circuits if one["last_error"] is not None), key=_s_ago, default=worst)
    errors = ("last_error", "last_code", "last_message", "last_error_s_ago")
    is_open = [one["state"] != "closed" for one in circuits]
    return {**worst, **{name: latest[name] for name in errors}, "open_in": sum(is_open)}


def _last_error(circuits: Iterable[Json], wall: float) -> Json | None:
    failed = [one for one in circuits if one["last_error"] is not None]
    if not failed:
        return None
    last = min(failed, key=_s_ago)
    at = iso_time(wall - last["last_error_s_ago"])
    return {"code": last["last_code"], "message": last["last_message"], "time": at}


def _s_ago(circuit: Json) -> float:
    seconds: float = circuit["last_error_s_ago"]
    return seconds


def _rate_limit(limits: Sequence[Json]) -> Json | None:
    """The longest cool-down, and of each limit the least that is left."""
    if not limits:
        return None
    left: Json = {}
    for limit in limits:
        for name, quota in limit["left"].items():
            if name not in left or quota["left"] < left[name]["left"]:
                left[name] = quota
    return {"retry_in_s": max(one["retry_in_s"] or 0.0 for one in limits) or None, "left": left}
