"""YAML as text with line numbers: accepted syntax, refused syntax, and the error texts."""

from __future__ import annotations

from typing import Any

import pytest

from shardd.config.source import read_document


def data(text: str, **environ: str) -> Any:
    document = read_document(text, environ)
    assert document.issues == []
    return document.data


def issue(text: str, **environ: str) -> tuple[int, str, str]:
    (found,) = read_document(text, environ).issues
    return found.line, ".".join(found.path), found.text


def test_values_stay_the_text_that_stands_there() -> None:
    text = "{a: NO, b: 010, c: 1e3, d: 12:30, e: 1_000, f: yes, g: 2020-01-01, h: 0x10, i: 'null', j: \"~\"}"
    assert data(text) == {
        "a": "NO",
        "b": "010",
        "c": "1e3",
        "d": "12:30",
        "e": "1_000",
        "f": "yes",
        "g": "2020-01-01",
        "h": "0x10",
        "i": "null",
        "j": "~",
    }


def test_only_unquoted_null_is_none() -> None:
    assert data("{a: null, b: ~, c: , d: ''}\n") == {"a": None, "b": None, "c": None, "d": ""}
    assert data("") == {}
    assert data("# only a comment\n") == {}


def test_every_value_knows_its_line() -> None:
    document = read_document("# comment\na: 1\nb:\n  c:\n    - x\n    - y\n", {})
    assert document.data == {"a": "1", "b": {"c": ["x", "y"]}}
    assert [document.line(path) for path in (("a",), ("b",), ("b", "c"), ("b", "c", "1"), ("b", "missing"))] == [
        2,
        3,
        4,
        6,
        3,
    ]


def test_keys_written_twice_are_refused_and_both_are_read() -> None:
    document = read_document("a: {x: 1}\nb: 2\na:\n  y: ${MISSING}\n  x: 3\n", {})
    assert [(found.line, ".".join(found.path)) for found in document.issues] == [(3, "a"), (4, "a.y")]
    assert "first in line 1" in document.issues[0].text
    assert document.data == {"a": {"x": "1", "y": "${MISSING}"}, "b": "2"}
    assert document.line(("a", "x")) == 1


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a:\n\tb: 1\n", "2:1", "spaces only"),
        ("a: b: c\n", "1:5", "a second `: `"),
        ("a: 'x\nb: 1\n", "1:4", "the quote that opens here is never closed"),
        ("a: {b: 1\nc: 2\n", "2:2", "a bracket is not closed with }"),
        ("a: [1, 2\n", "2:1", "a bracket is not closed with ] (or a comma is missing); it opens in line 1"),
        ("a: @x\n", "1:4", "a value cannot begin with @"),
        ("a: `x\n", "1:4", "a value cannot begin with `"),
        ("a:\n  b: 1\n c: 2\n", "3:2", "indented unlike"),
        ("a: 1\nb\nc: 1\n", "3:1", "the `:` after the key is missing"),
        ("a: 1\n- b\n", "2:1", "a list begins inside a section"),
        ('a: "\\d"\n', "1:6", "\\d means nothing"),
        ("a: {b: ${X}}\n", "1:9", "needs quotes"),
        ("a: 1\nb: \x01\n", "2:4", "U+0001"),
        ("a: *\n", "1:5", "* or &"),
    ],
)
def test_syntax_errors_name_line_and_column_in_plain_words(text: str, place: str, words: str) -> None:
    document = read_document(text, {})
    (found,) = document.issues
    assert not document.readable
    assert f"{found.line}:{found.column}" == place
    assert words in found.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x 1\nb: *x\n", "begins with &"),
        ("a: *secret\n", "begins with *"),
        ("a: !secret 1\n", "begins with !"),
        ("a: !!python/object:os.system x\n", "begins with !"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("? [a]\n: 1\n", "a key that is not a word"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested more than 16 levels"),
    ],
)
def test_what_a_config_does_not_need_is_refused_by_name(text: str, words: str) -> None:
    _, _, said = issue(text)
    assert words in said
    assert "secret" not in said


def test_words_from_the_environment() -> None:
    environ = {"A": "one", "B": "", "C": "${A}"}
    assert data("x: ${A}-${B:-two}-${Z:-}", **environ) == {"x": "one-two-"}
    assert data("x: '${A}'", **environ) == {"x": "one"}
    assert data("x: $${A} $A $$ 5$", **environ) == {"x": "${A} $A $$ 5$"}
    assert data("x: ${C}", **environ) == {"x": "${A}"}, "what a variable holds is not looked into"
    assert data("x: ${Z:-}", **environ) == {"x": None}, "nothing at all, like an empty value"


def test_references_that_cannot_be_followed_name_the_variable() -> None:
    assert issue("a: 1\nx: {y: '${PASWORD}'}", PASSWORD="geheim") == (
        2,
        "x.y",
        (
            "needs the variable PASWORD, which is not set (PASSWORD is); "
            "set it for shardd (the service reads /etc/shardd/environment)"
        ),
    )
    assert "which is empty" in issue("x: ${A}", A="")[2]
    for text in ("x: ${}", "x: ${", "x: ${1A}", "x: a${A-b}"):
        assert "${ without a variable" in issue(text, A="1")[2]
