"""aider, one message at a time. It always exits with 0, so its output is judged."""

from __future__ import annotations

from command_line import Started, program, run
from harness import FACTS, Task, check, serve

SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "AIDER_ANALYTICS_DISABLE": "true",
    "COLUMNS": "200",  # so that no message is broken into lines
}
# No prompts, update checks, colours or access to files.
QUIET = (
    "--yes-always",
    "--no-git",
    "--no-gitignore",
    "--no-check-update",
    "--no-show-release-notes",
    "--no-show-model-warnings",
    "--no-pretty",
    "--no-fancy-input",
    "--no-detect-urls",
    "--disable-playwright",
    "--map-tokens=0",
    "--chat-mode=ask",
)
# Printed for a failure that it retries: it does so for a minute.
TRIES_AGAIN = "Retrying in"


def command(task: Task, *options: str, key: str = FACTS["key"]) -> list[str]:
    address = ["--openai-api-base", FACTS["base_url"], "--openai-api-key", key]
    model = ["--model", f"openai/{task.model}"]
    return [program("aider"), *model, *address, *QUIET, *options, "--message", "Hello"]


def text(task: Task, *options: str) -> str:
    ended = run(command(task, *options), SETTINGS)
    lines = [line.rstrip() for line in ended.output.splitlines()]
    if FACTS["text"] not in lines:
        raise AssertionError(f"it printed {ended.output[-200:]!r}")
    check(TRIES_AGAIN in ended.output, False, "a failure")
    return ended.output


def whole(task: Task) -> None:
    # Of a streamed answer it counts the tokens itself.
    usage = FACTS["usage"]
    expected = f"Tokens: {usage['prompt_tokens']} sent, {usage['completion_tokens']} received."
    check(expected in text(task, "--no-stream"), True, expected)


def stream(task: Task) -> None:
    text(task)


def wrong_key(task: Task) -> None:
    ended = run(command(task, key=FACTS["wrong_key"]), SETTINGS)
    check("API key" in ended.output and TRIES_AGAIN not in ended.output, True, ended.output[-200:])


def failed(task: Task, reason: str) -> None:
    with Started(command(task), SETTINGS) as started:
        started.wait_for_output(reason, TRIES_AGAIN)


def cancel(task: Task) -> float:
    with Started(command(task), SETTINGS) as started:
        started.wait_until_requested()
        if task.provider == "groq":
            started.wait_for_output(FACTS["text"][:5])
        return started.interrupt()


serve(
    {
        "text": whole,
        "stream": stream,
        "slow": stream,
        "wrong-key": wrong_key,
        "429-retried": stream,
        "500": lambda task: failed(task, "not now"),
        "cut": lambda task: failed(task, FACTS["broken"]),
        "cancel": cancel,
    }
)
