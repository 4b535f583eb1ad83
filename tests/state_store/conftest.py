"""What the tests of shared state share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sanic_proxy.state_store.shared import unnamed_memory


@pytest.fixture
def fd() -> Iterator[int]:
    """The descriptor of memory that workers share."""
    memory = unnamed_memory()
    yield memory.fileno()
    memory.close()
