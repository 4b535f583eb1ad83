"""Budgets: which periods there are, when they begin, and what a request is counted against. Pure.

Money is in integer nano-dollars, instants are in seconds since the epoch. A period is the span between two
midnights of a time zone. It is identified by its beginning, so that a clock which is set back finds the
period that it has been in, with all that was spent in it, and a budget with another limit goes on with the
same sum.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sanic_proxy.config.rules import Budget, Period
from sanic_proxy.governance.rules import ScopedLimits

FOREVER = 2**53
# The headers in which agents name the session that a request belongs to.
SESSION_HEADERS = ("session-id", "x-claude-code-session-id")
MAX_SESSION_CHARS = 128

# What the counters of an agent's session are called, beside the kinds of scopes.
SESSION_COST, SESSION_REQUESTS = "session", "session requests"


class Window(NamedTuple):
    """A period: from `start` (included) to `end` (excluded)."""

    start: int
    end: int


EVER = Window(0, FOREVER)


def window(per: Period, time_zone: str, now: float) -> Window:
    """The period that `now` is in. Raises ZoneInfoNotFoundError for an unknown time zone."""
    if per == "total":
        return EVER
    zone = ZoneInfo(time_zone)
    today = dt.datetime.fromtimestamp(now, zone).date()
    if per == "day":
        first, following = today, today + dt.timedelta(days=1)
    elif per == "week":
        first = today - dt.timedelta(days=today.weekday())
        following = first + dt.timedelta(days=7)
    else:
        first = today.replace(day=1)
        following = (first + dt.timedelta(days=31)).replace(day=1)
    return Window(_midnight(first, zone), _midnight(following, zone))


def _midnight(day: dt.date, zone: ZoneInfo) -> int:
    """The beginning of a day. Where the clocks skip midnight it is the instant at which they do."""
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


class Counter(NamedTuple):
    """One sum: what has been spent in one scope and one period, or the requests of a session.

    `kind` and `name` are a scope's, or SESSION_COST or SESSION_REQUESTS with the session's name.
    """

    kind: str
    name: str
    per: str
    start: int

    @property
    def key(self) -> str:
        """As one text, unique and short enough for an index."""
        return f"{self.kind}:{self.name}:{self.per}:{self.start}"


class Charge(NamedTuple):
    """A counter with its limit, both in the same unit. `end` is when it begins anew; FOREVER: never.

    `soft` are the percentages of the limit that are announced. A strict one is reserved for with the most
    that a request can cost. One that counts requests has `is_money` false. `label` is the scope's name for
    people, where it is not the one of the counter.
    """

    counter: Counter
    limit: int
    end: int = FOREVER
    soft: tuple[int, ...] = ()
    is_strict: bool = False
    is_money: bool = True
    label: str = ""

    def describe(self) -> str:
        """The budget as errors and logs name it."""
        kind, name, per, _ = self.counter
        if kind == SESSION_REQUESTS:
            return "number of requests of this agent session"
        if kind == SESSION_COST:
            return "budget of this agent session"
        scope = "of all clients" if kind == "all" else f"of the {kind} {self.label or name}"
        return f"budget {scope}" if per == "total" else f"budget {scope} per {per}"


class Periods:
    """The current period of each kind and time zone, computed when it has changed."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: dict[tuple[Period, str], Window] = {}

    def current(self, budget: Budget, now: float) -> Window:
        """The budget's period that `now` is in."""
        at = budget.per, budget.time_zone
        found = self._windows.get(at)
        if found is None or not found.start <= now < found.end:
            found = self._windows[at] = window(budget.per, budget.time_zone, now)
        return found


def charges(scopes: Iterable[ScopedLimits], periods: Periods, now: float) -> list[Charge]:
    """What a request in `scopes` is counted against at `now`. Of two budgets for the same sum the smaller."""
    found: dict[Counter, Charge] = {}
    for scope, limits in ((scoped.scope, scoped.limits) for scoped in scopes):
        for budget in limits.budgets:
            start, end = periods.current(budget, now)
            counter = Counter(scope.kind, scope.name, budget.per, start)
            if (other := found.get(counter)) is None or budget.limit_nano < other.limit:
                found[counter] = Charge(
                    counter, budget.limit_nano, end, limits.soft, budget.strict, label=scope.label
                )
    return list(found.values())


def session_charges(
    client_id: str, headers: Mapping[str, str], max_requests: int | None, max_cost_nano: int | None
) -> list[Charge]:
    """The caps of the agent's session that a request says it belongs to; none if it says nothing.

    Sessions of two clients are different ones, whatever they are called.
    """
    if max_requests is max_cost_nano is None:
        return []
    session = session_of(headers)
    if not session:
        return []
    name = f"{client_id}/{session}"
    found = []
    if max_requests is not None:
        found.append(Charge(Counter(SESSION_REQUESTS, name, "total", 0), max_requests, is_money=False))
    if max_cost_nano is not None:
        found.append(Charge(Counter(SESSION_COST, name, "total", 0), max_cost_nano))
    return found


def session_of(headers: Mapping[str, str]) -> str:
    """The session that a request belongs to, as its client names it; "" if it does not.

    Bytes of the header that are no UTF-8 are escaped: a store takes no lone surrogates.
    """
    for name in SESSION_HEADERS:
        if session := headers.get(name, ""):
            return session[:MAX_SESSION_CHARS].encode("utf-8", "backslashreplace").decode()
    return ""


def passed(limit: int, used: int, soft: Sequence[int], announced: int) -> int:
    """The highest percentage of `soft` that `used` has reached and that is not `announced` yet; else 0."""
    reached = [percent for percent in soft if percent > announced and 100 * used >= percent * limit]
    return max(reached, default=0)
