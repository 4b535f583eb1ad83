"""YAML with line numbers."""

from __future__ import annotations

import pytest

from sanic_proxy.config.litellm.document import DocumentError, parse, shown

TEXT = """\
# a comment
defaults: &defaults
  rpm: 3
list:
  - a: 1
    b: 2026-01-02
  - <<: *defaults
    c: [x, y]
twice: 1
twice: 2
"""


def test_values_are_plain_and_have_lines() -> None:
    document = parse(TEXT)
    assert document.root == {
        "defaults": {"rpm": 3},
        "list": [{"a": 1, "b": "2026-01-02"}, {"rpm": 3, "c": ["x", "y"]}],
        "twice": 2,
    }
    lines = [("list",), ("list", 0, "b"), ("list", 1, "c", 1), ("list", 1, "nothing"), ("nothing",)]
    assert [document.line(path) for path in lines] == [4, 6, 8, 7, 2]
    assert document.repeated == [("twice",)]
    assert document.section("defaults") == {"rpm": 3}
    assert document.section("twice") == {}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_has_no_values(text: str) -> None:
    assert parse(text).root is None


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "a: b: c",
        "\t- a",
        "a: !!python/object:os.system x",
        "- " * 200 + "x",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(6)
        ),
        "a: &a [*a]",
    ],
)
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        parse(text)


def test_a_path_is_shown_as_it_is_written() -> None:
    assert shown(("model_list", 0, "litellm_params", "model")) == "model_list[0].litellm_params.model"
    assert shown(("a\nb",)) == "a?b"
    assert shown(()) == "the file"


@pytest.mark.parametrize(
    "text",
    ["a: 1\nkey: sk-canary: x", "a: 1\nkey: [sk-canary", "key: sk-canary\n\t- x", "a: 1\nkey: *sk-canary"],
)
def test_an_error_names_the_line_and_quotes_nothing(text: str) -> None:
    with pytest.raises(DocumentError, match=r"^line [23]: ") as caught:
        parse(text)
    assert "canary" not in str(caught.value)
