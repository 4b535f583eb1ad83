"""The `sanic-proxy` command: serve, models, check."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence

from sanic_proxy import __version__
from sanic_proxy.config.loader import load
from sanic_proxy.config.model import HEARTBEATS, PREFIX, Settings, SettingsError, binding_problem
from sanic_proxy.errors import ProxyError
from sanic_proxy.observability import banner
from sanic_proxy.state import AppState


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; exits with its status."""
    options = _parser().parse_args(arguments)
    _apply_flags(options)
    try:
        settings = load()
    except SettingsError as exc:
        for problem in exc.problems:
            sys.stderr.write(f"sanic-proxy: {problem}\n")
        sys.exit(1)
    sys.exit(options.run(settings))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sanic-proxy", description="An OpenAI-compatible LLM gateway.")
    parser.add_argument("--version", action="version", version=f"sanic-proxy {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help="a TOML file with settings")
    common.add_argument(
        "--router",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the model's prefix picks the provider",
    )

    serve = commands.add_parser("serve", parents=[common], help="start the proxy")
    serve.add_argument("--host", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", help="port to listen on (8000)")
    serve.add_argument("--workers", help="worker processes (one per core)")
    serve.add_argument("--heartbeat-char", choices=list(HEARTBEATS), help="what Straico's heartbeats carry")
    serve.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    serve.set_defaults(run=serve_proxy)

    models = commands.add_parser("models", parents=[common], help="print the models of all providers as JSON")
    models.set_defaults(run=print_models)

    check = commands.add_parser(
        "check", parents=[common], help="check the settings and print the provider table"
    )
    check.set_defaults(run=print_table)
    return parser


def _apply_flags(options: argparse.Namespace) -> None:
    """Flags become environment variables: they win over all else there, and workers inherit them."""
    for name in ("host", "port", "workers", "heartbeat_char", "log_level", "config"):
        value = getattr(options, name, None)
        if value is not None:
            os.environ[PREFIX + name.upper()] = value
    if options.router is not None:
        os.environ[PREFIX + "ROUTER"] = "on" if options.router else "off"


def serve_proxy(settings: Settings) -> int:
    """Replace this process with Sanic's own command, so that there is one way to start."""
    command = [sys.executable, "-m", "sanic", "sanic_proxy.app"]
    command += [
        f"--host={settings.host}",
        f"--port={settings.port}",
        f"--workers={settings.workers}",
    ]
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - our own interpreter, no shell


def print_models(settings: Settings) -> int:
    """The models as `GET /v1/models` would list them."""
    try:
        listed = asyncio.run(_models(settings))
    except ProxyError as exc:
        sys.stderr.write(f"sanic-proxy: {exc.message}\n")
        return 1
    print(json.dumps({"object": "list", "data": listed}, indent=2, ensure_ascii=False))
    return 0


async def _models(settings: Settings) -> list[dict[str, object]]:
    state = AppState(settings)
    try:
        return await state.models.all()
    finally:
        await state.aclose()


def print_table(settings: Settings) -> int:
    """What `serve` would start with; 1 if it would refuse."""
    print(f"{'provider':<14}{'key':<8}base URL")
    for provider in settings.providers:
        key = "-" if provider.key is None else str(provider.key)
        print(f"{provider.name:<14}{key:<8}{provider.base_url or '(embedded)'}")
    for line in banner.start_lines(settings, f"http://{settings.host}:{settings.port}")[2:]:
        print(line)
    problem = binding_problem(settings, settings.host)
    if problem is not None:
        sys.stderr.write(f"sanic-proxy: {problem}\n")
        return 1
    return 0
