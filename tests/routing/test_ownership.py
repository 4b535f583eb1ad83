"""Which key made a resource."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.routing.ownership import ResourceOwners, resources_in


def test_an_owner_is_known_per_provider() -> None:
    owners: ResourceOwners[str] = ResourceOwners()
    owners.remember("a", ["/files/f"], "a's second key")
    assert owners.find("a", "/files/f") == "a's second key"
    assert owners.find("b", "/files/f") is None
    assert owners.find("a", "/batches/f") is None


def test_the_least_recently_used_are_dropped() -> None:
    owners: ResourceOwners[str] = ResourceOwners(limit=2)
    owners.remember("a", ["/files/1", "/files/2"], "key")
    owners.find("a", "/files/1")
    owners.remember("a", ["/files/3"], "key")
    known = [number for number in (1, 2, 3) if owners.find("a", f"/files/{number}")]
    assert known == [1, 3]


@pytest.mark.parametrize(
    ("collection", "described", "expected"),
    [
        ("/files", {"id": "file-1", "object": "file", "purpose": "batch"}, ["/files/file-1"]),
        (
            "/batches",
            {"id": "b", "input_file_id": "i", "output_file_id": "o", "error_file_id": None},
            ["/batches/b", "/files/i", "/files/o"],
        ),
        ("/files", {"id": "../x"}, []),
        ("/files", {"id": 7}, []),
        ("/files", [{"id": "f"}], []),
        ("/files", None, []),
    ],
)
def test_an_answer_names_its_resource_and_the_files_of_it(
    collection: str, described: Any, expected: list[str]
) -> None:
    assert list(resources_in(collection, described)) == expected
