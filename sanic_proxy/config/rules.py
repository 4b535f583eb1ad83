"""What clients may do and use: rules of one key, limits of a scope, budgets. Frozen values.

They come from the tables `[clients]`, `[teams]`, `[limits]` and `[models]`, and from keys made at run time.
Money is in integer nano-dollars (10**-9 US dollars), so sums are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, get_args

from sanic_proxy.json_types import Json

Period = Literal["day", "week", "month", "total"]

PERIODS: tuple[Period, ...] = get_args(Period)
NANO = 10**9
DEFAULT_SOFT: tuple[int, ...] = (50, 80, 100)


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent in each period, which begins at midnight in `time_zone` (an IANA name).

    A week begins on Monday; "total" never begins anew. `strict`: requests reserve the most that they can
    cost, so the limit is never exceeded.
    """

    limit_nano: int
    per: Period = "total"
    time_zone: str = "UTC"
    strict: bool = False

    def as_table(self) -> Json:
        """As it is written in a table of the settings."""
        return {
            "usd": self.limit_nano / NANO,
            "per": self.per,
            "time_zone": self.time_zone,
            "strict": self.strict,
        }


@dataclass(frozen=True, slots=True)
class ScopeLimits:
    """What a key, a team, a model or the whole proxy may use; None: no limit.

    `rpm` and `tpm` are requests and tokens per minute, `concurrent` is requests in flight, all over all
    workers. `burst` is how many requests may come at once; None: as many as `rpm`. `soft` are the
    percentages of a budget at which it is announced that they are used.
    """

    rpm: int | None = None
    tpm: int | None = None
    concurrent: int | None = None
    burst: int | None = None
    budgets: tuple[Budget, ...] = ()
    soft: tuple[int, ...] = DEFAULT_SOFT

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return not self.budgets and self.rpm is self.tpm is self.concurrent is None


NO_LIMITS = ScopeLimits()


@dataclass(frozen=True, slots=True)
class ClientRules:
    """The rules of one client. `id` stays the same when its key is replaced; `name` is for people.

    `models` and `endpoints` are patterns with `*`; empty: all. `expires` is in seconds since the epoch.
    `max_requests` and `max_cost_nano` limit one session of an agent. `capture` is the share of requests whose
    content is captured. With `ui` the key opens the page `/ui`, for the client's own use alone.
    """

    id: str = ""
    name: str = ""
    limits: ScopeLimits = NO_LIMITS
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    expires: float | None = None
    team: str = ""
    max_requests: int | None = None
    max_cost_nano: int | None = None
    metadata: Mapping[str, object] = field(default_factory=dict, hash=False)
    capture: float = 0.0
    ui: bool = False


NO_RULES = ClientRules()


@dataclass(frozen=True, slots=True)
class TeamRules:
    """What the clients of a team may do and use together."""

    name: str
    limits: ScopeLimits = NO_LIMITS
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()


def format_usd(nano: int) -> str:
    """Nano-dollars as US dollars, with two decimal places at least and all that matter."""
    whole, rest = divmod(abs(nano), NANO)
    places = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}{whole}.{places}"


def iso_time(seconds: float) -> str:
    """Seconds since the epoch as `2027-01-31T00:00:00Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
