"""Compressed bodies: every form that providers send, cut, corrupt, and inflating without end."""

from __future__ import annotations

import functools
import gzip
import time
import zlib
from collections.abc import Callable, Iterable

import pytest

from sanic_proxy import errors
from sanic_proxy.upstream.compression import (
    MAX_INFLATED_BYTES,
    MAX_LAYERS,
    PIECE_BYTES,
    Decoder,
    decoder_for,
)
from tests.support.machine import ATTEMPTS, reference_s

# Without a time of packing: the ids of tests are the same in all processes of xdist.
gzipped = functools.partial(gzip.compress, compresslevel=1, mtime=0)

TEXT = b"hello, " * 700
LARGE = bytes(range(256)) * 4000


def raw_deflate(data: bytes, level: int = 9) -> bytes:
    packer = zlib.compressobj(level, wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def decoder(encoding: str) -> Decoder:
    made = decoder_for(encoding)
    assert made is not None
    return made


def steps(reader: Decoder, data: bytes) -> Iterable[bytes]:
    reader.feed(data)
    while (piece := reader.step()) is not None:
        yield piece


def decoded(encoding: str, packed: bytes, *, size: int = 65536) -> bytes:
    reader = decoder(encoding)
    pieces = [packed[at : at + size] for at in range(0, len(packed), size)]
    content = b"".join(content for piece in pieces for content in steps(reader, piece))
    reader.end()
    return content


MEMBERS = gzipped(TEXT) + gzipped(b"") + gzipped(LARGE)
CASES = [
    ("gzip", gzipped(TEXT), TEXT),
    ("x-gzip", gzipped(TEXT), TEXT),
    ("GZip", gzipped(TEXT), TEXT),
    ("gzip", MEMBERS, TEXT + LARGE),
    ("gzip", gzipped(TEXT) + bytes(5) + gzipped(TEXT) + bytes(512), TEXT * 2),
    ("gzip", gzipped(TEXT) + b"\r\n", TEXT),
    ("gzip", gzipped(TEXT) + b"garbage" + gzipped(TEXT), TEXT),
    ("gzip", gzipped(TEXT) + b"\x1fgarbage", TEXT),
    ("gzip", zlib.compress(TEXT), TEXT),
    ("gzip", gzipped(b""), b""),
    ("gzip", b"", b""),
    ("deflate", zlib.compress(LARGE), LARGE),
    ("deflate", zlib.compress(TEXT, 0), TEXT),
    ("deflate", raw_deflate(TEXT), TEXT),
    ("deflate", raw_deflate(TEXT, 0), TEXT),
    ("deflate", raw_deflate(b""), b""),
    ("deflate", raw_deflate(TEXT) + b"garbage", TEXT),
    ("deflate", gzipped(TEXT), TEXT),
    ("gzip, gzip", gzipped(gzipped(TEXT) + gzipped(LARGE)), TEXT + LARGE),
    ("deflate,gzip", gzipped(raw_deflate(TEXT)), TEXT),
    ("gzip , identity, deflate", zlib.compress(gzipped(TEXT)), TEXT),
    ("gzip", gzipped(bytes(MAX_INFLATED_BYTES)), bytes(MAX_INFLATED_BYTES)),
    ("gzip", gzipped(bytes(PIECE_BYTES)) * 2, bytes(2 * PIECE_BYTES)),
]


@pytest.mark.row(31)
@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize(("encoding", "packed", "content"), CASES)
def test_all_content_is_decoded_however_it_is_split(
    encoding: str, packed: bytes, content: bytes, size: int
) -> None:
    assert decoded(encoding, packed, size=size) == content


@pytest.mark.parametrize("encoding", ["", "identity", " Identity ,", "identity, identity"])
def test_identity_needs_no_decoder(encoding: str) -> None:
    assert decoder_for(encoding) is None


@pytest.mark.parametrize(
    ("encoding", "whole"),
    [
        ("gzip", gzipped(b"hi") + gzipped(b"hello")),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", raw_deflate(b"hello")),
        ("gzip, gzip", gzipped(gzipped(b"hello"))),
    ],
)
def test_every_cut_but_between_members_is_a_disconnect(encoding: str, whole: bytes) -> None:
    complete = {0, len(whole)} | ({len(gzipped(b"hi"))} if whole.count(b"\x1f\x8b") > 1 else set())
    for cut in set(range(len(whole))) - complete:
        with pytest.raises(errors.UpstreamDisconnected):
            decoded(encoding, whole[:cut])


def test_a_cut_inside_the_inner_of_two_layers_is_a_disconnect() -> None:
    with pytest.raises(errors.UpstreamDisconnected):
        decoded("gzip, gzip", gzipped(gzipped(b"hello")[:-1]))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b'{"not": "compressed"}'),
        ("deflate", b"data: not compressed"),
        ("gzip", gzipped(TEXT)[:-8] + bytes(8)),
        ("gzip", gzipped(TEXT) + b"\x1f\x8bgarbage"),
        ("gzip, gzip", gzipped(TEXT)),
    ],
    ids=["identity as gzip", "identity as deflate", "checksum", "corrupt member", "one layer less"],
)
def test_corrupt_data_is_a_bad_response(encoding: str, body: bytes) -> None:
    with pytest.raises(errors.UpstreamBadResponse):
        decoded(encoding, body)


