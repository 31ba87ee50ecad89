"""How values are read that only HTTP platforms have: where they are, who may know what, and how much in a second."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from shardd.config.special_values import is_loopback, split_address
from shardd.config.values import Reader, RefusedError

_PLATFORM_HELP: Final = "write one such as https://api.example.com"


@dataclass(frozen=True)
class PlatformUrl(Reader):
    """Where an HTTP platform is: `https://host[:port][/path]`; plain http only on this host, because a token goes with it."""

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The URL without a slash at its end."""
        return text.strip().rstrip("/")

    def check(self, value: Any) -> Any:
        """A host that may be given a token."""
        try:
            parts = urlsplit(value)
            port = parts.port
        except (ValueError, AttributeError):
            raise RefusedError(f"is not a URL with a port from 1 to 65535; {_PLATFORM_HELP}") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
            raise RefusedError(f"is not the URL of an HTTP platform; {_PLATFORM_HELP}")
        if "@" in parts.netloc or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", value):
            raise RefusedError(f"is more than a host and a path; {_PLATFORM_HELP}")
        if parts.scheme == "http" and parts.hostname != "localhost" and not is_loopback(parts.hostname):
            raise RefusedError(
                f"would show the token to everybody on the way; write https://{parts.netloc}{parts.path}"
            )
        return value.rstrip("/")


@dataclass(frozen=True)
class Secret(Reader):
    """A word that only shardd and one other side may know."""

    secret = True

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The word."""
        return text.strip()

    def check(self, value: Any) -> Any:
        """Something, on one line."""
        if re.fullmatch(r"[!-~]{8,500}", value):
            return value
        raise RefusedError("is not a secret of 8 to 500 letters, digits and signs, without spaces; write it as ${NAME}")


@dataclass(frozen=True)
class ListenAddress(Reader):
    """`127.0.0.1:8080`: an address of this host, and a port."""

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The text as it is."""
        return text.strip()

    def check(self, value: Any) -> Any:
        """An IP address, so that nobody has to be asked what it means."""
        host, port = split_address(value)
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise RefusedError(f"does not begin with an IP address of this host; write 127.0.0.1:{port}") from None
        return value


@dataclass(frozen=True)
class Word(Reader):
    """Text of one shape; `pattern` for the whole of it, `what` it is, and an `example`."""

    pattern: str
    what: str
    example: str

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The text without spaces around it."""
        return text.strip()

    def check(self, value: Any) -> Any:
        """Of the right shape."""
        if isinstance(value, str) and re.fullmatch(self.pattern, value):
            return value
        raise RefusedError(f"is not {self.what}; write one such as {self.example}")


@dataclass(frozen=True)
class Rate(Reader):
    """How many in one second, such as `20` or `0.5`; `0` may mean that there is no limit."""

    high: float = 10_000.0

    def read(self, text: str, base: Path) -> float:  # noqa: ARG002 - the signature of every reader
        """A float."""
        if not re.fullmatch(r"[+-]?[0-9]{1,9}(\.[0-9]{1,9})?", text.strip()):
            raise RefusedError(
                f"is not a number; write how many in one second, from 0 to {self.high:g}, such as 20 or 0.5"
            )
        return float(text)

    def check(self, value: Any) -> Any:
        """From 0 to the bound, both included."""
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= self.high:
            raise RefusedError(f"is out of bounds; write how many in one second, from 0 to {self.high:g}")
        return value

    def show(self, value: Any) -> str:
        """Without needless digits."""
        return f"{value:g}"
