"""The keys that say what becomes of a broken stream."""

from __future__ import annotations

from pathlib import Path

import pytest

from sanic_proxy.config.loader import load
from sanic_proxy.config.model import Settings, SettingsError
from sanic_proxy.config.saving import NO_SAVING, HoldBack, HoldBackKind, StreamSaving, continuation

LAB = "[providers.lab]\nbase_url = 'http://x/v1'\n"
MODEL = "[models.m]\ntargets = ['lab/m']\n"


def loaded(directory: Path, toml: str, **environ: str) -> Settings:
    (directory / "proxy.toml").write_text(toml)
    return load({"SANIC_PROXY_CONFIG": "proxy.toml", **environ}, directory)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, HoldBack(seconds=2)),
        (0.5, HoldBack(seconds=0.5)),
        ("500ms", HoldBack(seconds=0.5)),
        ("20 frames", HoldBack(frames=20)),
        ("1 frame", HoldBack(frames=1)),
        ("all", HoldBack()),
        (0, None),
        ("0", None),
    ],
)
def test_how_long_content_is_held_back(value: object, expected: HoldBack | None) -> None:
    assert HoldBackKind().from_toml(value) == expected


@pytest.mark.parametrize(
    "value", ["some", "0 frames", "100001 frames", "-1", "frames", "", True, [], "2 days"]
)
def test_what_is_no_such_time(value: object) -> None:
    with pytest.raises(ValueError, match=r"^$|.*"):
        HoldBackKind().from_toml(value)


def test_a_model_says_what_becomes_of_its_streams(tmp_path: Path) -> None:
    keys = "hold_back = '20 frames'\non_cut = 'restart'\nskip_malformed = true\n"
    (model,) = loaded(tmp_path, LAB + MODEL + keys).models
    assert model.saving == StreamSaving(HoldBack(frames=20), "restart", skip_malformed=True)


def test_by_default_broken_streams_are_errors(tmp_path: Path) -> None:
    (model,) = loaded(tmp_path, LAB + MODEL).models
    assert model.saving == NO_SAVING == StreamSaving(None, "error", skip_malformed=False)


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("lab", "", ""),
        ("lab", "continues = true", "assistant"),
        ("lab", "continues = false", ""),
        ("lab", "continues = 'partial'", "partial"),
        ("mistral", "", "prefix"),
        ("mistral", "continues = true", "prefix"),
        ("mistral", "continues = false", ""),
        ("vllm", "", "continue_final_message"),
        ("openai", "", ""),
    ],
)
def test_how_a_provider_is_asked_to_continue(tmp_path: Path, name: str, keys: str, expected: str) -> None:
    table = f"[providers.{name}]\nbase_url = 'http://x/v1'\n{keys}\n"
    environ = {"MISTRAL_API_KEY": "canary-0123456789", "OPENAI_API_KEY": "canary-0123456789"}
    providers = {provider.name: provider for provider in loaded(tmp_path, table, **environ).providers}
    assert providers[name].continues == expected


def test_a_target_may_differ_from_its_provider(tmp_path: Path) -> None:
    targets = """targets = [
        { provider = "lab", model = "a", continues = false },
        { provider = "lab", model = "b", continues = "prefix" },
        { provider = "lab", model = "c", continues = true },
        "lab/d",
    ]"""
    (model,) = loaded(tmp_path, f"{LAB}continues = 'partial'\n[models.m]\n{targets}\n").models
    assert [continuation(target.continues, "partial") for target in model.targets] == [
        "",
        "prefix",
        "partial",
        "partial",
    ]


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        (LAB + MODEL + "on_cut = 'retry'\n", "on_cut: expected one of error, continue, restart"),
        (LAB + MODEL + "hold_back = 'some'\n", 'hold_back: expected "all", a number of frames'),
        (LAB + "continues = 'suffix'\n", "continues: expected true, false or one of assistant"),
    ],
)
def test_a_wrong_word_is_a_problem(tmp_path: Path, toml: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        loaded(tmp_path, toml)
    assert any(problem in text for text in caught.value.problems), caught.value.problems
