"""How values are read that name something outside the file: nodes, paths, databases, addresses, time zones, regions."""

from __future__ import annotations

import ipaddress
import os
import re
import zoneinfo
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import phonenumbers
import psycopg
from psycopg.conninfo import conninfo_to_dict

from shardd.config.values import Reader, RefusedError, closest


@dataclass(frozen=True)
class NodeName(Reader):
    """The name of a node: lower-case letters, digits, dots and hyphens, at most 63."""

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The name."""
        return text

    def check(self, value: Any) -> Any:
        """A name that fits into log lines, lease rows and metrics as it is."""
        if isinstance(value, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,62}", value):
            return value
        raise RefusedError(
            f"is not a node name (a-z, 0-9, '.', '-', at most 63 characters); write {node_name_from(str(value))}"
        )


def node_name_from(host_name: str) -> str:
    """The node name that is nearest to a host name."""
    return re.sub(r"[^a-z0-9.-]+", "-", host_name.lower()).strip("-.")[:63] or "node"


@dataclass(frozen=True)
class FilePath(Reader):
    """A path; a relative one starts at the folder of the config file, `~` is the home folder."""

    def read(self, text: str, base: Path) -> Path:
        """An absolute path without `..`."""
        if not text.strip() or "\0" in text:
            raise RefusedError("is not a path; write one such as /var/lib/shardd")
        try:
            path = Path(text).expanduser()
        except RuntimeError:
            raise RefusedError("names a home folder that is not known; write the whole path") from None
        return Path(os.path.normpath(base / path))


@dataclass(frozen=True)
class Dsn(Reader):
    """How to reach a PostgreSQL database: a `postgresql://` URL or `key=value` pairs, as libpq reads them.

    What libpq says about a string that it cannot read may quote a part of the password, so it is never repeated.
    """

    secret = True

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The string as it is, once libpq can read it."""
        return text.strip()

    def check(self, value: Any) -> Any:
        """Readable by libpq, and free of the issues that libpq only meets when it connects."""
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", value)
        if not value:
            raise RefusedError(f"is empty; {_DSN_HELP}")
        if scheme and scheme[1] not in {"postgresql", "postgres"}:
            raise RefusedError(f"begins with {scheme[0]}, which is not PostgreSQL's; write postgresql://…")
        try:
            parts = conninfo_to_dict(value)
        except psycopg.Error:
            mend = _URL_HELP if scheme else "put a value with a space in single quotes"
            raise RefusedError(f"cannot be read as a PostgreSQL connection string; {mend}; {_DSN_HELP}") from None
        if scheme and "@" in str(parts.get("host", "")):
            raise RefusedError(f"has more than one @; {_URL_HELP}")
        for port in str(parts.get("port") or "5432").split(","):
            if not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
                raise RefusedError(
                    f"has a port that is not a number from 1 to 65535; {_URL_HELP if scheme else _DSN_HELP}"
                )
        return value


_DSN_HELP: Final = "write postgresql://user:password@host:5432/database or host=… dbname=… user=…"
_URL_HELP: Final = "write special characters of user and password as %40 for @, %2F for /, %3A for :, %25 for %"


@dataclass(frozen=True)
class ProxyUrl(Reader):
    """`http://user:password@host:port` or `socks5://…`; what is wrong with it is told without repeating any of it."""

    secret = True

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The URL."""
        return text.strip()

    def check(self, value: Any) -> Any:
        """A kind of proxy that shardd can use, with a host."""
        mend = "write http://user:password@host:port or socks5://user:password@host:port"
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError:
            raise RefusedError(f"is not a proxy URL with a port from 1 to 65535; {mend}; {_URL_HELP}") from None
        if parts.scheme not in {"http", "socks5", "socks5h"}:
            raise RefusedError(f"is not the URL of an http or socks5 proxy; {mend}")
        if not parts.hostname or port == 0 or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise RefusedError(f"is not just a host and a port; {mend}; {_URL_HELP}")
        return value


@dataclass(frozen=True)
class LoopbackAddress(Reader):
    """`127.0.0.1:9464`: an address that only this host can reach, and a port."""

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The text as it is."""
        return text

    def check(self, value: Any) -> Any:
        """Loopback, with a port."""
        host, port = split_address(value)
        if host != "localhost" and not is_loopback(host):
            raise RefusedError(
                f"can be reached from other hosts; write 127.0.0.1:{port} and put a proxy with a password before it"
            )
        return value


def split_address(text: str) -> tuple[str, int]:
    """Host (without brackets) and port of `host:port` or `[v6]:port`. Raises RefusedError."""
    host, separator, port = text.rpartition(":")
    if not separator or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise RefusedError("is not an address with a port from 1 to 65535; write 127.0.0.1:9464")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise RefusedError("is an IPv6 address without brackets; write [::1]:9464")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether an IP address is of this host alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class TimeZone(Reader):
    """A name of the time zone database, such as `Asia/Jakarta`."""

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The name as it is."""
        return text

    def check(self, value: Any) -> Any:
        """Known to this machine. `UTC` always is, even where no time zone database is installed."""
        if value == "UTC":
            return value
        try:
            zoneinfo.ZoneInfo(value)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):  # outside the database; a folder of it; unknown
            known = zoneinfo.available_timezones()
        else:
            return value
        if not known:
            raise RefusedError(
                "cannot be looked up: this machine has no time zone database; install tzdata, or write UTC"
            )
        by_lower_case = {name.lower(): name for name in known} | {name.lower().split("/")[-1]: name for name in known}
        near = closest(value.lower().replace(" ", "_"), by_lower_case)
        raise RefusedError(
            f"is not a known time zone; write {by_lower_case[near] if near else 'a name such as Asia/Jakarta'}"
        )


@dataclass(frozen=True)
class Region(Reader):
    """A country by its two letters, as phone numbers know it (ISO 3166)."""

    def read(self, text: str, base: Path) -> str:  # noqa: ARG002 - the signature of every reader
        """The two letters as they are."""
        return text

    def check(self, value: Any) -> Any:
        """A country that has phone numbers."""
        if value in phonenumbers.SUPPORTED_REGIONS:
            return value
        meant = {"UK": "GB", "EN": "GB"}.get(value.upper(), value.upper())
        mend = meant if meant in phonenumbers.SUPPORTED_REGIONS else "two capital letters such as ID, DE or US"
        raise RefusedError(f"is not a country code; write {mend}")
