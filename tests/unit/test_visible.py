from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.visible import MOST_MARKS, visible, visible_json

MARK = "\u0301"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("order-17, Müller, 東京, 🎉", "order-17, Müller, 東京, 🎉"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b2J\x7f\x07\r", r"\x9b2J\x7f\x07\r"),
        ("one\ntwo\tthree", r"one\ntwo\tthree"),
        ("abc\u202edef\u2066\u200b\u200d\ufeff", r"abc\u202edef\u2066\u200b\u200d\ufeff"),
        ("a\u00a0b\u2028\u3164\u2800", r"a\xa0b\u2028\u3164\u2800"),
        ("half\ud800 byte\udcff", r"half\ud800 byte\xff"),
        ("tag\U000e0041", r"tag\U000e0041"),
        (MARK + "e" + MARK, r"\u0301e" + MARK),
        ("a " + MARK, r"a \u0301"),
    ],
)
def test_what_is_not_seen_is_spelled(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_heap_of_marks_ends_where_no_script_goes_on() -> None:
    assert visible("e" + MARK * (MOST_MARKS + 2) + "x") == "e" + MARK * MOST_MARKS + r"\u0301\u0301x"


def test_lines_stay_where_they_may() -> None:
    assert visible("one\r\ntwo\x1b", lines=True) == "one\\r\ntwo\\x1b"


@given(st.text(st.characters()))
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    assert visible(text).isprintable()


@given(st.recursive(st.text(st.characters()) | st.none() | st.integers(), lambda inner: st.lists(inner, max_size=3)))
def test_json_stays_the_same_document(value: object) -> None:
    text = visible_json(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()
