"""`${NAME}` and `${NAME:-default}` in a value: words from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from shardd.config.values import RefusedError, closest

_REFERENCE: Final = re.compile(r"\$?\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\})?")


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """The text with its references replaced; `$${` stands for a literal `${`.

    What a variable holds is taken as it is: references in it are not replaced again. Raises RefusedError,
    which names the variable and never a value.
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
            if any("\udc80" <= sign <= "\udcff" for sign in value):  # how Python keeps other bytes
                raise RefusedError(f"needs the variable {name}, which is not UTF-8; write its value in UTF-8")
            return value
        if default is not None:
            return default
        if value is not None:
            raise RefusedError(
                f"needs the variable {name}, which is empty; give it a value, or write ${{{name}:-}} if that is meant"
            )
        near = closest(name, environ)
        hint = f" ({near} is)" if near else ""
        raise RefusedError(
            f"needs the variable {name}, which is not set{hint}; set it for shardd, or write ${{{name}:-default}}"
        )

    return _REFERENCE.sub(word, text)
