"""The application with every request counted, for `tests/providers/test_openai_compatible`."""

from __future__ import annotations

from typing import Any

from sanic_proxy.app import create_app

app: Any = create_app(name="governed")


@app.on_request
async def govern(request: Any) -> None:
    """What counts the usage of a request notes in its record."""
    request.record.is_governed = True
