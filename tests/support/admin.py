"""The settings of a proxy with admin routes."""

from __future__ import annotations

ADMIN_KEY = "admin-canary-0123456789"
CLIENT_KEY = "client-canary-0123456789"
SETTINGS = {"SANIC_PROXY_ADMIN_KEY": ADMIN_KEY, "SANIC_PROXY_API_KEYS": CLIENT_KEY}


def bearer(key: str) -> dict[str, str]:
    """The header of a request with `key`."""
    return {"authorization": f"Bearer {key}"}
