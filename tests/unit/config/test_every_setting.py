"""Each setting, with values that people write by mistake: one error with field, value and a fix, and the fix is accepted.

A value may be accepted, too; what must not be accepted is in the tests of the kinds of values.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from shardd.config import Config, parse_config
from shardd.config.fields import ANY_NAME, named_type, reader_of, section_type, walk
from shardd.config.values import Listed
from shardd.config.values.numbers import Bounded
from shardd.errors import ConfigError

SETTINGS: Final = {
    ".".join(path): field for path, field in walk(Config) if not section_type(field) and not named_type(field)
}
STRUCTURES: Final = ("", "null", "[]", "[a, b]", "[null]", "{a: 1}", "''")
AMOUNTS: Final = (
    *(
        "yes",
        "off",
        "5",
        "0",
        "-1",
        "1.5",
        "0,5",
        "99999999999",
        "1e9",
        "0x10",
        "010",
        "1.000",
        "1s",
        "-5s",
        "5 s",
        "5 Minutes",
    ),
    *(
        "2 weeks",
        "400d",
        "1ms",
        "1h 30m",
        "30m1h",
        "5 GB",
        "10MB",
        "900000TB",
        "50%",
        "150%",
        "'  10s  '",
        "never",
        "many",
    ),
)
WORDS: Final = (
    *(
        "no",
        "on",
        "true",
        "FALSE",
        "' x '",
        "a b",
        "http://media.internal/",
        "https://h:9/x",
        "h:9",
        "my.example.com/x",
        "8081",
    ),
    *(
        ":8081",
        "localhost:8081",
        "0.0.0.0",
        "'*:80'",
        "'::1'",
        "'[::1]:9464'",
        "10.0.0.1/8",
        "/nonexist/x",
        "~/x",
        "Germany",
    ),
    *(
        "UTC+1",
        "+07:00",
        "WIB",
        "berlin",
        "+49",
        "ümlaut",
        "日本",
        '"a\\0b"',
        '"a\\nb"',
        "none",
        "21-08",
        "9pm-8am",
        "21:00",
    ),
    *(
        "stop,,go",
        "stop,",
        "YES",
        "INFO",
        "x" * 300,
        "postgresql://u:p@q/r@h/d",
        "socks5://u:p/q@h:1",
        "whsec_x",
        "v23",
        "job",
    ),
    *("markting", "auto,off"),
)
BESIDE: Final = {
    "webhooks.*.url": "    url: https://crm.example/x",
    "webhooks.*.secret": f"    secret: whsec_{'a' * 32}",
    "database.dsn": "  dsn: postgresql:///x",
}
"""What a section needs."""
EXAMPLE: Final = re.compile(r"(?:such as|one such as) (?P<like>[^;]+)$")
MEANT: Final = re.compile(r"^(?P<meant>\"?[^ ;]+?)(?:$|,? or | for |, or)")
RANGE: Final = re.compile(r"^a value from (?P<low>\S+) to (?P<high>[^ ,]+)")


def file_with(path: str, value: str) -> str:
    """A config with this value and what its section needs."""
    keys = ["crm" if key == ANY_NAME else key for key in path.split(".")]
    lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate(keys[:-1])]
    lines.append(f"{'  ' * (len(keys) - 1)}{keys[-1]}: {value}")
    for other, line in BESIDE.items():
        if other != path and other.split(".")[0] == keys[0]:
            lines.insert(len(other.split(".")) - 1, line)
    return "\n".join(lines) + "\n"


@functools.cache
def said_about(path: str, value: str) -> list[str]:
    try:
        parse_config(file_with(path, value), "/etc/x.yaml", {"HOME": "/home/x"})
    except ConfigError as error:
        return str(error).splitlines()
    return []


def fixes(said: str, *, is_list: bool) -> Iterator[str]:
    """The values that an error suggests."""
    fix = said.rpartition("; write ")[2]
    if match := RANGE.match(fix):
        yield from match.groups()
    elif match := EXAMPLE.search(fix):
        yield re.split(r",? or | for " if is_list else r",? or | for |, ", match["like"])[0]
    elif match := MEANT.match(fix):
        yield match["meant"]


def by_reader() -> dict[str, tuple[str, ...]]:
    """One setting of each kind of value and of its bounds, with what people write there by mistake."""
    found: dict[Any, str] = {}
    kinds = set()
    mistakes = {}
    for path, field in SETTINGS.items():
        reader = reader_of(field)
        if found.setdefault((reader, field.is_required()), path) == path:
            is_other = isinstance(reader, Bounded) and type(reader) in kinds
            mistakes[path] = AMOUNTS if is_other else AMOUNTS + WORDS
            kinds.add(type(reader))
    return mistakes


def check(path: str, value: str) -> None:
    said = said_about(path, value)
    if not said:
        return
    shown = path.replace(ANY_NAME, "crm")
    field = SETTINGS[path]
    reader = reader_of(field)
    assert reader is not None
    assert len(said) == 1 or path.endswith("webhook.listen"), said  # it needs two secrets beside it
    for line in said:
        head = re.match(rf"/etc/x\.yaml:\d+: (?:{re.escape(shown)}|database): (?P<text>.+)", line)
        if head is None and "than " in line:  # the other option of a rule
            continue
        assert head, line
        assert re.search(r"; (write|delete|name|make|install) |; did you mean |; write$", line), f"no fix: {line}"
        plain = value.strip("'\" ")
        if reader.secret:
            assert len(plain) < 8 or plain not in line.replace("whsec_", ""), f"a secret is shown: {line}"
        elif value not in STRUCTURES and plain.isalnum() and len(plain) < 60:
            assert plain in head["text"], f"the value is not named: {line}"
        for fix in (
            fixes(line, is_list=isinstance(reader, Listed)) if "${NAME}" not in line and "password@" not in line else ()
        ):
            again = said_about(path, f'"{fix}"' if ", " in fix or fix.startswith("*") else fix)
            own = [other for other in again if other.startswith(f"{line.partition(': ')[0]}: {shown}: ")]
            # Then another option may have to follow.
            assert all(re.search(" beside it|than | too short", other) for other in own), (
                f"{line}: {fix} is refused: {own}"
            )


@pytest.mark.parametrize(("path", "mistakes"), by_reader().items())
def test_what_people_write_by_mistake(path: str, mistakes: tuple[str, ...]) -> None:
    for value in STRUCTURES + mistakes:
        check(path, value)


@pytest.mark.parametrize("path", ["shards", "database.dsn", "queue.backoff.cap", "webhooks.*.timeout"])
def test_a_setting_that_is_written_twice(path: str) -> None:
    line = next(line for line in file_with(path, "5").splitlines(keepends=True) if line.endswith(": 5\n"))
    text = file_with(path, "5").replace(line, line + line)
    with pytest.raises(
        ConfigError, match=rf"{path.rpartition('.')[2]}: is written twice, first in line \d+; keep one of them"
    ):
        parse_config(text, "/etc/x.yaml", {"HOME": "/x"})


def test_lists_have_an_example_that_they_accept() -> None:
    for path, field in SETTINGS.items():
        if isinstance(reader := reader_of(field), Listed):
            assert said_about(path, f'"{reader.like}"') == []
