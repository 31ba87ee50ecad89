"""The differences between two configs, and what each change needs to take effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from shardd.config.fields import ANY_NAME, Keys, Reload, extra_of, named_type, reader_of, section_type, value_at, walk
from shardd.config.model import Config


@dataclass(frozen=True, slots=True)
class Change:
    """One option with another value."""

    field: str
    """With dots: `lease.ttl`."""
    old: str
    """As it is written in a file; `(hidden)` for a secret."""
    new: str
    reload: Reload
    section: str | None = None
    """The named section to which the option belongs, if all of it was added or removed: `webhooks.crm: added`."""

    @property
    def words(self) -> str:
        """The same for all options of a section that was added or removed."""
        return self.section or f"{self.field}: {self.old} → {self.new}"


def diff_config(old: Config, new: Config) -> list[Change]:
    """The options that differ, in the order of the sample file; options of an absent section count as null."""
    changes = []
    for path, field in walk(Config):
        if section_type(field) or named_type(field):
            continue
        for place in _places(path, old, new):
            before, after = value_at(old, place), value_at(new, place)
            if before != after:
                name, reload = ".".join(place), extra_of(field, "reload")
                section = _section(path, place, old, new)
                changes.append(Change(name, _shown(field, before), _shown(field, after), reload, section))
    return changes


def _places(path: Keys, old: Config, new: Config) -> Iterator[Keys]:
    """The path, once for each name that one of the configs has."""
    if ANY_NAME not in path:
        yield path
        return
    index = path.index(ANY_NAME)
    for name in sorted({*value_at(old, path[:index]), *value_at(new, path[:index])}):
        yield (*path[:index], name, *path[index + 1 :])


def _section(path: Keys, place: Keys, old: Config, new: Config) -> str | None:
    """What became of the named section around an option; None: there is none, or both configs have it."""
    if ANY_NAME not in path:
        return None
    index = path.index(ANY_NAME)
    was, remains = (place[index] in value_at(config, path[:index]) for config in (old, new))
    return None if was and remains else f"{'.'.join(place[: index + 1])}: {'removed' if was else 'added'}"


def _shown(field: FieldInfo, value: Any) -> str:
    reader = reader_of(field)
    if value is None:
        return "null"
    return "(hidden)" if reader and reader.secret else reader.show(value) if reader else str(value)
