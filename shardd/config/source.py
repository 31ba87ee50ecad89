"""A YAML file as plain data in which every value is text, with the line of each key and value.

Only the part of YAML that a config needs is read: sections, lists, values, comments. What would surprise is refused by name:
duplicate keys (PyYAML silently keeps the last one), anchors and aliases, tags, several documents, deep nesting. Values keep
their text (see `shardd.config.values`); only an unquoted `null`, `~` or an empty value is None. `${NAME}` is replaced from the
environment.

By hand on PyYAML's events: its loaders guess types and drop lines; ruamel.yaml keeps lines and still guesses; strictyaml (last
released in 2023) reports one error only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from shardd.config.fields import Keys
from shardd.config.values import RefusedError, closest
from shardd.config.values.reader import printable
from shardd.errors import ConfigError
from shardd.visible import visible

MAX_DEPTH: Final = 16
"""Sections in sections; the config itself needs five."""

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_REFERENCE: Final = re.compile(r"\$?\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?")
_WHERE: Final = "set it for shardd (the service reads /etc/shardd/environment)"
_SYNTAX: Final[tuple[tuple[str, str], ...]] = (
    (r"'\\t' that cannot start any token", "found a tab; indent YAML with spaces only"),
    (r"character '(.*)' that cannot start any token", "a value cannot begin with {0}; put it in quotes"),
    (
        r"mapping values are not allowed here",
        "a second `: ` in this line, or an indented line below a value; put a value that contains `: ` in quotes",
    ),
    (
        r"could not find expected ':'",
        "the `:` after the key is missing, or the line before is not finished; write `name: value`",
    ),
    (r"expected ',' or '([\]}])'", "a bracket is not closed with {0} (or a comma is missing)"),
    (r"expected <block end>, but found '-'", "a list begins inside a section; write `name: value` here"),
    (r"expected <block end>", "this line is indented unlike the lines it belongs to"),
    (r"expected alphabetic or numeric character", "a value cannot begin with * or &; put it in quotes"),
    (r"unknown escape character '(.*)'", "\\{0} means nothing in double quotes; use single quotes or \\\\"),
    (r"expected the node content, but found '(.*)'", "a value cannot begin like this; put it in quotes"),
    (r"sequence entries are not allowed here", "a value cannot begin with `- `; write values with commas between them"),
    (r"mapping keys are not allowed here", "a value cannot begin with `? `; put it in quotes"),
    (r"expected a comment or a line break", "a value cannot begin with | or >; put it in quotes"),
    (r"unexpected end of stream", "the text ends too early"),
    (
        r"expected <document start>",
        "nothing can follow here; is a line not indented, or was a bracket closed too early?",
    ),
)
"""PyYAML's errors, and their plain words."""


@dataclass(frozen=True, slots=True)
class ConfigIssue:
    """One error in a file; `text` continues the sentence that begins with the value: `is …; write …`."""

    line: int
    path: Keys
    text: str
    value: str | None = None
    """The value as it is shown; None when there is none, or when it must not be shown."""
    column: int | None = None
    lacks: str | None = None
    """The variable that has no value: it may have one for another process."""


def config_error(name: str, issues: Iterable[ConfigIssue]) -> ConfigError:
    """The error with all issues, one a line, in the order of the file."""
    issues, lines = list(issues), []
    for issue in sorted(issues, key=lambda issue: (issue.line, issue.column or 0, issue.path)):
        place = f"{visible(name)}:{issue.line}" + (f":{issue.column}" if issue.column else "")
        path = f"{'.'.join(printable(key) for key in issue.path)}: " if issue.path else ""
        value = f"{issue.value} " if issue.value is not None else ""
        lines.append(f"{place}: {path}{value}{visible(issue.text)}")
    error = ConfigError("\n".join(dict.fromkeys(lines)))
    error.lacks_variables = any(issue.lacks for issue in issues)
    error.lacks_only_variables = all(issue.lacks for issue in issues)
    return error


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a value."""

    line: int
    shown: str | None = None
    """The value as it is in the file, for messages; None for sections and lists."""


@dataclass(slots=True)
class Document:
    """The content of a file."""

    data: Any = field(default_factory=dict)
    """dict, list, str and None, nested; a dict unless the file is YAML but not a config."""
    places: dict[Keys, Place] = field(default_factory=dict)
    issues: list[ConfigIssue] = field(default_factory=list)
    unknown: set[Keys] = field(default_factory=set)
    """Values whose variable is missing: they have their issue, and nothing else can be said of them."""
    readable: bool = True
    """Whether the whole file could be read; if not, `data` is not complete."""

    def line(self, path: Keys) -> int:
        """The line of a value, or of the nearest section above it that the file has."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path].line if path in self.places else 1


