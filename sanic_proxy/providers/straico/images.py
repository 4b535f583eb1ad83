"""Image parts of a conversation, and the bodies that upload them. Pure: nothing is fetched."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sanic_proxy.errors import InvalidRequest, UpstreamBadResponse

PART_KINDS = frozenset({"image_url", "input_image"})
MAX_IMAGES = 32
MAX_IMAGE_BYTES = 25 * 1024 * 1024  # Straico's limit for an upload

_EXTENSIONS: Mapping[str, str] = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/jpg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
}
_DATA_URL = re.compile(r"data:([a-z]+/[a-z]+);base64,", re.IGNORECASE)
_HTTPS_URL = re.compile(r"https://[\x21-\x7e]{1,8192}", re.IGNORECASE)
_UPLOADED_URL = re.compile(r"https?://[\x21-\x7e]{1,2048}")


@dataclass(frozen=True, slots=True)
class Upload:
    """An image of a data URL. `digest` is the SHA-256 of its bytes."""

    kind: str
    content: bytes
    digest: bytes

    @property
    def file_name(self) -> str:
        return f"image-{self.digest.hex()[:16]}.{_EXTENSIONS[self.kind]}"


# An image as bytes, or as a URL that Straico fetches.
Image = Upload | str


def parse_image(part: Mapping[str, object], path: str) -> Image:
    """Parse the image of a content part. `image_url` may be an object or a string. Raises InvalidRequest."""
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    param = f"{path}.image_url"
    if not isinstance(url, str):
        raise InvalidRequest("An image part must have a URL; file ids are not supported", param=param)
    if url[:5].lower() == "data:":
        return _upload(url, param)
    if not _HTTPS_URL.fullmatch(url):
        raise InvalidRequest("An image must be an https URL or a base64 data URL", param=param)
    return url


def _upload(url: str, param: str) -> Upload:
    head = _DATA_URL.match(url)
    kind = head[1].lower() if head else ""
    if head is None or kind not in _EXTENSIONS:
        raise InvalidRequest(
            "An image's data URL must be base64 of image/png, image/jpeg, image/webp or image/gif",
            param=param,
        )
    encoded = url[head.end() :]
    if len(encoded) > MAX_IMAGE_BYTES // 3 * 4 + 4:
        raise _too_large(param)
    try:
        content = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise InvalidRequest("The image's base64 is invalid", param=param) from None
    if not content:
        raise InvalidRequest("The image is empty", param=param)
    if len(content) > MAX_IMAGE_BYTES:
        raise _too_large(param)
    return Upload(kind, content, hashlib.sha256(content).digest())


def _too_large(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"The image is larger than the limit of {MAX_IMAGE_BYTES // 2**20} MiB", param=param
    )


def multipart(upload: Upload, boundary: str) -> tuple[bytes, bytes, bytes]:
    """The body of an upload, in pieces so that the image is not copied. `boundary` must be unpredictable."""
    head = (
        f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{upload.file_name}"\r\n'
        f"content-type: {upload.kind.replace('/jpg', '/jpeg')}\r\n\r\n"
    )
    return head.encode(), upload.content, f"\r\n--{boundary}--\r\n".encode()


def uploaded_url(parsed: object) -> str:
    """The URL of an uploaded image. Raises UpstreamBadResponse."""
    data = parsed.get("data") if isinstance(parsed, dict) else None
    url = data.get("url") if isinstance(data, dict) else None
    if not isinstance(url, str) or not _UPLOADED_URL.fullmatch(url):
        raise UpstreamBadResponse("The provider's answer to an upload has no valid `data.url`")
    return url
