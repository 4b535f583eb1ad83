"""Media types of files by their names. Pure."""

from __future__ import annotations

import mimetypes


def media_type_of(path: str) -> str | None:
    """The media type for the ending of a file's name or of a URL's path.

    `mimetypes.guess_type` parses URLs, and raises ValueError for malformed ones in newer versions of Python:
    it gets the last segment only.
    """
    return mimetypes.guess_type(path.rpartition("/")[2])[0]