@pytest.mark.parametrize(
    ("encoding", "named"),
    [("br", "`br`"), ("gzip, ZSTD", "`zstd`"), ("\x1b[0m" + "x" * 99, "`?"), ("gzip," * 9, "9 times")],
)
def test_an_encoding_that_is_not_supported_is_named(encoding: str, named: str) -> None:
    with pytest.raises(errors.UpstreamBadResponse) as caught:
        decoder_for(encoding)
    assert named in caught.value.message
    assert len(caught.value.message) < 250
    assert decoder_for(", ".join(["gzip"] * MAX_LAYERS)) is not None


LONGEST_STEP = 1.5  # in units of `reference_s`: about 30 ms of a fast core


@pytest.mark.parametrize(
    ("encoding", "bomb"),
    [
        ("gzip", gzipped(bytes(40_000_000))),
        ("deflate", raw_deflate(bytes(40_000_000))),
        ("gzip", gzipped(bytes(1_000_000)) * 40),
        ("gzip, gzip", gzipped(gzipped(bytes(200_000_000)))),
        ("gzip, gzip", gzipped(gzipped(b"") * 1_000_000)),
    ],
    ids=["gzip", "raw", "members", "stacked", "a million empty members"],
)
def test_a_bomb_ends_within_the_limit_in_short_steps(encoding: str, bomb: bytes) -> None:
    assert least(lambda: exploded(encoding, bomb)) < LONGEST_STEP


def exploded(encoding: str, bomb: bytes) -> float:
    """The CPU seconds of the longest step."""
    longest_s = 0.0
    size = 0
    reader = decoder(encoding)
    began = time.thread_time()
    reader.feed(bomb)
    failure: errors.UpstreamBadResponse | None = None
    while failure is None:
        try:
            piece = reader.step()
        except errors.UpstreamBadResponse as exc:
            failure, piece = exc, b""
        now = time.thread_time()
        longest_s, began = max(longest_s, now - began), now
        assert piece is not None
        assert len(piece) <= PIECE_BYTES
        size += len(piece)
    assert "larger than the proxy accepts" in failure.message
    assert size <= MAX_INFLATED_BYTES
    return longest_s


def test_many_small_members_are_decoded_in_short_steps() -> None:
    def longest_step_s() -> float:
        longest_s = 0.0
        began = time.thread_time()
        count = 0
        for piece in steps(decoder("gzip"), gzipped(b"x") * 10_000):
            now = time.thread_time()
            longest_s, began = max(longest_s, now - began), now
            count += len(piece)
        assert count == 10_000
        return longest_s

    assert least(longest_step_s) < LONGEST_STEP


def least(longest_step_s: Callable[[], float]) -> float:
    """The best of some attempts, in units of `reference_s`."""
    best = float("inf")
    for _ in range(ATTEMPTS):
        best = min(best, longest_step_s() / reference_s())
        if best < LONGEST_STEP:
            break
    return best
