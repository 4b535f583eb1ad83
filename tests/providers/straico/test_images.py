"""Images in a conversation."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.errors import InvalidRequest, UpstreamBadResponse
from sanic_proxy.providers.straico.images import (
    MAX_IMAGE_BYTES,
    Upload,
    multipart,
    parse_image,
    uploaded_url,
)


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("wrap", [lambda url: {"url": url, "detail": "high"}, lambda url: url])
@pytest.mark.parametrize("url", ["https://a.example/b.png?c=1", "HTTPS://a/b"])
def test_an_https_url_is_passed_on(wrap: Any, url: str) -> None:
    assert parse_image({"type": "image_url", "image_url": wrap(url)}, "p") == url


@pytest.mark.parametrize(
    ("kind", "ending"),
    [
        ("image/png", ".png"),
        ("IMAGE/JPEG", ".jpg"),
        ("image/jpg", ".jpg"),
        ("image/webp", ".webp"),
        ("image/gif", ".gif"),
    ],
)
def test_a_data_url_is_decoded(kind: str, ending: str) -> None:
    image = parse_image({"image_url": {"url": data_url(b"abcd", kind)}}, "p")
    assert isinstance(image, Upload)
    assert (image.content, image.digest) == (b"abcd", hashlib.sha256(b"abcd").digest())
    assert image.file_name.endswith(ending)


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        "",
        "http://a/b.png",
        "ftp://a/b",
        "file:///etc/passwd",
        "https://",
        "https://a/b c",
        "https://a/\r\nx: y",
        "https://ä/",
        "javascript:1",
        "data:image/png,abc",
        "data:image/svg+xml;base64,YQ==",
        "data:text/plain;base64,YQ==",
        "data:image/png;charset=utf-8;base64,YQ==",
        "data:image/png;base64,",
        "data:image/png;base64,YQ",
        "data:image/png;base64,Y Q==",
        "data:image/png;base64,YQ==YQ==",
        "data:image/png;base64,é===",
        data_url(b"\0" * (MAX_IMAGE_BYTES + 1)),
        data_url(b"\0" * (MAX_IMAGE_BYTES + 300)),
    ],
    ids=lambda url: str(url)[:40],
)
def test_any_other_image_is_rejected_by_name(url: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_image({"image_url": {"url": url}}, "messages.0.content.1")
    assert caught.value.param == "messages.0.content.1.image_url"


def test_the_largest_image_is_accepted() -> None:
    image = parse_image({"image_url": data_url(b"\0" * MAX_IMAGE_BYTES)}, "p")
    assert isinstance(image, Upload)
    assert len(image.content) == MAX_IMAGE_BYTES


@given(st.binary(min_size=1, max_size=200))
def test_what_was_encoded_is_uploaded(content: bytes) -> None:
    image = parse_image({"image_url": data_url(content)}, "p")
    assert isinstance(image, Upload)
    head, middle, tail = multipart(image, "b0undary")
    assert head.startswith(b'--b0undary\r\ncontent-disposition: form-data; name="file"; filename="image-')
    assert head.endswith(b"\r\ncontent-type: image/png\r\n\r\n")
    assert (middle, tail) == (content, b"\r\n--b0undary--\r\n")


def test_an_upload_has_a_url() -> None:
    assert uploaded_url({"data": {"url": "https://s3/a.png"}, "success": True}) == "https://s3/a.png"


@pytest.mark.parametrize(
    "parsed",
    [
        None,
        [],
        {},
        {"data": []},
        {"data": {}},
        {"data": {"url": 7}},
        {"data": {"url": "a b"}},
        {"data": {"url": "javascript:1"}},
        {"data": {"url": "https://a/\n"}},
        {"data": {"url": "https://a/é"}},
    ],
)
def test_an_upload_without_a_url_has_failed(parsed: object) -> None:
    with pytest.raises(UpstreamBadResponse):
        uploaded_url(parsed)
