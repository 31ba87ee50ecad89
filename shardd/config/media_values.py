"""How values are read that only media have: the hosts outside the internet from which they may come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from shardd.addresses import read_allowed_host
from shardd.config.values import Listed, RefusedError
from shardd.urls import safe_url

MOST_HOSTS: Final = 200


@dataclass(frozen=True)
class MediaHosts(Listed):
    """Hosts such as `media.internal, 10.20.0.0/16`, or the same as a list; in Python a tuple."""

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
