"""The database's rendering of a body, compared with a loop over characters."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors

from tests.fixtures.postgres import TEMPLATE, Cluster

FIRST = set(string.ascii_letters + "_")
REST = FIRST | set(string.digits)


class RefusedError(Exception):
    """The body cannot be rendered with these variables; its text is the column that is to blame."""


def render(body: str, variables: dict[str, Any]) -> str:
    said: list[str] = []
    at = 0
    while at < len(body):
        one, two = body[at], body[at : at + 2]
        if two in ("{{", "}}"):
            said.append(one)
            at += 2
        elif one == "{":
            end = next((i for i in range(at + 1, len(body)) if body[i] in "{}"), None)
            if end is None or body[end] != "}":
                raise RefusedError("body")
            said.append(value_of(body[at + 1 : end], variables))
            at = end + 1
        elif one == "}":
            raise RefusedError("body")
        else:
            said.append(one)
            at += 1
    return "".join(said)


def value_of(inside: str, variables: dict[str, Any]) -> str:
    name, bar, otherwise = inside.partition("|")
    if not name or name[0] not in FIRST or not set(name) <= REST:
        raise RefusedError("body")
    value = variables.get(name)
    if isinstance(value, list | dict):
        raise RefusedError("variables")
    if value is None or value == "":
        if not bar:
            raise RefusedError("variables")
        return otherwise
    return value if isinstance(value, str) else json.dumps(value)


@pytest.fixture(scope="module")
def connection(cluster: Cluster) -> Iterator[psycopg.Connection[Any]]:
    name = cluster.create_database(TEMPLATE)
    with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
        yield connection
    cluster.drop_database(name)


def rendered(connection: psycopg.Connection[Any], body: str, variables: Any) -> str:
    row = connection.execute("SELECT shardd.render_body(%s, %s::jsonb)", [body, json.dumps(variables)]).fetchone()
    assert row is not None
    return str(row[0])


storable = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
names = st.sampled_from(["name", "_x", "A1", "name2", "n", "_"])
texts = st.text(storable, max_size=12)
values = st.one_of(
    texts, st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.just([1]), st.just({"a": 1}),
    st.sampled_from(["{name}", "{{", "}", "{", "$1", "\\1", "%s", "&", "a\nb", ""]),
)  # fmt: skip
pieces = st.one_of(
    texts,
    names.map(lambda name: f"{{{name}}}"),
    st.tuples(names, texts).map(lambda both: f"{{{both[0]}|{both[1]}}}"),
    st.sampled_from(
        ["{", "}", "{{", "}}", "{}", "{|x}", "{1}", "{ name }", "{näme}", "\n", "\r\n", "|", "\\", "%", "%s", "$1", "\U0001f600",
         "\u05e9\u05dc\u05d5\u05dd", "\u200f", "https://x/?a=%20&b={{c}}#d", "{name\n}", "{name|a\nb}"]
    ),
)  # fmt: skip
bodies = st.lists(pieces, max_size=8).map("".join)


@settings(max_examples=800, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=bodies, variables=st.dictionaries(names, values, max_size=4))
def test_both_say_the_same(connection: psycopg.Connection[Any], body: str, variables: dict[str, Any]) -> None:
    wanted = blamed = None
    try:
        wanted = render(body, variables)
    except RefusedError as error:
        blamed = str(error)
    if blamed is None:
        assert rendered(connection, body, variables) == wanted
        return
    with pytest.raises(errors.CheckViolation) as caught:
        rendered(connection, body, variables)
    assert caught.value.diag.column_name == blamed
    assert caught.value.diag.message_hint


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0{}")))
def test_a_body_without_braces_is_not_touched(connection: psycopg.Connection[Any], body: str) -> None:
    assert rendered(connection, body, {"name": "Ada"}) == body


@pytest.mark.parametrize(
    ("body", "variables", "said"),
    [
        ("hi {name}!", {"name": "Ada"}, "hi Ada!"),
        ("{a}{b}{a}", {"a": "{b}", "b": "{a}"}, "{b}{a}{b}"),
        ("{name|friend}", {}, "friend"),
        ("{name|friend}", {"name": ""}, "friend"),
        ("{name|}", {}, ""),
        ("{name|a|b}", {}, "a|b"),
        ("{n} of {m}, {ok}", {"n": 7, "m": 1.50, "ok": True}, "7 of 1.5, true"),
        ("{{name}} is {name}", {"name": "Ada"}, "{name} is Ada"),
        ("{{{name}}}", {"name": "Ada"}, "{Ada}"),
        ("line\r\n\n\tnext {x}\n", {"x": "a\nb"}, "line\r\n\n\tnext a\nb\n"),
        ("https://x.id/p%20q?u={id}&v=100%#t", {"id": "a/b?c=%7B"}, "https://x.id/p%20q?u=a/b?c=%7B&v=100%#t"),
        ("\u200f\u05e9\u05dc\u05d5\u05dd {x} \U0001f468\u200d\U0001f469", {"x": "\u202e\U0001f600"},
         "\u200f\u05e9\u05dc\u05d5\u05dd \u202e\U0001f600 \U0001f468\u200d\U0001f469"),
        ("*{x}* _{x}_ \\1 $1 %s", {"x": "\\2 & %d"}, "*\\2 & %d* _\\2 & %d_ \\1 $1 %s"),
    ],
)  # fmt: skip
def test_a_body_is_rendered_like_this(
    connection: psycopg.Connection[Any], body: str, variables: dict[str, Any], said: str
) -> None:
    assert rendered(connection, body, variables) == said


def test_an_insert_keeps_the_rendered_body_and_the_variables(connection: psycopg.Connection[Any]) -> None:
    connection.execute("INSERT INTO shardd.devices (id, transport) VALUES ('a', 'sandbox')")
    row = connection.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, variables) VALUES ('a', '+628123456', %s, %s) "
        "RETURNING body, variables, rendered",
        ["hi {name}, {{x}}", '{"name": "{y}"}'],
    ).fetchone()
    assert row == ("hi {y}, {x}", {"name": "{y}"}, True)
