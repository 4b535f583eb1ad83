"""The endpoints of OpenAI's API that pass through unchanged, a row each. Data.

Chat completions are not among them: they are converted for providers that need it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# The body of a request. "form": multipart/form-data, streamed.
Body = Literal["json", "form", "none"]
# The body of a response. "json": an object, read whole and checked, or an event stream. "media": the same, or
# anything else but an HTML page. "file": any bytes, streamed unmodified.
Answer = Literal["json", "media", "file"]

# An id that becomes part of an upstream's path: no slash, not only dots, nothing that needs escaping.
_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9._:-]{1,256}")


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint: its path below the base URL, where `<id>` stands for a name the client knows.

    `is_completion`: its responses and streams are OpenAI's completions, and are checked as such.
    `is_once`: it creates or ends something, so a retry after a failure could do it twice.
    `is_stateful`: it works on resources that belong to the account of one key. `resource` is then the path
    that describes the resource, and `resource_field` the body's field with its id, if the path has none.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    body: Body = "json"
    answer: Answer = "json"
    is_completion: bool = False
    is_once: bool = False
    is_stateful: bool = False
    resource: str = ""
    resource_field: str = ""

    @property
    def name(self) -> str:
        """A unique name, for the router."""
        return f"{self.method}_{self.path}".translate(_PLAIN)

    @property
    def endpoint(self) -> str:
        """The key under which the health of its targets is kept."""
        return f"{self.method} {self.path}"

    def path_for(self, resource_id: str | None) -> str | None:
        """The path with `resource_id` in it; None for an invalid id."""
        return self.path if resource_id is None else resource_path(self.path, resource_id)

    def resource_for(self, resource_id: object) -> str | None:
        """The path that describes the resource with that id; None if the endpoint has no such path."""
        return resource_path(self.resource, resource_id) if self.resource else None

    @property
    def collection(self) -> str:
        """The path of the collection that its resources belong to, such as `/files`."""
        return "/" + self.path.split("/")[1]


def resource_path(template: str, resource_id: object) -> str | None:
    """`template` with `resource_id` for `<id>`; None for an id that cannot be part of a path."""
    if not isinstance(resource_id, str) or not _ID.fullmatch(resource_id):
        return None
    return template.replace("<id>", resource_id)


_PLAIN = str.maketrans({"/": "_", "<": None, ">": None})

_FILE = "/files/<id>"
_BATCH = "/batches/<id>"

# https://platform.openai.com/docs/api-reference; `/rerank` is not OpenAI's, but providers agree on its shape.
ROWS: tuple[Row, ...] = (
    Row("POST", "/completions", is_completion=True),
    Row("POST", "/embeddings"),
    Row("POST", "/moderations"),
    Row("POST", "/rerank"),
    Row("POST", "/images/generations", is_once=True),
    Row("POST", "/images/edits", body="form", is_once=True),
    Row("POST", "/images/variations", body="form", is_once=True),
    Row("POST", "/audio/speech", answer="media"),
    Row("POST", "/audio/transcriptions", body="form", answer="media"),
    Row("POST", "/audio/translations", body="form", answer="media"),
    Row("POST", "/files", body="form", is_once=True, is_stateful=True),
    Row("GET", "/files", body="none", is_stateful=True),
    Row("GET", "/files/<id>", body="none", is_stateful=True, resource=_FILE),
    Row("DELETE", "/files/<id>", body="none", is_once=True, is_stateful=True, resource=_FILE),
    Row(
        "GET",
        "/files/<id>/content",
        body="none",
        answer="file",
        is_stateful=True,
        resource=_FILE,
    ),
    Row(
        "POST",
        "/batches",
        is_once=True,
        is_stateful=True,
        resource=_FILE,
        resource_field="input_file_id",
    ),
    Row("GET", "/batches", body="none", is_stateful=True),
    Row("GET", "/batches/<id>", body="none", is_stateful=True, resource=_BATCH),
    Row(
        "POST",
        "/batches/<id>/cancel",
        body="none",
        is_once=True,
        is_stateful=True,
        resource=_BATCH,
    ),
)