def read_document(text: str, environ: Mapping[str, str]) -> Document:
    """Read a file; issues are noted in the document instead of raised."""
    return _Builder(environ).build(text)


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """The text with `${NAME}` and `${NAME:-default}` replaced; `$${` stands for a literal `${`.

    The value of a variable is taken as it is: references in it are not replaced again. Raises RefusedError, which names the
    variable and never a value.
    """

    def word(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        name, default = match["name"], match["default"]
        if name is None:
            raise RefusedError(
                "has ${ without a variable; write ${NAME} or ${NAME:-default}, or $${ for the two characters"
            )
        value = environ.get(name)
        if value:
            if any("\udc80" <= sign <= "\udcff" for sign in value):  # bytes that are not UTF-8 (PEP 383)
                raise RefusedError(f"needs the variable {name}, which is not UTF-8; write its value in UTF-8")
            return value
        if default is not None:
            return default
        if value is not None:
            raise _NoValueError(name, f"needs the variable {name}, which is empty; give it a value")
        near = closest(name, environ, likeness=0.8)
        hint = f" ({near} is)" if near else ""
        raise _NoValueError(name, f"needs the variable {name}, which is not set{hint}; {_WHERE}")

    return _REFERENCE.sub(word, text)


class _NoValueError(RefusedError):
    """A variable has no value."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


class _Refusal(Exception):  # noqa: N818 - never leaves this module: the way out of a file that cannot be read on
    def __init__(self, line: int, path: Keys, text: str) -> None:
        self.issue = ConfigIssue(line, path, text)


class _Builder:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._document = Document()
        self._events: Iterator[Any] = iter(())

    def build(self, text: str) -> Document:
        document = self._document
        try:
            self._events = iter(yaml.parse(text, Loader=yaml.SafeLoader))
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    self._start(event)
        except yaml.YAMLError as error:
            document.issues.append(_syntax_issue(error, text))
            document.data, document.readable = {}, False
        except _Refusal as refusal:
            document.issues.append(refusal.issue)
            document.readable = False
        if not isinstance(document.data, dict):
            text = "this is not a config; write lines such as `shards: 8`"
            document.issues.append(ConfigIssue(document.line(()), (), text))
            document.readable = False
        return document

    def _start(self, start: Any) -> None:
        if self._document.places:
            raise _Refusal(start.start_mark.line + 1, (), "a second document begins here; keep one, without ---")
        data = self._value(next(self._events), ())
        self._document.data = {} if data is None else data

    def _value(self, event: Any, path: Keys) -> Any:
        line = event.start_mark.line + 1
        # Whatever follows the sign is not shown: a password may begin with it.
        if isinstance(event, yaml.AliasEvent):
            raise _Refusal(line, path, "begins with *, a YAML alias; put the value in quotes")
        if event.anchor is not None:
            raise _Refusal(line, path, "begins with &, a YAML anchor; put the value in quotes")
        if event.tag is not None:
            self._document.issues.append(ConfigIssue(line, path, "begins with !, a YAML tag; put the value in quotes"))
        if len(path) > MAX_DEPTH:
            text = f"is nested more than {MAX_DEPTH} levels deep; see the sample for the right shape"
            raise _Refusal(line, path[:3], text)
        self._document.places.setdefault(path, Place(line))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path)

    def _mapping(self, path: Keys) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise _Refusal(line, path, "has a key that is not a word; write `name: value`")
            key = str(event.value)
            inner = (*path, key)
            if key in found:
                first = self._document.places[inner].line
                text = f"is written twice, first in line {first}; keep one of them"
                self._document.issues.append(ConfigIssue(line, inner, text))
                found[key] = self._again(found[key], inner)
                continue
            self._document.places[inner] = Place(line)
            found[key] = self._value(next(self._events), inner)
        return found

    def _again(self, first: Any, path: Keys) -> Any:
        """Read a section that is written twice, so that issues in both are found; the first one counts."""
        places = dict(self._document.places)
        second = self._value(next(self._events), path)
        self._document.places |= places
        return {**second, **first} if isinstance(first, dict) and isinstance(second, dict) else first

    def _sequence(self, path: Keys) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*path, str(len(found)))))
        return found

    def _scalar(self, event: Any, path: Keys) -> str | None:
        raw = str(event.value)
        line = self._document.places[path].line
        self._document.places[path] = Place(line, printable(raw))
        try:
            text = substitute(raw, self._environ)
        except RefusedError as refused:
            # The text may hold a secret beside the variable, so it is not shown; `refused` names the variable.
            lacks = refused.name if isinstance(refused, _NoValueError) else None
            self._document.issues.append(ConfigIssue(line, path, str(refused), lacks=lacks))
            self._document.unknown.add(path)
            return raw
        if text != raw:
            self._document.places[path] = Place(line, f"{printable(raw)} ({printable(text)})")
        return None if event.style is None and text in _NULLS else text


def _syntax_issue(error: yaml.YAMLError, text: str) -> ConfigIssue:
    """The issue behind an error of PyYAML, with line and column counted from 1."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return ConfigIssue(line, (), f"YAML cannot contain the character U+{code:04X}; delete it", column=column)
    problem = str(getattr(error, "problem", None) or error)
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    context, start = str(getattr(error, "context", None) or ""), getattr(error, "context_mark", None)
    words = next(
        (words.format(*match.groups()) for known, words in _SYNTAX if (match := re.search(known, problem))), problem
    )
    if "quoted scalar" in context and "end of stream" in problem:
        words = "the quote that opens here is never closed"
        mark = start
    elif start is not None and mark is not None and start.line != mark.line and "bracket" in words:
        words += f"; it opens in line {start.line + 1}"
    if "bracket" in words and "${" in text:
        words += "; a value with ${…} inside { } or [ ] needs quotes"
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    return ConfigIssue(line, (), f"this is not YAML: {words}", column=column)
