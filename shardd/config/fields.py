"""What the sections of the config have in common, and what each option says about itself."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

from shardd.config.values import Reader

Keys = tuple[str, ...]
"""The place of a value in the file: its keys from the top down."""
Reload = Literal["live", "shard", "restart"]
"""What a changed value needs: nothing, new workers (one shard after the other), or a restart of shardd."""

ANY_NAME: Final = "*"
"""In a path, in place of the name that a user gave to one of several sections."""


class Section(BaseModel):
    """A section of the config: frozen, without room for unknown keys; defaults are checked like values of the file.

    `class LeaseConfig(Section, reload="restart")` says what a change of its options needs; `setting` may differ for one.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True, defer_build=True
    )

    def __init_subclass__(cls, *, reload: Reload | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, reload: Reload | None = None, **kwargs: Any) -> None:
        """Give the options their reload, and keep secrets out of the section's repr."""
        super().__pydantic_init_subclass__(**kwargs)
        for field in cls.model_fields.values():
            if isinstance(field.json_schema_extra, dict):
                field.json_schema_extra.setdefault("reload", reload)
            if (reader := reader_of(field)) and reader.secret:
                field.repr = False


def setting(default: Any, text: str, *, reload: Reload | None = None, sample: str | None = None) -> Any:
    """One option of a section.

    `default`: as it is written in a file, or a function that returns it; `...` for an option that must be there. `text`: what the
    option does and when to change it; it becomes the comment in the sample file. `reload`: if it is not the section's.
    `sample`: for the sample file instead of the default.
    """
    extra: dict[str, Any] = {"sample": sample} | ({"reload": reload} if reload else {})
    given: dict[str, Any] = {"default_factory" if callable(default) else "default": default}
    return Field(**given, description=text, json_schema_extra=extra)


def section(kind: type[Section], text: str) -> Any:
    """A section inside another, with its defaults when the file does not name it."""
    return Field(default_factory=kind, description=text)


def named_sections(kind: type[Section], text: str, *, sample: str) -> Any:
    """Any number of sections, each under a name of the user's choice; none by default.

    `sample`: the name of the one in the sample file, commented out. All options of `kind` have to be live: the old value of a
    section that is gone cannot be kept.
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
    """The reader in a field's type, or in a part of a type such as `Dsn | None`."""
    parts = (getattr(part, "__metadata__", ()) for part in typing.get_args(field.annotation))
    entries = (entry for metadata in (field.metadata, *parts) for entry in metadata)
    return next((entry for entry in entries if isinstance(entry, Reader)), None)


def extra_of(field: FieldInfo, key: str) -> Any:
    """What `setting` noted about a field."""
    return field.json_schema_extra.get(key) if isinstance(field.json_schema_extra, dict) else None


def walk(model: type[Section], above: Keys = ()) -> Iterator[tuple[Keys, FieldInfo]]:
    """Every field below `model`, sections included, with its path, in the order of the source.

    Below a field of named sections the path has `ANY_NAME` in place of the name.
    """
    for name, field in model.model_fields.items():
        path = (*above, name)
        yield path, field
        if inner := section_type(field):
            yield from walk(inner, path)
        elif each := named_type(field):
            yield from walk(each, (*path, ANY_NAME))


def value_at(section: Section, path: Keys) -> Any:
    """The value at a path; None below a section that is not there."""
    value: Any = section
    for name in path:
        value = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return value
