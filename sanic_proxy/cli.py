"""The `sanic-proxy` command: serve, replay, init, check, models, route, keys, schema, completion.

What only some commands need is imported by them: the others, `serve` among them, start in half the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from sanic_proxy import __version__
from sanic_proxy.commands import backup, keys, spend
from sanic_proxy.config import reference, starter
from sanic_proxy.config.loader import explain, load
from sanic_proxy.config.model import HEARTBEATS, Settings, SettingsError, binding_problem
from sanic_proxy.config.rules import ClientRules, format_usd
from sanic_proxy.config.secret import Secret
from sanic_proxy.config.variables import PREFIX
from sanic_proxy.errors import ProxyError
from sanic_proxy.governance.prices import PriceBook
from sanic_proxy.observability import banner
from sanic_proxy.routing.causes import CAUSES, DEFAULT_CAUSE

_EXIT_STATUS = """\
exit status: 0; 1 if the settings are wrong or a provider failed; 2 if the command line is wrong"""

_EXAMPLES = f"""\
examples:
  sanic-proxy                                        start with the settings of the environment and .env
  sanic-proxy --port 9000 --workers 4                the same as `sanic-proxy serve --port ...`
  sanic-proxy init                                   write proxy.toml and .env for the keys that are set
  sanic-proxy check                                  report every problem, list the providers
  sanic-proxy models                                 the models that clients can name, as JSON
  sanic-proxy route fast --fail groq                 the targets of a model, while some fail
  sanic-proxy keys create app --budget 20/month      make a key for a client
  sanic-proxy check --config litellm.yaml --explain  our own TOML for LiteLLM's file

{_EXIT_STATUS}"""

# Flags that stand for a setting, by the variable they set.
_FLAGS = (
    *("host", "port", "workers", "heartbeat_char", "log_level", "config"),
    *("replay_file", "replay_speed", "replay_fault"),
)
# What `replay` sets besides, where the environment does not: each request gets its answer, whatever failed
# before, and answers to equal requests come in their order, for which one worker has to know them all.
_REPLAY = {"ROUTER": "on", "ATTEMPTS_PER_TARGET": "1", "BREAKER": "off", "WORKERS": "1"}

SHELLS = ("bash", "zsh", "fish")
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with its status. Without a command it is `serve`."""
    parser = command_parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in {"-h", "--help", "--version"}):
        words.insert(0, "serve")
    options, further = parser.parse_known_args(words)
    if further and options.run is not serve_proxy:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    if options.run in _WITHOUT_SETTINGS:
        sys.exit(options.run(options))
    options.further = further
    flags = _apply_flags(options)
    try:
        if options.run is print_table and options.explain:
            print(explain(), end="")
            sys.exit(0)
        settings = load(flags=flags)
    except SettingsError as exc:
        for problem in exc.problems:
            sys.stderr.write(f"sanic-proxy: {problem}\n")
        sys.exit(1)
    sys.exit(options.run(settings, options))


