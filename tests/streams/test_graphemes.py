"""Where a text may be divided."""

from __future__ import annotations

import pytest

from sanic_proxy.streams.graphemes import is_boundary


@pytest.mark.parametrize(
    "cluster",
    [
        "\r\n",
        "e\u0301",
        "a\u0300\u0301\u0302",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",  # a family
        "\U0001f44d\U0001f3fd",  # a thumb with its skin tone
        "\u2764\ufe0f",  # a heart with a variation selector
        "1\ufe0f\u20e3",  # a keycap
        "\U0001f1e9\U0001f1ea",  # a flag
        "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",  # the flag of Scotland
        "\u1112\u1161\u11ab",  # Hangul in jamo
        "\uac00\u11a8",
        "\u0e01\u0e33",  # Thai with a spacing vowel
        "\u0915\u094d\u0937",  # an Indic conjunct
        "\u0600\u0661",
        "\ud83d\ude00",  # two halves of a surrogate pair
    ],
    ids=ascii,
)
def test_no_cluster_is_divided(cluster: str) -> None:
    text = f"a{cluster}b"
    assert is_boundary(text, 1)
    assert is_boundary(text, len(cluster) + 1, 1)
    assert not any(is_boundary(text, position, 1) for position in range(2, len(cluster) + 1))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("a", "b"),
        ("a", " "),
        ("\n", "\r"),
        ("e\u0301", "e"),
        ("\u6f22", "\u5b57"),
        ("\U0001f600", "\U0001f600"),
        ("\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"),
        ("\uac00", "\ub098"),
        ("\u200b", "a"),
    ],
    ids=ascii,
)
def test_a_text_is_divided_between_clusters(left: str, right: str) -> None:
    assert is_boundary(left + right, len(left))


def test_both_ends_are_boundaries() -> None:
    assert is_boundary("\u0301", 0)
    assert is_boundary("a", 1)


def test_flags_are_counted_from_a_known_boundary() -> None:
    flags = "\U0001f1e9\U0001f1ea" * 3
    assert [is_boundary(flags, position, 2) for position in range(2, 7)] == [True, False, True, False, True]
