"""Reads what a program sent, field by field, so that an error names the field, its value and what belongs there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from shardd.config.values import closest
from shardd.dashboard.api.problems import INVALID, MALFORMED, Kind, ProblemError
from shardd.words import count

SHOWN: Final = 80
"""Characters of a value that an error shows."""
_TYPES: Final = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}


AnyStruct = TypeVar("AnyStruct", bound=msgspec.Struct)


def read_query(kind: type[AnyStruct], query: Mapping[str, list[str]]) -> AnyStruct:
    """The parameters of an address. Raises ProblemError."""

    def read(values: list[str], what: Any) -> Any:
        if not _is_list(what) and len(values) > 1:
            raise msgspec.ValidationError("given twice")
        found = msgspec.convert(values if _is_list(what) else values[0], what, strict=False)
        if found is None:
            raise msgspec.ValidationError("null")  # else the word would be no filter at all: everything is found
        return found

    return kind(**_read(kind, query, read, MALFORMED, show=", ".join))


def read_body(kind: type[AnyStruct], body: bytes) -> AnyStruct:
    """An object; nothing is the empty one. Raises ProblemError."""
    return kind(**read_object(kind, body or b"{}"))


def read_object(kind: type[msgspec.Struct], body: bytes | msgspec.Raw, index: int | None = None) -> dict[str, Any]:
    """The fields of an object that were given, by their names in Python. `index`: its place in a list. Raises ProblemError."""
    given = _decode(body, dict[str, msgspec.Raw], "an object", index)
    _refuse_twice(bytes(body), index)

    def read(value: msgspec.Raw, what: Any) -> Any:
        return msgspec.json.decode(value, type=what)

    return _read(kind, given, read, INVALID, index=index, show=lambda value: bytes(value).decode(errors="replace"))


def read_list(body: bytes, most: int) -> list[msgspec.Raw]:
    """An object, or a list of up to `most`. Raises ProblemError."""
    if not body.lstrip().startswith(b"["):
        return [msgspec.Raw(body)]
    found: list[msgspec.Raw] = _decode(body, list[msgspec.Raw], "a list", None)
    if not 0 < len(found) <= most:
        raise ProblemError(
            INVALID,
            f"the list has {count(len(found), 'object')}: send 1 to {most:,} in one request, and the others in the next",
        )
    return found


def expected(kind: Any) -> str:
    """What belongs into a field, in words."""
    return _words(msgspec.json.schema(kind))


def _decode(body: bytes | msgspec.Raw, kind: Any, what: str, index: int | None) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError:
        raise ProblemError(INVALID, f"{_place(index)} is not {what}", index=index) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(MALFORMED, f"{_place(index)} is not JSON: {_why(error)}", index=index) from None


def _refuse_twice(body: bytes, index: int | None) -> None:
    """Raises ProblemError for a name that an object has twice, on any level: every reader takes another one of the two."""

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                shown, fix = name[:SHOWN], "leave one of them out"
                raise ProblemError(INVALID, f"{shown} is given twice: {fix}", field=shown, fix=fix, index=index)
            seen.add(name)

    try:
        # Numbers stay texts: those of PostgreSQL have more digits than Python reads.
        json.loads(body.decode(errors="replace"), object_pairs_hook=check, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return  # what is wrong with it is said where its fields are read


def _read(
    kind: type[msgspec.Struct],
    given: Mapping[str, Any],
    read: Callable[[Any, Any], Any],
    problem: Kind,
    *,
    show: Callable[[Any], str],
    index: int | None = None,
) -> dict[str, Any]:
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    found: dict[str, Any] = {}
    for name, value in given.items():
        field = known.get(name)
        if field is None:
            shown = name[:SHOWN]
            near = closest(shown, known)
            fix = f"did you mean {near}?" if near else f"known: {', '.join(known) or 'none'}"
            raise ProblemError(problem, f"{shown} is unknown: {fix}", field=shown, fix=fix, index=index)
        try:
            found[field.name] = read(value, field.type)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            text = show(value)
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
            fix = f"write {expected(field.type)}"
            why = "is given twice" if str(error) == "given twice" else f"is {shown}"
            raise ProblemError(problem, f"{name} {why}: {fix}", field=name, value=shown, fix=fix, index=index) from None
        if (place := _place_of_nul(name, found[field.name])) is not None:
            fix = "leave it out"
            words = f"{place} has the character U+0000, which PostgreSQL cannot hold: {fix}"
            raise ProblemError(problem, words, field=place, fix=fix, index=index)
    for name, field in known.items():
        if field.required and field.name not in found:
            fix = f"write {expected(field.type)}"
            raise ProblemError(problem, f"{name} is missing: {fix}", field=name, fix=fix, index=index)
    return found


def _place_of_nul(name: str, value: Any) -> str | None:
    """Where a field has U+0000, such as `metadata.order.note`; None: nowhere."""
    if isinstance(value, msgspec.Raw):  # JSON that PostgreSQL reads, in which the character can only be an escape
        text = bytes(value).decode(errors="replace")
        if "\\u0000" not in text:
            return None
        try:
            value = json.loads(text, parse_int=str, parse_float=str)
        except RecursionError:
            return name
    inside: list[tuple[str, Any]] = [(name, value)]
    while inside:
        place, one = inside.pop()
        if isinstance(one, str) and "\0" in one:
            return place
        if isinstance(one, list):
            inside.extend((place, inner) for inner in one)
        elif isinstance(one, dict):
            if any("\0" in key for key in one):
                return place
            inside.extend((f"{place}.{key}"[:SHOWN], inner) for key, inner in one.items())
    return None


def _place(index: int | None) -> str:
    return "the body" if index is None else f"entry {index} of the list"


def _why(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _is_list(kind: Any) -> bool:
    return "array" in str(msgspec.json.schema(kind).get("type", msgspec.json.schema(kind).get("anyOf", "")))


def _words(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _words(schema["$defs"][schema["$ref"].rpartition("/")[2]])
    if "enum" in schema:
        return "one of " + ", ".join("null" if one is None else str(one) for one in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_words({"$defs": schema.get("$defs", {}), **one}) for one in schema["anyOf"])
    if schema.get("format") == "date-time":
        return "a time with a time zone, such as 2027-01-31T09:00:00Z"
    kinds = schema.get("type", [])
    words = " or ".join(_TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds)) or "JSON"
    if (longest := schema.get("maxLength")) is not None:
        words += f" of up to {longest:,} characters"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        words += f" from {low:,} to {high:,}"
    return words