def command_parser() -> argparse.ArgumentParser:
    """The parser of the command line; the completion scripts are made from it."""
    parser = argparse.ArgumentParser(
        prog="sanic-proxy",
        description="An OpenAI-compatible LLM gateway: the model's name picks the provider.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sanic-proxy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    _add_commands(commands)
    _add_plain_commands(commands)
    return parser


def _add_commands(commands: Commands) -> None:
    """The commands that read the settings."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", metavar="FILE", help="a TOML file with settings, or LiteLLM's file (.yaml, .yml)"
    )
    common.add_argument(
        "--router",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the model's prefix picks the provider",
    )

    serve = _command(
        commands, common, "serve", serve_proxy, "start the proxy", "sanic-proxy serve --port 9000"
    )
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", help="port to listen on (default: 8000)")
    serve.add_argument("--workers", help="worker processes (default: one per core)")
    serve.add_argument(
        "--heartbeat-char", choices=list(HEARTBEATS), help="content of an emulated stream's heartbeats"
    )
    serve.add_argument("--log-level", help="debug, info, warning or error (default: info)")

    replay = _command(
        commands,
        common,
        "replay",
        serve_proxy,
        "start a proxy that serves captured answers as models replay/NAME, without a vendor",
        "sanic-proxy replay captures.jsonl --speed 10 --fault cut",
    )
    replay.add_argument("replay_file", metavar="CAPTURE", help="a file that SANIC_PROXY_CAPTURE_FILE named")
    replay.add_argument(
        "--speed",
        dest="replay_speed",
        metavar="N",
        help="how much faster than captured; 0: no pauses (default: 1)",
    )
    replay.add_argument(
        "--fault",
        dest="replay_fault",
        metavar="FAULT",
        help="what goes wrong with each answer: cut, stall, 429, 500, or slow:RATE (events per second)",
    )
    replay.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    replay.add_argument("--port", help="port to listen on (default: 8000)")

    _command(
        commands,
        common,
        "models",
        print_models,
        "print the models of all providers as JSON",
        "sanic-proxy models --config proxy.toml",
    )
    route = _command(
        commands,
        common,
        "route",
        print_route,
        "print which targets a request for a model would try, and why, without sending anything",
        "sanic-proxy route fast --fail groq --fail mistral/mistral-small-latest=context_length",
    )
    route.add_argument("model", metavar="MODEL", help="the model's name as clients write it")
    route.add_argument(
        "--fail",
        metavar="TARGET[=CAUSE]",
        action="append",
        default=[],
        help=f"let a target or a provider fail; causes: {', '.join(CAUSES)} (default: {DEFAULT_CAUSE})",
    )
    check = _command(
        commands,
        common,
        "check",
        print_table,
        "check the settings, and print providers, keys (last four characters) and model names",
        "SANIC_PROXY_CONFIG=proxy.toml sanic-proxy check",
    )
    check.add_argument(
        "--explain",
        action="store_true",
        help="print the TOML file that a configuration of LiteLLM's stands for",
    )
    keys.add_command(commands, common)
    spend.add_command(commands, common)
    backup.add_command(commands, common)


def _add_plain_commands(commands: Commands) -> None:
    """The commands that work without settings, so also while these are wrong."""
    no_flags = argparse.ArgumentParser(add_help=False)
    init = _command(
        commands,
        no_flags,
        "init",
        write_files,
        "write a commented proxy.toml and .env for the providers whose keys are set, and replace no file",
        "GROQ_API_KEY=... sanic-proxy init && sanic-proxy",
    )
    init.add_argument(
        "--directory",
        metavar="DIRECTORY",
        default=".",
        help="where to write (default: the working directory)",
    )
    _command(
        commands,
        no_flags,
        "schema",
        print_schema,
        "print the JSON Schema of the TOML file, for editors",
        "sanic-proxy schema >proxy.schema.json",
    )
    completion = _command(
        commands,
        no_flags,
        "completion",
        print_completion,
        "print the completion script of a shell",
        'eval "$(sanic-proxy completion bash)"',
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell")


def _command(
    commands: Commands,
    common: argparse.ArgumentParser,
    name: str,
    run: Callable[..., int],
    text: str,
    example: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        parents=[common],
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example: {example}\n\n{_EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _apply_flags(options: argparse.Namespace) -> dict[str, str]:
    """Flags become environment variables: they win over all else, and workers inherit them.

    Returns the flag that set each variable, for messages.
    """
    flags: dict[str, str] = {}
    for name in _FLAGS:
        value = getattr(options, name, None)
        if value is not None:
            os.environ[PREFIX + name.upper()] = value
            flags[name.upper()] = f"--{name.removeprefix('replay_').replace('_', '-')}"
    if getattr(options, "replay_file", None) is not None:
        for name, value in _REPLAY.items():
            os.environ.setdefault(PREFIX + name, value)
    if options.router is not None:
        os.environ[PREFIX + "ROUTER"] = "on" if options.router else "off"
    return flags


def serve_proxy(settings: Settings, options: argparse.Namespace) -> int:
    """Replace this process with Sanic's own command, so that there is one start procedure.

    `options.further` are arguments of Sanic's, such as `--dev`.
    """
    further: Sequence[str] = options.further
    command = [sys.executable, "-m", "sanic", "sanic_proxy.app", *_address(settings, further)]
    if not any(
        argument.startswith(("--workers", "-w", "--single-process", "--fast")) for argument in further
    ):
        command.append(f"--workers={settings.worker_count}")
    sys.stdout.flush()
    os.execv(sys.executable, [*command, *further])  # noqa: S606 - our own interpreter, no shell


def _address(settings: Settings, further: Sequence[str]) -> list[str]:
    if any(argument.startswith(("--unix", "-u")) for argument in further):
        return []
    return [f"--host={settings.host}", f"--port={settings.port}"]


def print_route(settings: Settings, options: argparse.Namespace) -> int:
    """The targets of a model, and the steps of a request while some of them fail."""
    from sanic_proxy.routing.explain import explain as explain_route  # noqa: PLC0415
    from sanic_proxy.routing.explain import offline_router  # noqa: PLC0415
    from sanic_proxy.routing.targets import Limits  # noqa: PLC0415

    limits = Limits(settings.attempts_per_target, settings.attempts)
    try:
        explanation = explain_route(offline_router(settings), options.model, limits, options.fail)
    except ProxyError as exc:
        sys.stderr.write(f"sanic-proxy: {exc.message}\n")
        return 1
    print(explanation.as_text(), end="")
    return 0


def print_models(settings: Settings, options: argparse.Namespace) -> int:
    """The models as `GET /v1/models` would list them."""
    try:
        listed = asyncio.run(_models(settings))
    except ProxyError as exc:
        sys.stderr.write(f"sanic-proxy: {exc.message}\n")
        return 1
    print(json.dumps({"object": "list", "data": listed}, indent=2, ensure_ascii=False))
    return 0


async def _models(settings: Settings) -> list[dict[str, object]]:
    from sanic_proxy.state import AppState  # noqa: PLC0415

    state = AppState(settings)
    try:
        return await state.models.all()
    finally:
        await state.aclose()


def print_table(settings: Settings, options: argparse.Namespace) -> int:
    """What `serve` would start with; 1 if it would refuse. Of keys only the last characters are shown."""
    print(f"{'provider':<14}{'keys':<24}base URL")
    for provider in settings.providers:
        print(f"{provider.name:<14}{_keys_text(provider.keys):<24}{provider.base_url or '(embedded)'}")
    for model in settings.models:
        print(f"model {model.name}: {', '.join(target.label for target in model.targets)}")
    off = ", ".join(f"{entry.name} ({entry.variable})" for entry in settings.providers_off)
    print(f"off, and the variable that turns each on: {off or 'none'}")
    for line in (banner.router_line(settings), banner.access_line(settings), *settings.warnings):
        print(line)
    for client in settings.clients:
        print(_client_line(client.rules))
    if settings.api_keys:
        print(f"client keys: {_keys_text(settings.api_keys)}")
    age = PriceBook().age(datetime.now(UTC).date())
    print(f"price table: of {age['date']}, {age['age_days']} days old")
    problem = binding_problem(settings, settings.host)
    if problem is not None:
        sys.stderr.write(f"sanic-proxy: {problem}\n")
        return 1
    return 0


def _client_line(rules: ClientRules) -> str:
    """One client of the settings, and how it is limited."""
    limits = rules.limits
    counts = {"rpm": limits.rpm, "tpm": limits.tpm, "concurrent": limits.concurrent}
    parts = [f"{name} {value}" for name, value in counts.items() if value is not None]
    parts += [f"{format_usd(budget.limit_nano)} USD per {budget.per}" for budget in limits.budgets]
    parts += [f"team {rules.team}"] if rules.team else []
    return f"client {rules.name}: {', '.join(parts) or 'no limits'}"


def write_files(options: argparse.Namespace) -> int:
    """Write the files of `init`; those that exist stay as they are, and make it fail."""
    directory = Path(options.directory)
    status = 0
    for file in starter.files(os.environ):
        try:
            written = starter.write(directory, file)
        except OSError as exc:
            sys.stderr.write(f"sanic-proxy: {directory / file.name}: {exc.strerror}\n")
            return 1
        print(f"{directory / file.name}: {'written' if written else 'exists, not changed'}")
        status = status if written else 1
    found = ", ".join(starter.providers_found(os.environ))
    print(f"providers: {found or 'none; set a key in .env'}")
    print("next: `sanic-proxy check`, then `sanic-proxy`")
    return status


def print_schema(options: argparse.Namespace) -> int:
    """The JSON Schema of the TOML file."""
    print(reference.toml_schema(), end="")
    return 0


def print_completion(options: argparse.Namespace) -> int:
    """The completion script, as `scripts/generate` has made it from the parser."""
    folder = resources.files("sanic_proxy") / "completions"
    print((folder / f"sanic-proxy.{options.shell}").read_text("utf-8"), end="")
    return 0


_WITHOUT_SETTINGS = (write_files, print_schema, print_completion)


def _keys_text(keys: Sequence[Secret]) -> str:
    """How many keys there are, and how they end."""
    hints = ", ".join(key.hint for key in keys)
    return f"{len(keys)}: {hints}" if len(keys) > 1 else hints or "-"
