"""An issue in a config file, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shardd.errors import ConfigError
from shardd.visible import visible

Path = tuple[str, ...]
"""Where a value stands in the file: the keys from the top down."""


@dataclass(frozen=True, slots=True)
class ConfigIssue:
    """One issue; `text` goes on where the value ends: `is …; write …`."""

    line: int
    path: Path
    text: str
    value: str | None = None
    """The value as it is shown; None when there is none, or when it must not be shown."""
    column: int | None = None


def config_error(name: str, issues: Iterable[ConfigIssue]) -> ConfigError:
    """The error that tells all issues, one a line, in the order of the file."""
    lines = []
    for issue in sorted(issues, key=lambda issue: (issue.line, issue.column or 0, issue.path)):
        place = f"{visible(name)}:{issue.line}" + (f":{issue.column}" if issue.column else "")
        field = f"{'.'.join(printable(key) for key in issue.path)}: " if issue.path else ""
        value = f"{issue.value} " if issue.value is not None else ""
        lines.append(f"{place}: {field}{value}{visible(issue.text)}")
    return ConfigError("\n".join(dict.fromkeys(lines)))


def printable(text: str, limit: int = 60) -> str:
    """The text on one line, cut when it is long, in quotes when its ends would not be seen."""
    shown = text if len(text) <= limit else f"{text[: limit - 1]}…"
    seen = visible(shown)
    return f'"{seen}"' if seen != shown or not shown or shown != shown.strip() else shown
