"""The checks of Schemathesis for each answer of the proxy, and its requests. `scripts/fuzz` runs it.

The proxy's process is PROXY_PID: what a request costs is its CPU time, from /proc.
"""

from __future__ import annotations

import json
import os
from itertools import cycle
from pathlib import Path
from typing import Any

import schemathesis

LONGEST_CPU_S = 0.1
# Names that lead somewhere, as a drawn text would not: half of all requests get to a provider.
_MODELS = cycle([None, "echo/echo", None, "groq/good", "straico/good", None])
_spent = {"before": 0.0}


def cpu_s() -> float:
    """CPU seconds of the proxy so far."""
    tasks = Path(f"/proc/{os.environ['PROXY_PID']}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Give some requests a model that there is."""
    model = next(_MODELS)
    return {**body, "model": model} if model and isinstance(body, dict) else body


@schemathesis.hook
def map_headers(context: Any, headers: Any) -> Any:
    """Name a provider that there is, or none."""
    kept = {name: value for name, value in (headers or {}).items() if name.lower() != "x-provider"}
    provider = next(_MODELS)
    return {**kept, "x-provider": provider.partition("/")[0]} if provider else kept


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    _spent["before"] = cpu_s()


@schemathesis.check
def openai_error(context: Any, response: Any, case: Any) -> None:
    """A refusal is OpenAI's error object, and no client makes the proxy fail."""
    assert response.status_code < 500, f"{response.status_code} for what a client sent"
    if response.status_code >= 400:
        error = json.loads(response.content)["error"]
        assert set(error) == {"message", "type", "param", "code"}


@schemathesis.check
def little_cpu(context: Any, response: Any, case: Any) -> None:
    """No request blocks the worker."""
    spent_s = cpu_s() - _spent["before"]
    assert spent_s < LONGEST_CPU_S, f"the request took {spent_s:.3f} s of CPU"
