"""Untrusted JSON: read strictly where shardd acts on it, and without any failure where it is only shown.

`shardd.json_fault` in the database (0003_values.sql), which checks rows as they are written, accepts whatever is accepted here:
an object, not nested too deeply, with numbers that MessagePack can represent. (Python refuses integers of more than 4300
digits, and a few thousand brackets exceed its stack.)
"""

from __future__ import annotations

import json
from typing import Any, Final

MOST_LEVELS: Final = 32
SMALLEST, LARGEST = -(2**63), 2**64 - 1
"""The integers of MessagePack; they bound the other numbers, too."""
NEAREST: Final = 1e-300
"""Numbers closer to 0 may become 0."""
_KINDS: Final = {list: "array", str: "string", int: "number", float: "number", bool: "boolean", type(None): "null"}
_SHOWN: Final = 40
"""Characters of a value that are shown in an error."""


class UnreadableError(ValueError):
    """The JSON cannot be used; the text continues the sentence that begins with the name of the field."""


def read_object(text: str, most: int) -> dict[str, Any]:
    """The object in a text of at most `most` bytes. Raises UnreadableError."""
    if len(text.encode(errors="replace")) > most:
        raise UnreadableError(f"is too long: at most {most} bytes")
    try:
        value = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except UnreadableError:
        raise
    except RecursionError:
        raise UnreadableError(f"is nested in more than {MOST_LEVELS} levels") from None
    except ValueError as error:
        raise UnreadableError(f"is not JSON ({error})") from None
    if not isinstance(value, dict):
        # Not shown: it may be a password that was written without the braces.
        raise UnreadableError(f"is a JSON {_KINDS[type(value)]}, not an object")
    if _is_deeper(value, MOST_LEVELS):
        raise UnreadableError(f"is nested in more than {MOST_LEVELS} levels")
    if "\\u" in text and not _is_storable(json.dumps(value, ensure_ascii=False)):
        raise UnreadableError("has a \\u0000 or half of a surrogate pair in a text, which PostgreSQL cannot hold")
    return value


def show_value(text: str) -> Any:
    """The value in a text, for display; never raises.

    A number that Python cannot represent becomes the text of its digits. Anything unreadable becomes {"unreadable": text}.
    """
    try:
        value = json.loads(text, parse_int=_integer_or_text, parse_float=_float_or_text, parse_constant=str)
        if not _is_deeper(value, MOST_LEVELS):
            return value
    except (ValueError, RecursionError):
        pass
    return {"unreadable": text}


def _is_storable(text: str) -> bool:
    return "\\u0000" not in text and text.encode(errors="replace").decode() == text


def _integer(digits: str) -> int:
    # The length first: reading a number takes time quadratic in it.
    number = int(digits) if len(digits) <= _SHOWN else None
    if number is None or not SMALLEST <= number <= LARGEST:
        raise UnreadableError(f"has the number {_short(digits)}, which is out of range")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    is_zero = not any(digit in "123456789" for digit in digits.lower().partition("e")[0])
    if not SMALLEST <= number <= LARGEST or (-NEAREST < number < NEAREST and not is_zero):
        raise UnreadableError(f"has the number {_short(digits)}, which is out of range")
    return number


def _constant(name: str) -> float:
    raise UnreadableError(f"is not JSON (it has no {name})")


def _integer_or_text(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:
        return digits


def _float_or_text(digits: str) -> float | str:
    number = float(digits)
    return number if SMALLEST <= number <= LARGEST else digits


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether this value is nested in more than so many levels of objects and lists."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            inner
            for one in layer
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not layer:
            return False
    return True


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
