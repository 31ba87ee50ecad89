"""What differs between two configs, and what each change needs to take effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from shardd.config.fields import ANY_NAME, Reload, Section, extra_of, named_type, reader_of, section_type, walk
from shardd.config.model import Config


@dataclass(frozen=True, slots=True)
class Change:
    """One option whose value is another one now."""

    field: str
    """With dots: `lease.ttl`."""
    old: str
    """As one writes it in the file; `(hidden)` for a secret."""
    new: str
    reload: Reload


def diff_config(old: Config, new: Config) -> list[Change]:
    """The options that differ, in the order of the sample file; options of an absent section count as null."""
    changes = []
    for path, field in walk(Config):
        if section_type(field) or named_type(field):
            continue
        for place in _places(path, old, new):
            before, after = _value(old, place), _value(new, place)
            if before != after:
                name, reload = ".".join(place), extra_of(field, "reload")
                changes.append(Change(name, _shown(field, before), _shown(field, after), reload))
    return changes


def _places(path: tuple[str, ...], old: Config, new: Config) -> Iterator[tuple[str, ...]]:
    """The path, once for each name that one of the configs has."""
    if ANY_NAME not in path:
        yield path
        return
    index = path.index(ANY_NAME)
    for name in sorted({*_value(old, path[:index]), *_value(new, path[:index])}):
        yield (*path[:index], name, *path[index + 1 :])


def _shown(field: FieldInfo, value: Any) -> str:
    reader = reader_of(field)
    if value is None:
        return "null"
    return "(hidden)" if reader and reader.secret else reader.show(value) if reader else str(value)


def _value(section: Section, path: tuple[str, ...]) -> Any:
    value: Any = section
    for name in path:
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value
