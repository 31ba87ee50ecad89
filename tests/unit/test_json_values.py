"""JSON from strangers: values that are used are parsed strictly, values that are displayed never fail."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.json_values import UnreadableError, read_object, show_value

MOST = 8192


def nested(levels: int, inner: str = "1") -> str:
    return '{"a": ' * levels + inner + "}" * levels


UNREADABLE = [
    ("[]", "^is a JSON array, not an object$"),
    ('"note"', "^is a JSON string, not an object$"),
    ("null", "^is a JSON null, not an object$"),
    ("", "^is not JSON"),
    ('{"a": }', "^is not JSON"),
    ('{"a": NaN}', "^is not JSON .*NaN"),
    ('{"a": -Infinity}', "^is not JSON .*-Infinity"),
    ('{"a": 18446744073709551616}', "^has the number 18446744073709551616, which is out of range"),
    ('{"a": [{"b": -9223372036854775809}]}', "^has the number -9223372036854775809, which is out of range"),
    ('{"a": 1' + "0" * 4400 + "}", "^has the number 10{39}…, which is out of range"),
    ('{"a": 1e4400}', "^has the number 1e4400, which"),
    ('{"a": 1e-301}', "^has the number 1e-301, which"),
    ('{"a": 0.' + "0" * 4400 + "1}", "^has the number 0.0{38}…, which"),
    (nested(33), "^is nested in more than 32 levels$"),
    ('{"a": ' + "[" * 4000 + "]" * 4000 + "}", "^is nested in more than 32 levels$"),
    ('{"a": "' + "x" * MOST + '"}', "^is too long: at most 8192 bytes$"),
    ('{"a": "' + "\u20ac" * 2800 + '"}', "^is too long: at most 8192 bytes$"),
    (r'{"a": "\u0000"}', "PostgreSQL cannot hold"),
    (r'{"\ud83d": 1}', "PostgreSQL cannot hold"),
]


@pytest.mark.parametrize(("text", "words"), UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_cannot_be_carried_is_named(text: str, words: str) -> None:
    with pytest.raises(UnreadableError, match=words) as caught:
        read_object(text, MOST)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        "{}", '{"a": 18446744073709551615, "b": -9223372036854775808}', '{"a": 0, "b": 0.000, "c": 0e-400, "d": -0.0}',
        '{"a": 1e-300, "b": 1.5e19}', nested(32), r'{"a": "\u00e4\ud83d\ude00\n"}',
    ],
)  # fmt: skip
def test_what_can_be_carried_is_read(text: str) -> None:
    value = read_object(text, MOST)
    assert value == json.loads(text)
    msgspec.msgpack.encode(value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(anything)
def test_what_is_read_can_be_carried_and_written(value: Any) -> None:
    text = json.dumps(value)
    try:
        found = read_object(text, MOST)
    except UnreadableError:
        return
    assert found == value
    msgspec.msgpack.encode(found)
    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()


@given(anything.map(json.dumps) | st.text())
def test_whatever_is_shown_can_be_written_again(text: str) -> None:
    json.loads(json.dumps(show_value(text), indent=2, allow_nan=False))


@pytest.mark.parametrize("text", [text for text, _ in UNREADABLE], ids=range(len(UNREADABLE)))
def test_what_cannot_be_carried_is_shown_all_the_same(text: str) -> None:
    shown = show_value(text)
    json.loads(json.dumps(shown, indent=2, allow_nan=False))


def test_digits_that_are_no_number_here_are_shown_as_text() -> None:
    digits = "1" + "0" * 4400
    assert show_value(f'{{"n": {digits}, "m": 7}}') == {"n": digits, "m": 7}
    assert show_value("not JSON") == {"unreadable": "not JSON"}


@pytest.mark.parametrize("levels", [33, 400, 900, 4000])
def test_what_is_nested_deeply_is_shown_as_text(levels: int) -> None:
    """At some hundred levels Python still reads it, and cannot write it again with line breaks."""
    assert show_value(nested(32)) == json.loads(nested(32))
    assert show_value(nested(levels)) == {"unreadable": nested(levels)}
