"""`llm`, the command line tool, with the proxy's models in its `extra-openai-models.yaml`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from command_line import Ended, Started, program, run
from harness import FACTS, Task, check, check_usage, serve

FOLDER = Path(os.environ["HOME"]) / "llm"
SETTINGS = {"LLM_USER_PATH": str(FOLDER)}
FUNCTIONS = f"""
def {FACTS["tool"]}(city: str) -> str:
    "Tell the weather of a city."
    return {FACTS["result"]!r} + city
"""


def configure(task: Task, key: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    model = {
        "model_id": task.model,
        "model_name": task.model,
        "api_base": FACTS["base_url"],
        "api_key_name": "proxy",
        "supports_schema": True,
        "supports_tools": True,
    }
    # Which is YAML, too.
    (FOLDER / "extra-openai-models.yaml").write_text(json.dumps([model]))
    (FOLDER / "keys.json").write_text(json.dumps({"proxy": key}))


def command(task: Task, *options: str, key: str = FACTS["key"]) -> list[str]:
    configure(task, key)
    return [program("llm"), "prompt", "--model", task.model, *options, "Hello"]


def prompt(task: Task, *options: str, key: str = FACTS["key"]) -> Ended:
    return run(command(task, *options, key=key), SETTINGS)


def text(task: Task) -> None:
    ended = prompt(task, "--json")
    check((ended.code, ended.errors), (0, ""), "exit code and stderr")
    (answer,) = json.loads(ended.output)
    check(answer["response"], FACTS["text"], "text")
    check_usage(answer["input_tokens"], answer["output_tokens"])
    check(answer["response_json"]["choices"][0]["finish_reason"], "stop", "finish reason")


def stream(task: Task) -> None:
    """As it is printed; `--json` waits for the whole answer."""
    ended = prompt(task, "--usage")
    check((ended.code, ended.output), (0, FACTS["text"] + "\n"), "exit code and text")
    usage = FACTS["usage"]
    expected = f"Token usage: {usage['prompt_tokens']} input, {usage['completion_tokens']} output"
    check(ended.errors.strip(), expected, "usage")


def round_trip(task: Task, cities: list[str], *options: str) -> None:
    ended = prompt(task, "--functions", FUNCTIONS, "--tools-debug", *options)
    check((ended.code, ended.output.strip()), (0, FACTS["final"]), "exit code and text")
    for city in cities:
        if FACTS["result"] + city not in ended.errors:
            raise AssertionError(f"the tool did not run for {city}: {ended.errors[-200:]}")


def structured(task: Task) -> None:
    check(json.loads(prompt(task, "--schema", "city, days int").output), FACTS["trip"], "object")


def failed(ended: Ended, reason: str) -> None:
    check(ended.code, 1, "exit code")
    if reason not in ended.errors:
        raise AssertionError(f"unexpected message {ended.errors[-200:]!r}")


def cancel(task: Task) -> float:
    with Started(command(task), SETTINGS) as started:
        started.wait_until_requested()
        if task.provider == "groq":
            started.wait_for_output(FACTS["text"][:5])
        return started.interrupt()


def models(task: Task) -> None:
    listing = [program("llm"), "openai", "endpoint", FACTS["base_url"], "--key", FACTS["key"], "--models"]
    wanted = FACTS["models"][task.provider]
    if wanted not in (lines := run(listing, SETTINGS).output.splitlines()):
        raise AssertionError(f"{wanted} is not listed in {lines}")


serve(
    {
        "text": text,
        "stream": stream,
        "slow": stream,
        "tools": lambda task: round_trip(task, FACTS["cities"][:1], "--no-stream"),
        "tools-stream": lambda task: round_trip(task, FACTS["cities"][:1]),
        "parallel": lambda task: round_trip(task, FACTS["cities"]),
        "interleaved": lambda task: round_trip(task, FACTS["cities"]),
        "structured": structured,
        "wrong-key": lambda task: failed(prompt(task, key=FACTS["wrong_key"]), "401"),
        "429-retried": text,
        "500": lambda task: failed(prompt(task), "502"),
        "cut": lambda task: failed(prompt(task), FACTS["broken"]),
        "cancel": cancel,
        "models": models,
    }
)
