"""Whether the tools are there that count instructions."""

from __future__ import annotations

import pytest

from loadtest.bench.gateways import found
from loadtest.bench.processes import StartError


def installed(*tools: str) -> bool:
    try:
        return all(map(found, tools))
    except StartError:
        return False


needs_callgrind = pytest.mark.skipif(
    not installed("cc", "valgrind", "callgrind_control"), reason="needs a C compiler and valgrind"
)
