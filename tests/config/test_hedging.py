"""The key `hedge` of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanic_proxy.config.hedging import Delay, HedgeSettings
from sanic_proxy.config.loader import load


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("", None),
        ("hedge = false", None),
        ("hedge = true", HedgeSettings(Delay(percentile=95), budget=0.03)),
        ("hedge = {}", HedgeSettings()),
        ('hedge = { after = "p90" }', HedgeSettings(Delay(percentile=90))),
        ("hedge = { after = 2, budget = 0.1 }", HedgeSettings(Delay(seconds=2.0), 0.1)),
        ('hedge = { after = "800ms", budget = 1 }', HedgeSettings(Delay(seconds=0.8), 1.0)),
    ],
)
def test_what_the_key_accepts(tmp_path: Path, toml: str, expected: HedgeSettings | None) -> None:
    (tmp_path / "proxy.toml").write_text(f"[models.fast]\ntargets = ['echo/x']\n{toml}\n")
    (model,) = load({"SANIC_PROXY_CONFIG": "proxy.toml"}, tmp_path).models
    assert model.hedge == expected
