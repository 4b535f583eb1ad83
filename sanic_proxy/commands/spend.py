"""`sanic-proxy spend`: what clients have spent, from the ledger of the running proxy."""

from __future__ import annotations

import argparse
import json
import re
from functools import partial
from typing import Any

from sanic_proxy.commands.store import run_on_store
from sanic_proxy.config.model import Settings
from sanic_proxy.config.rules import format_usd
from sanic_proxy.governance.accounts import GROUPS, Sum, named, sum_object, sums
from sanic_proxy.governance.key_admin import KeyAdmin
from sanic_proxy.state_store.base import StateStore

Subparsers = Any  # argparse's own type of it is private

_EXAMPLES = """\
examples:
  sanic-proxy spend                                        by key
  sanic-proxy spend --by key,model --since 2026-11-01
  sanic-proxy spend --by day --key app --json

exit status: 0; 1 if the store cannot be read; 2 if the command line is wrong"""


def add_command(commands: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the command."""
    text = "print what clients have spent"
    parser = commands.add_parser(
        "spend",
        parents=[common],
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Days are those of UTC.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--by", type=_groups, default=("key",), metavar="LIST", help=f"some of {', '.join(GROUPS)}"
    )
    parser.add_argument("--since", type=_day, metavar="DAY", help="the first day: 2026-11-01")
    parser.add_argument("--until", type=_day, metavar="DAY", help="the last day")
    parser.add_argument("--key", default="", metavar="KEY", help="only of this key: its name, id or digest")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=print_spend)


def _groups(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(text.split(",")))
    if not set(words) <= GROUPS.keys():
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(GROUPS)} with commas, got {text!r}")
    return words


def _day(text: str) -> str:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise argparse.ArgumentTypeError(f"expected a day such as 2026-11-01, got {text!r}")
    return text


def print_spend(settings: Settings, options: argparse.Namespace) -> int:
    """Print the sums."""
    return run_on_store(settings, partial(_print_spend, settings=settings, options=options))


async def _print_spend(store: StateStore, *, settings: Settings, options: argparse.Namespace) -> int:
    admin = KeyAdmin(settings, store)
    names = await admin.names()
    client = await admin.client_id(options.key)
    clients = [client] if client else None
    read = partial(sums, by=options.by, since=options.since or "", until=options.until or "", clients=clients)
    found = await store.run(read) if store.exists() else []
    if options.json:
        print(json.dumps([sum_object(entry, options.by, names) for entry in found], indent=2))
    else:
        _print_table([named(entry, options.by, names) for entry in found], options.by)
    return 0


def _print_table(found: list[Sum], by: tuple[str, ...]) -> None:
    if not found:
        return
    print("".join(f"{word:<28}" for word in by) + f"{'USD':>16}{'attempts':>10}{'input':>14}{'output':>14}")
    for entry in found:
        words = "".join(f"{word or '-':<28}" for word in entry.group)
        money = format_usd(entry.nano)
        print(f"{words}{money:>16}{entry.attempts:>10}{entry.input:>14}{entry.output:>14}")
