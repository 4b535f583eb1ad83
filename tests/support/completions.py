"""The shell completion scripts of the package, made from the command's parser by shtab.

`python -m tests.support.completions` writes them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shtab

from sanic_proxy.cli import SHELLS, command_parser

FOLDER = Path(__file__).parents[2] / "sanic_proxy/completions"
_KINDS = {"FILE": shtab.FILE, "DIRECTORY": shtab.DIRECTORY}


def completion(shell: str) -> str:
    """The script of one shell. Values that are files are completed as such."""
    parser = command_parser()
    for action in _actions(parser):
        if isinstance(action.metavar, str) and action.metavar in _KINDS:
            action.complete = _KINDS[action.metavar]
    return shtab.complete(parser, shell).rstrip() + "\n"


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    for action in vars(parser)["_actions"]:
        yield action
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from _actions(command)


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for shell in SHELLS:
        (FOLDER / f"sanic-proxy.{shell}").write_text(completion(shell), "utf-8")


if __name__ == "__main__":
    main()
