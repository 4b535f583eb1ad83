"""The simulated targets, and when they are slow or down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# A usual target: seconds to the first content as long as it has no more in flight than its capacity (beyond
# it the time grows in proportion), and seconds from there to the end of a stream.
FIRST_CONTENT_S = 0.5
CAPACITY = 100
STREAM_S = 2.0
# Within so much of these times, at random.
SPREAD = 0.2
# A target that is down answers with an error after so many seconds.
REFUSAL_S = 0.02
SLOWNESS = 5.0
NAMES = ("a", "b", "c", "d")


def _never(_: float) -> bool:
    return False


@dataclass(frozen=True)
class Scenario:
    """What is wrong with the target `a`; the times are seconds since the start. The others are well."""

    name: str
    text: str
    slowness: float = 1.0
    is_down: Callable[[float], bool] = _never


SCENARIOS = (
    Scenario("healthy", "all targets are equal"),
    Scenario("slow", f"`a` takes {SLOWNESS:g} times as long to its first content", slowness=SLOWNESS),
    Scenario("failing", "`a` answers with 503", is_down=lambda _: True),
    Scenario(
        "flapping", "`a` answers with 503 every other 10 s", is_down=lambda now: int(now // 10) % 2 == 0
    ),
    Scenario("recovering", "`a` answers with 503 for the first half", is_down=lambda now: now < 30),
)
