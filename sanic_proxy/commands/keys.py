"""`sanic-proxy keys`: clients whose keys are made at run time, in the store of the running proxy."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sanic_proxy.commands.store import run_on_store
from sanic_proxy.config.model import Settings
from sanic_proxy.config.rules import PERIODS, format_usd, iso_time
from sanic_proxy.config.variables import PREFIX, split_list
from sanic_proxy.errors import InvalidRequest
from sanic_proxy.governance.durations import seconds_of
from sanic_proxy.governance.key_admin import KeyAdmin, key_object
from sanic_proxy.governance.keys import KeyFilter, StoredKey
from sanic_proxy.state_store.base import StateStore

Command = Callable[[KeyAdmin, argparse.Namespace], Awaitable[int]]
Subparsers = Any  # argparse's own type of it is private

PAGE = 1000
_EXAMPLES = """\
examples:
  sanic-proxy keys create app --models 'fast,groq/*' --rpm 60 --budget 20/month
  sanic-proxy keys create ci --budget 1/day --budget 10/month --strict --expires 30d --json
  OLD=sk-... sanic-proxy keys create migrated --key-env OLD
  sanic-proxy keys list --status expired
  sanic-proxy keys update app --rpm 120 --budget 40/month
  sanic-proxy keys rotate app --grace 24h
  sanic-proxy keys block app

A key is named by its name, its id, the key itself or its SHA-256 digest. Changes hold in a running
proxy within half a second.

exit status: 0; 1 if the key or the store is not there or a value is wrong; 2 if the command line is wrong"""


def add_command(commands: Subparsers, common: argparse.ArgumentParser) -> None:
    """Add the command and its subcommands."""
    text = "make, show, change and block the keys of clients"
    parser = commands.add_parser(
        "keys",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subcommands = parser.add_subparsers(required=True, metavar="subcommand")
    shared = argparse.ArgumentParser(add_help=False, parents=[common])
    shared.add_argument("--json", action="store_true", help="print JSON")

    create = _add(subcommands, shared, "create", create_key, "make a key and print it, once")
    create.add_argument("name", metavar="NAME", help="the name of the client")
    create.add_argument("--key-env", metavar="VARIABLE", help="import the key in this variable")
    _add_rules(create)
    change = _add(subcommands, shared, "update", update_key, "change the rules of a key")
    _add_rules(change)
    list_ = _add(subcommands, shared, "list", list_keys, "list the keys, the newest first")
    list_.add_argument("--status", choices=("active", "expired", "revoked", "deleted"))
    list_.add_argument("--team", default="", help="only the keys of a team")
    show = _add(subcommands, shared, "show", show_key, "show one key")
    rotate = _add(subcommands, shared, "rotate", rotate_key, "replace a key and print the new one")
    rotate.add_argument(
        "--grace", default="0s", metavar="TIME", help="how long the present key stays valid, such as 24h"
    )
    rotate.add_argument("--key-env", metavar="VARIABLE", help="import the key in this variable")
    block = _add(subcommands, shared, "block", block_key, "refuse a key until it is unblocked")
    unblock = _add(subcommands, shared, "unblock", unblock_key, "accept a blocked key again")
    delete = _add(subcommands, shared, "delete", delete_key, "delete a key for good")
    for each in (change, show, rotate, block, unblock, delete):
        each.add_argument("key", metavar="KEY", help="a name, an id, a key or its SHA-256 digest")


def _add(
    subcommands: Subparsers, shared: argparse.ArgumentParser, name: str, command: Command, text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subcommands.add_parser(
        name, parents=[shared], help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.set_defaults(run=run, command=command)
    return parser


def _add_rules(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--models", metavar="LIST", help="the models that may be used, with *, separated by commas")
    add("--endpoints", metavar="LIST", help="the endpoints, such as /chat/completions,/files*")
    for name, text in (
        ("rpm", "requests per minute"),
        ("tpm", "tokens per minute"),
        ("concurrent", "requests in flight"),
        ("burst", "requests at once, within --rpm"),
        ("max-requests", "requests of one session of an agent"),
    ):
        add(f"--{name}", type=int, metavar="N", help=text)
    add("--max-cost", type=float, metavar="USD", help="US dollars of one session of an agent")
    add(
        "--budget",
        action="append",
        metavar="USD/PERIOD",
        help=f"the most that may be spent per {', '.join(PERIODS)}, such as 20/month; several are possible",
    )
    add("--time-zone", default="UTC", metavar="NAME", help="of the budgets' periods (default: UTC)")
    add("--strict", action="store_true", help="the budgets are never exceeded: requests reserve the most")
    add("--soft", metavar="LIST", help="percentages of budgets that are announced (default: 50,80,100)")
    add("--expires", metavar="TIME", help="a date or time, or a duration such as 30d")
    add("--team", metavar="NAME", help="the [teams.NAME] table whose limits the key shares")
    add("--ui", action=argparse.BooleanOptionalAction, help="whether the key opens the page /ui")
    add(
        "--metadata", action="append", metavar="NAME=TEXT", help="a value that is shown; several are possible"
    )


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Run a subcommand on the store of the settings."""

    async def work(store: StateStore) -> int:
        status: int = await options.command(KeyAdmin(settings, store), options)
        return status

    status = run_on_store(settings, work)
    if status == 0 and settings.is_open:
        sys.stderr.write(
            f"sanic-proxy: with these settings no key is needed; set {PREFIX}REQUIRE_KEYS=on to demand one\n"
        )
    return status


