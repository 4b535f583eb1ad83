"""The endpoints of OpenAI's API that pass through as they are, a row each. Knows no network.

Chat completions are not among them: they are converted for providers that need it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

# What a request's body is. "form": multipart/form-data, sent on while it comes.
Body = Literal["json", "form", "none"]
# What an answer is. "json": an object, read whole and looked at, or an event stream. "media": the same,
# or anything else but a web page. "file": whatever it is, untouched.
Answer = Literal["json", "media", "file"]

# An id that goes into an upstream's path: no slash, no dots alone, nothing that would need escaping.
_ID = re.compile(r"(?!\.+\Z)[A-Za-z0-9._:-]{1,256}")


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint: its path below the base URL, where `<id>` stands for a name the client knows.

    `is_completion`: its answers and streams are OpenAI's completions, so that they can be judged as such.
    `is_once`: it makes or ends something, so that a repeat after a failure could do it twice.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    body: Body = "json"
    answer: Answer = "json"
    is_completion: bool = False
    is_once: bool = False

    @property
    def name(self) -> str:
        """A name of its own, for the router."""
        return f"{self.method}_{self.path}".translate(_PLAIN)

    @property
    def endpoint(self) -> str:
        """What the health of its targets is kept by."""
        return f"{self.method} {self.path}"

    def path_for(self, resource_id: str | None) -> str | None:
        """The path with `resource_id` in it; None for an id that is none."""
        if resource_id is None:
            return self.path
        return self.path.replace("<id>", resource_id) if _ID.fullmatch(resource_id) else None


_PLAIN = str.maketrans({"/": "_", "<": None, ">": None})

# https://platform.openai.com/docs/api-reference; `/rerank` is not OpenAI's, but alike with all who have it.
ROWS: tuple[Row, ...] = (
    Row("POST", "/completions", "Complete a text (the older API)", is_completion=True),
    Row("POST", "/embeddings", "Create embeddings"),
    Row("POST", "/moderations", "Classify content"),
    Row("POST", "/rerank", "Sort documents by relevance"),
    Row("POST", "/images/generations", "Create images"),
    Row("POST", "/images/edits", "Change an image", body="form"),
    Row("POST", "/images/variations", "Vary an image", body="form"),
    Row("POST", "/audio/speech", "Speak a text", answer="media"),
    Row("POST", "/audio/transcriptions", "Write down what is said", body="form", answer="media"),
    Row("POST", "/audio/translations", "Translate what is said into English", body="form", answer="media"),
    Row("POST", "/files", "Upload a file", body="form", is_once=True),
    Row("GET", "/files", "List the files", body="none"),
    Row("GET", "/files/<id>", "Get one file's description", body="none"),
    Row("DELETE", "/files/<id>", "Delete a file", body="none", is_once=True),
    Row("GET", "/files/<id>/content", "Get a file's content", body="none", answer="file"),
    Row("POST", "/batches", "Create a batch", is_once=True),
    Row("GET", "/batches", "List the batches", body="none"),
    Row("GET", "/batches/<id>", "Get one batch", body="none"),
    Row("POST", "/batches/<id>/cancel", "Cancel a batch", body="none", is_once=True),
)
