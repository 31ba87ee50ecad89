"""What sections of the config have in common, and how their fields say what a user and a reload must know of them."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from shardd.config.values import Reader

Reload = Literal["live", "shard", "restart"]
"""What a changed value needs: nothing, new workers (one shard after the other), or a restart of shardd."""


ANY_NAME: Final = "*"
"""Stands in a path for the name that a user gave to one of several sections."""


class Section(BaseModel):
    """A section of the config: frozen, without room for unknown keys; defaults are checked like values of the file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )


def setting(default: Any, text: str, *, reload: Reload, sample: str | None = None) -> Any:
    """One option of a section.

    `default`: as one would write it in the file; `...` for an option that must be there. `text`: what the option does and when
    to change it; it becomes the comment in the sample file. `sample`: what stands in the sample file instead of the default.
    """
    extra: dict[str, Any] = {"reload": reload, "sample": sample}
    return Field(default=default, description=text, json_schema_extra=extra)


def section(kind: type[Section], text: str) -> Any:
    """A section inside another, with its defaults when the file does not name it."""
    return Field(default_factory=kind, description=text)


def named_sections(kind: type[Section], text: str, *, sample: str) -> Any:
    """Any number of sections, each under a name of the user's choice; none by default.

    `sample`: the name of the one that stands in the sample file, commented out. All options of `kind` have to be live: nobody
    can keep the old value of a section that is gone.
    """
    extra: dict[str, Any] = {"each": kind, "sample": sample}
    return Field(default_factory=dict, description=text, json_schema_extra=extra)


def section_type(field: FieldInfo) -> type[Section] | None:
    """The class of a field that holds a section (or maybe none), else None."""
    annotation: Any = field.annotation
    kinds = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def named_type(field: FieldInfo) -> type[Section] | None:
    """The class of the sections in a field that holds named ones, else None."""
    kind: type[Section] | None = extra_of(field, "each")
    return kind


def reader_of(field: FieldInfo) -> Reader | None:
    """The reader in a field's type."""
    return next((entry for entry in field.metadata if isinstance(entry, Reader)), None)


def extra_of(field: FieldInfo, key: str) -> Any:
    """What `setting` noted about a field."""
    return field.json_schema_extra.get(key) if isinstance(field.json_schema_extra, dict) else None


def walk(model: type[Section], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every field below `model`, sections included, with its path, in the order of the source.

    Below a field of named sections the path has `ANY_NAME` where the file has the name.
    """
    for name, field in model.model_fields.items():
        path = (*above, name)
        yield path, field
        if inner := section_type(field):
            yield from walk(inner, path)
        elif each := named_type(field):
            yield from walk(each, (*path, ANY_NAME))
