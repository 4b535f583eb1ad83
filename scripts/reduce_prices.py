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
from sanic_proxy.governance.prices import FEATURES

TABLE = "litellm/model_prices_and_context_window_backup.json"
MODES = {
    None,
    *("chat", "responses", "completion", "embedding", "moderation", "rerank"),
    *("image_generation", "image_edit", "audio_transcription", "audio_speech"),
}
# Entries of one size, in most cases of a quality as well: azure/hd/1024-x-1024/dall-e-3.
_OF_SIZE = re.compile(
    r"(?:(?P<vendor>[a-z_]+)/)??(?:(?P<quality>standard|hd|low|medium|high)/)?(?P<width>\d+)-x-(?P<height>\d+)/"
    r"(?P<model>[a-z0-9.-]+)"
)
_IN_PARTS = re.compile(r"\d+-x-\d+|max-x-max|\d+-steps|max-steps")
_PARTS = ("image", "second", "character")
# Without any of these, nothing can be computed.
_NEEDED = ("input", "output", "request", "image", "second", "character", "search_unit", "images")


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
    supports = sum(1 << bit for bit, name in enumerate(FEATURES) if entry.get(f"supports_{name}") is True)
    return {
        **prices,
        **{key: int(limit) for key, limit in limits.items() if isinstance(limit, int) and limit > 0},
        **({} if entry.get("mode") in {None, "chat"} else {"mode": entry["mode"]}),
        **({"supports": supports} if supports else {}),
    }


def sized(table: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Entries of models with the prices of their images by size, where the table has an entry for each."""
    found: dict[str, dict[str, Any]] = {}
    for name, entry in table.items():
        match = _OF_SIZE.fullmatch(name)
        if match is None or entry.get("mode") != "image_generation":
            continue
        price = entry.get("input_cost_per_image")
        if price is None and (pixel := entry.get("input_cost_per_pixel")):
            price = round(pixel * int(match["width"]) * int(match["height"]), 4)
        if price:
            size = f"{match['width']}x{match['height']}"
            model = f"{match['vendor']}/{match['model']}" if match["vendor"] else match["model"]
            made = found.setdefault(model, {"litellm_provider": entry["litellm_provider"], "images": {}})
            made["images"][f"{match['quality']}/{size}" if match["quality"] else size] = price
    return found


def main(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        table = json.loads(archive.read(TABLE))
        licence = next(name for name in archive.namelist() if name.endswith("licenses/LICENSE"))
        text = archive.read(licence).decode()
    version = wheel.split("litellm-")[1].split("-", maxsplit=1)[0]
    rows = {}
    for name, entry in sorted(table.items()):
        if entry.get("mode") in MODES and not _IN_PARTS.search(name):
            key, row = named(name, entry), reduced(entry)
            if key is not None and row is not None:
                rows[key] = row
    for name, entry in sized(table).items():
        key = named(name, entry)
        if key is not None and "image_output" not in rows.get(key, {}):  # else its answers report tokens
            rows.setdefault(key, {"mode": "image_generation"})["images"] = entry["images"]
    head = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "source": "model_prices_and_context_window.json of litellm " + version,
        "unit": "US dollars per million tokens, else per piece: image, second, character",
        "licence": text[text.index("MIT License") :],
    }
    lines = [json.dumps(head, separators=(",", ":"))[:-1] + ',"models":{']
    compact = (
        f"{json.dumps(key)}:{json.dumps(row, separators=(',', ':'))}" for key, row in sorted(rows.items())
    )
    sys.stdout.write("\n".join([*lines, ",\n".join(compact), "}}\n"]))


main(sys.argv[1])