async def create_key(admin: KeyAdmin, options: argparse.Namespace) -> int:
    """Make a key."""
    key, literal = await admin.create(options.name, _table(options), _imported(options))
    _print_secret(key, literal, options)
    return 0


async def update_key(admin: KeyAdmin, options: argparse.Namespace) -> int:
    """Change a key's rules."""
    _print(await admin.update(options.key, _table(options)), options)
    return 0


async def list_keys(admin: KeyAdmin, options: argparse.Namespace) -> int:
    """List keys, page by page."""
    wanted = KeyFilter(status=options.status or "", team=options.team)
    found: list[StoredKey] = []
    while True:
        total, page = await admin.listed(wanted, PAGE, len(found))
        found += page
        if not page or len(found) >= total:
            break
    now = time.time()
    if options.json:
        print(json.dumps([key_object(key, now) for key in found], indent=2))
        return 0
    if found:
        print(f"{'name':<24}{'key':<16}{'status':<10}{'created':<22}limits")
    for key in found:
        status, created = key.status(now), iso_time(key.created)
        print(f"{key.rules.name or key.id:<24}{key.hint:<16}{status:<10}{created:<22}{_limits(key)}")
    return 0


async def show_key(admin: KeyAdmin, options: argparse.Namespace) -> int:
    """Show a key."""
    _print(await admin.find(options.key), options)
    return 0


async def rotate_key(admin: KeyAdmin, options: argparse.Namespace) -> int:
    """Replace a key."""
    key, literal = await admin.rotate(options.key, seconds_of(options.grace), _imported(options))
    _print_secret(key, literal, options)
    return 0


async def block_key(admin: KeyAdmin, options: argparse.Namespace) -> int:
    """Block a key."""
    _print(await admin.update(options.key, {}, is_blocked=True), options)
    return 0


async def unblock_key(admin: KeyAdmin, options: argparse.Namespace) -> int:
    """Unblock a key."""
    _print(await admin.update(options.key, {}, is_blocked=False), options)
    return 0


async def delete_key(admin: KeyAdmin, options: argparse.Namespace) -> int:
    """Delete a key."""
    _print(await admin.delete(options.key), options)
    return 0


def _table(options: argparse.Namespace) -> dict[str, object]:
    """The options as the keys of a client's table."""
    names = ("rpm", "tpm", "concurrent", "burst", "max_requests", "max_cost", "team", "ui")
    table: dict[str, object] = {name: getattr(options, name) for name in names}
    for name in ("models", "endpoints"):
        text = getattr(options, name)
        table[name] = None if text is None else list(split_list(text))
    if options.soft is not None:
        table["soft"] = [int(part) if part.isdecimal() else part for part in split_list(options.soft)]
    if options.budget is not None:
        table["budget"] = [_budget(text, options) for text in options.budget]
    if options.expires is not None:
        table["expires"] = _moment(options.expires)
    if options.metadata is not None:
        table["metadata"] = dict(text.partition("=")[::2] for text in options.metadata)
    return {name: value for name, value in table.items() if value is not None}


def _budget(text: str, options: argparse.Namespace) -> Mapping[str, object]:
    amount, _, period = text.partition("/")
    if not re.fullmatch(r"[0-9]{1,10}(?:\.[0-9]{1,9})?", amount):
        raise InvalidRequest(f"--budget: expected US dollars and a period such as 20/month, got {text!r}")
    return {
        "usd": float(amount),
        "per": period or "total",
        "time_zone": options.time_zone,
        "strict": options.strict,
    }


def _moment(text: str) -> str:
    """A date or time as it is; a duration as the time it ends."""
    return iso_time(time.time() + seconds_of(text)) if re.fullmatch(r"[0-9]+[a-z]+", text) else text


def _imported(options: argparse.Namespace) -> str | None:
    """The key in the variable that was named."""
    if options.key_env is None:
        return None
    key = os.environ.get(options.key_env, "").strip()
    if not key:
        raise InvalidRequest(f"--key-env: the variable {options.key_env} is not set")
    return key


def _print_secret(key: StoredKey, literal: str, options: argparse.Namespace) -> None:
    """The key on standard output, where a script reads it; an imported one is not repeated."""
    if options.json:
        shown = {} if options.key_env else {"secret": literal}
        print(json.dumps({**shown, **key_object(key, time.time())}, indent=2))
        return
    if not options.key_env:
        print(literal)
    sys.stderr.write(f"stored as {key.id}; the key itself is not shown again\n")


def _print(key: StoredKey, options: argparse.Namespace) -> None:
    found = key_object(key, time.time())
    if options.json:
        print(json.dumps(found, indent=2))
        return
    found["budget"] = _budgets(key)
    for name, value in found.items():
        if value not in (None, "", [], {}):
            print(f"{name + ':':<14}{', '.join(map(str, value)) if isinstance(value, list) else value}")


def _limits(key: StoredKey) -> str:
    limits = key.rules.limits
    counts = {"rpm": limits.rpm, "tpm": limits.tpm, "concurrent": limits.concurrent}
    parts = [f"{name} {value}" for name, value in counts.items() if value is not None]
    return ", ".join([*parts, *_budgets(key)]) or "-"


def _budgets(key: StoredKey) -> list[str]:
    return [f"{format_usd(each.limit_nano)} USD/{each.per}" for each in key.rules.limits.budgets]
