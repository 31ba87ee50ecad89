"""Upstream proxies as their URLs describe them, in the config and on each device."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urlsplit

DEFAULT_PORTS: Final = {"http": 8080, "socks5": 1080}
_FIX: Final = (
    "write http://user:password@host:port or socks5://user:password@host:port, with special characters of user and password "
    "as %40 for @, %2F for /, %3A for :, %25 for %"
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An upstream proxy; its text never shows the password."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """With user and password, for a program that dials by itself."""
        login = "" if self.user is None else f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{login}{host}:{self.port}"


@lru_cache(maxsize=10_000)  # asked for several times for each message
def parse_proxy(url: str) -> Proxy:
    """Read `http://[user:password@]host[:port]` or `socks5://…`. Raises ValueError with the end of a sentence about it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # urlsplit quotes what it takes for the port, which may be a password.
        raise ValueError(f"is not a URL with a port from 1 to 65535; {_FIX}") from None
    scheme = "socks5" if parts.scheme == "socks5h" else parts.scheme
    if scheme not in DEFAULT_PORTS or not parts.hostname or port == 0:
        raise ValueError(f"is not the URL of an http or socks5 proxy; {_FIX}")
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise ValueError(f"is not just a host and a port; {_FIX}")
    user = unquote(parts.username) if parts.username is not None else None
    password = unquote(parts.password or "")
    if scheme == "socks5" and max(len((user or "").encode()), len(password.encode())) > 255:
        raise ValueError("has a user or password of more than 255 bytes, which socks5 cannot transfer")
    return Proxy(scheme, parts.hostname, port or DEFAULT_PORTS[scheme], user, password)
