"""The scenarios: the turns of the model, the faults of the upstream, and the expected outcome."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.clients.agents.programs import Program
from tests.clients.agents.shapes.base import Call, Fault, Round, Turn

PROMPT = "Please do the task."
FINAL = "All of it is done: Grüße aus 東京 🌍."
FILE = "notes.txt"
BEFORE, AFTER = "the colour is red", "the colour is blue"
NO_TURNS: Sequence[Turn] = ()
# Longer than the commit delay and several heartbeats.
SILENCE_S = 1.4
COMMIT_DELAY_S = 0.5
HEARTBEAT_S = 0.3
_TOTAL = ("total-1737",)


@dataclass(frozen=True, slots=True)
class Ended:
    """The exit code and output of a run. `code` is None if the run was killed at its time limit."""

    code: int | None
    output: str
    errors: str


@dataclass(slots=True)
class Noticed:
    """The requests that the upstream received: the rounds of calls in each, and their problems.

    Requests without tools (for a title, for instance) and token counts do not belong to the task: they are
    only counted.
    """

    rounds: list[list[Round]] = field(default_factory=list)
    others: int = 0
    token_counts: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the table, or several: each provider has one.

    `work` makes the model's turns before the last one, which is the text FINAL. `results` are texts that the
    results of the calls contain, `files` the expected files in the working directory, and `shows` a text that
    the agent prints. `requests` is the number of upstream requests; None: any number. With `counts_tokens`
    the upstream also gets token counts, if its API has them. It waits `pause_s` seconds before each answer.
    `model` replaces the model of the agent.
    """

    name: str
    about: str
    work: Callable[[Program, Path], Sequence[Turn]] = lambda *_: NO_TURNS
    results: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    prompt: str = PROMPT
    shows: str = FINAL
    fault: Fault | None = None
    requests: int | Literal["one per turn"] | None = "one per turn"
    counts_tokens: bool = False
    pause_s: float = 0.0
    model: str = ""
    needs_mcp: bool = False

    def turns(self, program: Program, work: Path) -> list[Turn]:
        return [*self.work(program, work), Turn(text=FINAL)]

    def is_faulty(self, request: int) -> bool:
        """Whether the upstream fails the request of that number, counted from 1."""
        return self.fault is not None and request <= _FAULTY_REQUESTS[self.fault]


# The number of requests that fail. After two broken streams Claude Code requests a whole answer.
_FAULTY_REQUESTS: Mapping[Fault, float] = {"busy": 1, "quota": math.inf, "cut": 2, "cut-always": math.inf}


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected outcome of a run: the requests of `turns`, and an answer.

    With `error` the run must fail and show that text, with an exit code of its own unless `ends_well`. The
    last request contains `thoughts`; there are at least `token_counts` token counts.
    """

    turns: Sequence[Turn]
    error: str | None = None
    ends_well: bool = False
    thoughts: Sequence[str] = ()
    token_counts: int = 0


def faults(
    scenario: Scenario, expected: Expected, ended: Ended, noticed: Noticed, work: Path
) -> Iterator[str]:
    """The faults of a run."""
    yield from noticed.problems
    yield from _faults_of_the_end(ended, scenario.shows, expected)
    wanted = len(expected.turns) if scenario.requests == "one per turn" else scenario.requests
    count = len(noticed.rounds)
    if wanted is not None and count != wanted:
        yield f"the upstream got {count} requests instead of {wanted}"
    if noticed.token_counts < expected.token_counts:
        yield f"the upstream got {noticed.token_counts} token counts"
    last = noticed.rounds[-1] if noticed.rounds else []
    if (thoughts := [past.thought for past in last if past.thought]) != [*expected.thoughts]:
        yield f"the last request has the thoughts {thoughts}"
    found = [result for past in last for result in past.results]
    missing = [text for text in scenario.results if not any(text in result for result in found)]
    if missing:
        yield f"the last request lacks the results {missing}: {str(found)[:300]}"
    for name, text in scenario.files.items():
        path = work / name
        actual = path.read_text("utf-8") if path.exists() else "missing"
        if actual != text:
            yield f"{name} is {actual[:100]!r}"


def _faults_of_the_end(ended: Ended, shows: str, expected: Expected) -> Iterator[str]:
    said = f"it printed {ended.output.strip()[-300:]!r}, {ended.errors.strip()[-300:]!r}"
    if ended.code is None:
        yield f"it did not end; {said}"
    elif expected.error is not None:
        if (ended.code == 0 and not expected.ends_well) or shows in ended.output:
            yield f"it ended as if it had succeeded; {said}"
        if expected.error not in ended.output + ended.errors:
            yield f"it did not show {expected.error!r}; {said}"
    elif ended.code != 0:
        yield f"it ended with {ended.code}; {said}"
    elif shows not in ended.output:
        yield f"it did not show the answer; {said}"


def _printing(number: int) -> str:
    """A command whose output is not part of the command.

    It sleeps, because some agents lose the output of a command that ends at once. gemini-cli rejects `$(`.
    """
    return f"printf 'sum-%s\\n' {number}; sleep 0.3"


def _shell(program: Program, _work: Path) -> Sequence[Turn]:
    return [Turn("I run it.", (program.shell(_printing(1737)),))]


def _reasoning(program: Program, work: Path) -> Sequence[Turn]:
    return [dataclasses.replace(turn, thought="I have to add two numbers.") for turn in _shell(program, work)]


def _parallel(program: Program, _work: Path) -> Sequence[Turn]:
    return [Turn(calls=tuple(program.shell(_printing(number)) for number in (1737, 2048)))]


def _edit(program: Program, work: Path) -> Sequence[Turn]:
    return program.edit(work / FILE, BEFORE, AFTER)


def _mcp(program: Program, _work: Path) -> Sequence[Turn]:
    return program.add(1700, 37)


def _add(_program: Program, _work: Path) -> Sequence[Turn]:
    return [Turn(calls=(Call("add", {"a": 1700, "b": 37}),))]


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("answer", "an answer without tools"),
    Scenario("shell", "a shell command and its result", _shell, ("sum-1737",)),
    Scenario("edit", "a file is changed", _edit, files={FILE: f"{AFTER}\n"}),
    Scenario("parallel", "two calls in one answer", _parallel, ("sum-1737", "sum-2048")),
    Scenario("reasoning", "reasoning before a call, which is sent back", _reasoning, ("sum-1737",)),
    Scenario("mcp", "a tool of an MCP server, which the model searches for", _mcp, _TOTAL, needs_mcp=True),
    Scenario("namespace", "the same, declared at once", _add, _TOTAL, model="agent", needs_mcp=True),
    Scenario(
        "context",
        "the size of the context, by many token counts",
        prompt="/context",
        shows="Context Usage",
        requests=0,
        counts_tokens=True,
    ),
    Scenario(
        "slow", "a silent upstream: heartbeats before each answer", _shell, ("sum-1737",), pause_s=SILENCE_S
    ),
    Scenario("busy", "429 with Retry-After, then an answer", fault="busy", requests=2),
    Scenario("quota", "the account is used up: a single request, and an error", fault="quota", requests=1),
    Scenario(
        "late-quota",
        "the same after heartbeats, when the status can no longer show it",
        fault="quota",
        requests=None,
        pause_s=SILENCE_S,
    ),
    Scenario("cut", "two answers break off: the third one is shown", fault="cut", requests=None),
    Scenario("cut-always", "every answer breaks off: an error", fault="cut-always", requests=None),
)
