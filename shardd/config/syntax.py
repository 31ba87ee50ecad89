"""What YAML's parser stumbles over, in plain words."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from shardd.config.issues import ConfigIssue

_PLAIN: Final[tuple[tuple[str, str], ...]] = (
    (r"'\\t' that cannot start any token", "a tab stands here; YAML is indented with spaces only"),
    (r"character '(.*)' that cannot start any token", "a value cannot begin with {0}; put it in quotes"),
    (
        r"mapping values are not allowed here",
        "a second `: ` in this line, or an indented line below a value; quote a value that holds `: `",
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
    (r"unexpected end of stream", "the text ends too early"),
    (r"expected <document start>", "nothing can follow here; is a line not indented, or a bracket closed too early?"),
)


def syntax_issue(error: yaml.YAMLError, text: str) -> ConfigIssue:
    """The issue behind an error of PyYAML, with line and column counted from 1."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        return ConfigIssue(line, (), f"the character U+{code:04X} cannot stand in YAML; delete it", column=column)
    problem = str(getattr(error, "problem", None) or error)
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    context, start = str(getattr(error, "context", None) or ""), getattr(error, "context_mark", None)
    words = next(
        (words.format(*match.groups()) for known, words in _PLAIN if (match := re.search(known, problem))), problem
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
