"""What the commands on the state store share: they open it, close it, and report what is wrong."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

from sanic_proxy.config.model import Settings
from sanic_proxy.errors import ProxyError
from sanic_proxy.state_store.base import StateStore, StoreError


def run_on_store(settings: Settings, work: Callable[[StateStore], Awaitable[int]]) -> int:
    """Run `work` on the store of the settings. Returns its exit status, or 1 if it fails."""
    return asyncio.run(_run(settings, work))


async def _run(settings: Settings, work: Callable[[StateStore], Awaitable[int]]) -> int:
    from sanic_proxy.state import state_store  # noqa: PLC0415 - half of the start, and only these commands need it

    store = state_store(settings)
    try:
        return await work(store)
    except ProxyError as exc:
        return failed(exc.message)
    except StoreError as exc:
        return failed(str(exc))
    finally:
        await store.aclose()


def failed(problem: str) -> int:
    """Report why a command has failed. Returns its exit status."""
    sys.stderr.write(f"sanic-proxy: {problem}\n")
    return 1
