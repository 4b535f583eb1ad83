"""One run of an agent, without a terminal, in a new home directory: a scenario with a provider."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.clients.agents import mcp_server
from tests.clients.agents.agents import Agent, Provider
from tests.clients.agents.programs import Launch, Place
from tests.clients.agents.scenarios import BEFORE, FILE, Ended, Expected, Noticed, Scenario, faults
from tests.clients.agents.shapes.base import Shape, Turn
from tests.clients.clients import reason
from tests.clients.driving import environment
from tests.support.upstream import Exchange, Script, Seen, Upstream

LIMIT_S = 120.0
# Claude Code 2.1.332 sends 25, and 2.1.197 sent 15.
MIN_TOKEN_COUNTS = 10


@dataclass(frozen=True, slots=True)
class Access:
    """The address for the agents' requests, and the client's key.

    With `is_direct` it is the upstream's own address: a failure is then not caused by the proxy.
    """

    url: str
    key: str
    is_direct: bool = False


def drive(
    agent: Agent, folder: Path, scenario: Scenario, provider: Provider, upstream: Upstream, access: Access
) -> tuple[list[str], str]:
    """The faults of one run, and its record: the output and the upstream requests."""
    noticed = Noticed()
    with tempfile.TemporaryDirectory() as directory:
        home, work = Path(directory, "home"), Path(directory, "work")
        home.mkdir()
        work.mkdir()
        (work / FILE).write_text(f"{BEFORE}\n", "utf-8")
        url = access.url + (provider.shape.root if access.is_direct else "")
        server = (sys.executable, mcp_server.__file__) if scenario.needs_mcp else ()
        model = scenario.model or agent.model or provider.model
        if not access.is_direct:
            model = f"{provider.name}/{model}"
        turns = scenario.turns(agent.program, work)
        upstream.requests.clear()
        upstream.problems.clear()
        upstream.forget_scripts()
        upstream.on("*", script(scenario, turns, provider.shape, noticed))
        launch = agent.program.launch(
            Place(folder, home, work, url, access.key, model, server), scenario.prompt
        )
        ended = run(launch, home, work)
        seen = [*upstream.requests]
        if not access.is_direct:
            noticed.problems += [*upstream.problems, *header_faults(seen, provider.shape, access.key)]
        thoughts = [turn.thought for turn in turns if turn.thought and provider.shape.keeps_reasoning]
        token_counts = MIN_TOKEN_COUNTS if scenario.counts_tokens and provider.shape.counts_tokens else 0
        expected = Expected(
            turns,
            reason(agent.errors, scenario.name, provider.name),
            scenario.name in agent.ends_well,
            thoughts,
            token_counts,
        )
        found = [*faults(scenario, expected, ended, noticed, work)]
    return found, record(launch, ended, seen)


def run(launch: Launch, home: Path, work: Path) -> Ended:
    """Run a program for at most LIMIT_S seconds, and kill its process group afterwards."""
    variables = {**environment({}, home), **launch.variables}
    process = subprocess.Popen(
        launch.command,
        cwd=work,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    code: int | None
    try:
        output, errors = process.communicate(timeout=LIMIT_S)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        code = None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return Ended(code, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))


def script(scenario: Scenario, turns: Sequence[Turn], shape: Shape, noticed: Noticed) -> Script:
    """The upstream's script: it answers with the turn after the rounds of calls in the request."""

    async def answer(exchange: Exchange) -> None:
        seen = exchange.seen
        path = seen.path.partition("?")[0]
        if shape.counts_tokens and path == f"{shape.path}/count_tokens":
            noticed.token_counts += 1
            await exchange.answer({"input_tokens": 42})
            return
        if seen.method != "POST" or not shape.serves(path):
            noticed.problems.append(f"an unexpected request: {seen.method} {seen.path}")
            await exchange.answer({"error": {"message": "no such path"}}, 404)
            return
        body = seen.json
        noticed.problems += shape.violations(body)
        if not shape.tool_names(body):
            noticed.others += 1
            await shape.answer(exchange, Turn("A task"), 0)
            return
        rounds = shape.rounds(body)
        noticed.rounds.append(rounds)
        if len(rounds) >= len(turns):
            noticed.problems.append(f"{len(rounds)} rounds of calls instead of {len(turns) - 1}")
        turn = turns[min(len(rounds), len(turns) - 1)]
        await asyncio.sleep(scenario.pause_s)
        if scenario.fault is not None and scenario.is_faulty(len(noticed.rounds)):
            await shape.fail(exchange, scenario.fault, turn)
        else:
            await shape.answer(exchange, turn, len(rounds))

    async def guarded(exchange: Exchange) -> None:
        try:
            await answer(exchange)
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            noticed.problems.append(f"the request cannot be read: {type(exc).__name__}: {exc}")
            await exchange.answer({"error": {"message": "invalid request"}}, 400)

    return guarded


def header_faults(requests: Sequence[Seen], shape: Shape, client_key: str) -> Iterator[str]:
    """Headers that do not belong to the provider's API, and the client's key anywhere."""
    for seen in requests:
        for name, value in seen.headers:
            if name.lower() not in shape.headers:
                yield f"the header {name} reached the upstream"
            if client_key in value:
                yield f"the client's key reached the upstream in {name}"
        if client_key.encode() in seen.body:
            yield "the client's key reached the upstream in a body"
        if not seen.header(shape.key_header):
            yield f"the header {shape.key_header} is missing"


def record(launch: Launch, ended: Ended, requests: Sequence[Seen]) -> str:
    """A run as text, for the log."""
    lines = [f"$ {' '.join(launch.command)}", f"exit code {ended.code}", ended.output, ended.errors]
    for seen in requests:
        lines.append(f"{seen.method} {seen.path} {json.dumps(dict(seen.headers))}")
        if seen.is_json:
            lines.append(json.dumps(seen.json, ensure_ascii=False, indent=1))
    return "\n".join(lines) + "\n"
