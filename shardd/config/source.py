"""A YAML file as plain data in which every value is text, with the line of each key and value.

Only the part of YAML that a config needs is read: sections, lists, values, comments. What would surprise is refused by name:
duplicate keys (PyYAML keeps the last one silently), anchors and aliases, tags, several documents, deep nesting. The meaning of
a value is not guessed here (see `shardd.config.values`); only an unquoted `null`, `~` or nothing is None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from shardd.config.issues import ConfigIssue, Path, printable
from shardd.config.substitute import substitute
from shardd.config.syntax import syntax_issue
from shardd.config.values import NULLS, RefusedError

MAX_DEPTH: Final = 16
"""Sections in sections; the config itself needs four."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands."""

    line: int
    shown: str | None = None
    """The value as the file has it, for messages; None for sections and lists."""


@dataclass(slots=True)
class Document:
    """What a file says."""

    data: Any = None
    """dict, list, str or None, nested."""
    places: dict[Path, Place] = field(default_factory=dict)
    issues: list[ConfigIssue] = field(default_factory=list)
    unknown: set[Path] = field(default_factory=set)
    """Values whose variable is missing: they have their issue, and nothing else can be said of them."""
    readable: bool = True
    """Whether the whole file could be read; if not, `data` is not complete."""

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest section above it that the file has."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places[path].line if path in self.places else 1


def read_document(text: str, environ: Mapping[str, str]) -> Document:
    """Read a file; issues are noted in the document instead of raised."""
    return _Builder(environ).build(text)


class _Refusal(Exception):  # noqa: N818 - never leaves this module: the way out of a file that cannot be read on
    def __init__(self, issue: ConfigIssue) -> None:
        self.issue = issue


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
            document.issues.append(syntax_issue(error, text))
            document.readable = False
        except _Refusal as refusal:
            document.issues.append(refusal.issue)
            document.readable = False
        return document

    def _start(self, start: Any) -> None:
        if self._document.places:
            text = "a second document begins here; keep one, without ---"
            raise _Refusal(ConfigIssue(start.start_mark.line + 1, (), text))
        self._document.data = self._value(next(self._events), ())

    def _value(self, event: Any, path: Path) -> Any:
        line = event.start_mark.line + 1
        # What stands after the sign is not shown: a password may begin with it.
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            text = f"begins with {sign}, a YAML {'alias' if sign == '*' else 'anchor'}; put the value in quotes"
            raise _Refusal(ConfigIssue(line, path, text))
        if event.tag is not None:
            self._document.issues.append(ConfigIssue(line, path, "begins with !, a YAML tag; put the value in quotes"))
        if len(path) > MAX_DEPTH:
            raise _Refusal(
                ConfigIssue(
                    line, path[:3], f"is nested more than {MAX_DEPTH} levels deep; see the sample for the right shape"
                )
            )
        self._document.places.setdefault(path, Place(line))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._scalar(event, path)

    def _mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise _Refusal(ConfigIssue(line, path, "has a key that is not a word; write `name: value`"))
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

    def _again(self, first: Any, path: Path) -> Any:
        """Read a section that is written twice, so that issues in both are found; what stands first counts."""
        places = dict(self._document.places)
        second = self._value(next(self._events), path)
        self._document.places |= places
        return {**second, **first} if isinstance(first, dict) and isinstance(second, dict) else first

    def _sequence(self, path: Path) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            found.append(self._value(event, (*path, str(len(found)))))
        return found

    def _scalar(self, event: Any, path: Path) -> str | None:
        raw = str(event.value)
        line = self._document.places[path].line
        self._document.places[path] = Place(line, printable(raw))
        try:
            text = substitute(raw, self._environ)
        except RefusedError as refused:
            # The text may hold a secret beside the variable, so it is not shown; `refused` names the variable.
            self._document.issues.append(ConfigIssue(line, path, str(refused)))
            self._document.unknown.add(path)
            return raw
        if text != raw:
            self._document.places[path] = Place(line, f"{printable(raw)} ({printable(text)})")
        return None if event.style is None and text in NULLS else text
