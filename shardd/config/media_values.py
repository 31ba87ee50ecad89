"""How values are read that only media have: the hosts outside the internet from which they may come."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationInfo

from shardd.addresses import read_allowed_host
from shardd.config.values import Reader, RefusedError
from shardd.urls import safe_url

MOST_HOSTS: Final = 200


@dataclass(frozen=True)
class MediaHosts(Reader):
    """Hosts such as `media.internal, 10.20.0.0/16`, or the same as a list; in Python a tuple."""

    def read(self, text: str, base: Path) -> tuple[str, ...]:  # noqa: ARG002 - the signature of every reader
        """The hosts, without spaces around them."""
        return tuple(part.strip() for part in text.split(","))

    def check(self, value: Any) -> Any:
        """Each a host, an address or a network."""
        for part in value:
            try:
                read_allowed_host(part)
            except ValueError as error:
                raise RefusedError(f"has a part {safe_url(part) or '(nothing)'} that {error}") from None
        if len(value) > MOST_HOSTS:
            raise RefusedError(f"names {len(value)} hosts; write at most {MOST_HOSTS}, or a network")
        return value

    def show(self, value: Any) -> str:
        """With commas."""
        return ", ".join(value)

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = ", ".join(value)
        return super()._validate(value, info)
