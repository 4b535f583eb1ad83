"""Print the price table of the package, made of the one in a litellm wheel. `scripts/prices` calls it."""

from __future__ import annotations

import datetime
import json
import re
import sys
import zipfile
from typing import Any

from sanic_proxy.config.litellm.costs import prices_of
from sanic_proxy.config.litellm.vendors import VENDORS, vendor_of_bare
from sanic_proxy.config.prices import PriceTable

TABLE = "litellm/model_prices_and_context_window_backup.json"
MODES = {
    None,
    *("chat", "responses", "completion", "embedding", "moderation", "rerank"),
    *("image_generation", "image_edit", "audio_transcription", "audio_speech"),
}
# Prices of one size and quality: requests of others would cost another price.
_OF_SIZE = re.compile(r"\d+-x-\d+|max-x-max")
_PARTS = ("image", "second")
# Without any of these, nothing can be computed.
_NEEDED = ("input", "output", "request", "image", "second")


def named(name: str, entry: dict[str, Any]) -> str | None:
    """`PROVIDER/MODEL` as the catalog has it; None for other vendors."""
    listed = str(entry.get("litellm_provider"))
    prefix, _, model = name.partition("/")
    if prefix not in VENDORS or prefix != listed:
        prefix, model = listed, name
        if "/" in name or vendor_of_bare(name.removeprefix("ft:")) not in {listed, None}:
            return None
    vendor = VENDORS.get(prefix)
    if vendor is None or (vendor.row is None and prefix != "azure"):
        return None
    row = "azure" if vendor.row is None else vendor.row.name
    return None if vendor.row is not None and vendor.row.is_free else f"{row}/{model}".lower()


def reduced(entry: dict[str, Any]) -> dict[str, Any] | None:
    """What the package needs of an entry; None if it has no price."""
    prices = prices_of(entry)
    if entry.get("mode") in {"chat", "responses", "completion"}:
        prices = {key: price for key, price in prices.items() if key not in _PARTS}
    if "image_output" in prices:  # all that a model for images writes, unless it has a price for text
        prices.setdefault("output", prices["image_output"])
    if not any(key in prices for key in _NEEDED):
        return None
    PriceTable().from_toml(prices)
    limits = {"max_input": entry.get("max_input_tokens"), "max_output": entry.get("max_output_tokens")}
    return prices | {key: int(limit) for key, limit in limits.items() if isinstance(limit, int) and limit > 0}


def main(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        table = json.loads(archive.read(TABLE))
        licence = next(name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
        text = archive.read(licence).decode()
    version = wheel.split("litellm-")[1].split("-", maxsplit=1)[0]
    rows = {}
    for name, entry in sorted(table.items()):
        if entry.get("mode") in MODES and not _OF_SIZE.search(name):
            key, row = named(name, entry), reduced(entry)
            if key is not None and row is not None:
                rows[key] = row
    head = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "source": "model_prices_and_context_window.json of litellm " + version,
        "unit": "US dollars per million tokens; searches, images, seconds, sessions and requests each",
        "licence": text[text.index("MIT License") :],
    }
    lines = [json.dumps(head, separators=(",", ":"))[:-1] + ',"models":{']
    compact = (
        f"{json.dumps(key)}:{json.dumps(row, separators=(',', ':'))}" for key, row in sorted(rows.items())
    )
    sys.stdout.write("\n".join([*lines, ",\n".join(compact), "}}\n"]))


main(sys.argv[1])
