"""The HTTP methods and base URLs that routes are registered with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sanic_proxy.routes.blueprint import Blueprint

READ = ("GET", "HEAD")


def methods_of(method: str) -> tuple[str, ...]:
    """The methods of a route for `method`: RFC 9110 (9.1) requires HEAD wherever there is GET.

    A handler need not look: it answers a HEAD as a GET, and the connection sends the head alone.
    """
    return READ if method == "GET" else (method,)


# Further base URLs of the same routes: without a version, and those of Azure's clients.
_MORE_BASES = {"bare": "", "undated": "/openai/v1", "dated": "/openai"}


def add_route(
    blueprint: Blueprint, handler: Callable[..., Any], path: str, methods: Sequence[str], name: str
) -> None:
    """Serve `handler` at `path` below `/v1` and, undocumented, below the other base URLs."""
    blueprint.add_route(handler, f"/v1{path}", methods=methods, name=name)
    for suffix, base in _MORE_BASES.items():
        blueprint.add_route(handler, f"{base}{path}", methods=methods, name=f"{name}_{suffix}")
