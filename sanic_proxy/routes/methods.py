"""The HTTP methods that routes are registered with."""

from __future__ import annotations

READ = ("GET", "HEAD")


def methods_of(method: str) -> tuple[str, ...]:
    """The methods of a route for `method`: RFC 9110 (9.1) requires HEAD wherever there is GET.

    A handler need not look: it answers a HEAD as a GET, and the connection sends the head alone.
    """
    return READ if method == "GET" else (method,)
