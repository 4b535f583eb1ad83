"""The settings of captured content and of its replay, and the keys of tables that turn capture on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from sanic_proxy.config.tables import Key, Number, Table
from sanic_proxy.config.variables import Flag, Integer, Kind, Schema, Size, Text, setting

CAPTURE_KEYS: Table = {
    "capture": Key(Flag(), "`true`: the content of requests is written to `SANIC_PROXY_CAPTURE_FILE`"),
    "capture_sample": Key(Number(0, 1), "the share of requests that `capture` writes, at random; default: 1"),
}


def capture_share(values: Mapping[str, Any]) -> float:
    """The share of requests to capture, by the good values of a table."""
    share: float = values.get("capture_sample", 1.0)
    return share if values.get("capture", False) else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSettings:
    """Where captured content is kept, and how much of it. `file` is empty where there is none."""

    file: str = setting(
        "CAPTURE_FILE",
        Text("the path of a file"),
        "",
        "file for the content of requests whose client or model has `capture = true`",
    )
    days: int = setting("CAPTURE_DAYS", Integer(1, 36_500), 7, "days that captured content is kept")
    max_file_bytes: int = setting(
        "CAPTURE_FILE_BYTES", Size(2**16, 2**50), 2**30, "size of that file; the oldest lines are removed"
    )
    max_bytes: int = setting(
        "CAPTURE_BYTES",
        Size(1024, 2**30),
        4 * 2**20,
        "bytes of a request, and of an answer, that are captured at most",
    )
    max_field_chars: int = setting(
        "CAPTURE_FIELD_CHARS",
        Integer(1, 2**30),
        65_536,
        "characters of each text in a captured request; the rest is cut off",
    )

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.file)


FaultName = Literal["cut", "stall", "429", "500", "slow"]
MAX_RATE = 1e6


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with each replayed answer. `rate` is that of `slow`, in events per second."""

    name: FaultName
    rate: float = 0.0


@dataclass(frozen=True)
class FaultKind(Kind[Fault | None]):
    """`cut`, `stall`, `429`, `500` or `slow:RATE`; empty: none."""

    @property
    @override
    def expects(self) -> str:
        return "cut, stall, 429, 500, or slow:RATE with a rate above 0 in events per second"

    @override
    def parse(self, text: str) -> Fault | None:
        match text.partition(":"):
            case "", "", "":
                return None
            case ("cut" | "stall" | "429" | "500") as name, "", "":
                return Fault(name)
            case "slow", ":", number:
                rate = Number(0, MAX_RATE).parse(number)
                if rate:
                    return Fault("slow", rate)
        raise ValueError

    @override
    def schema(self) -> Schema:
        return {"type": ["string", "integer"], "pattern": r"^(cut|stall|429|500|slow:[0-9.e-]+)?$"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """The answers of the provider that replays captured content. `file` is empty where it is off."""

    file: str = setting(
        "REPLAY_FILE", Text("the path of a file"), "", "captured content that the provider `replay` serves"
    )
    speed: float = setting(
        "REPLAY_SPEED", Number(0, 1e6), 1.0, "its speed, relative to the captured times; 0: no pauses"
    )
    fault: Fault | None = setting(
        "REPLAY_FAULT",
        FaultKind(),
        None,
        "what goes wrong with each of its answers: `cut`, `stall`, `429`, `500`, or `slow:RATE` (events per "
        "second); empty: nothing",
    )
