"""The section `dashboard`: the web page for operators, and who may use it."""

from __future__ import annotations

import binascii
import ipaddress
import re
from base64 import b64decode
from typing import Annotated, Final
from urllib.parse import urlsplit

from shardd.config.fields import Section, named_sections, setting
from shardd.config.values import Choice
from shardd.config.values.network import DashboardAddress
from shardd.config.values.reader import Listed, RefusedError, Text, matching

USER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_HASH: Final = re.compile(
    r"\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=(\d{1,3})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)
_BEGINNING: Final = "$argon2id$v=19$m="
_FIX: Final = "write the line that `shardd dashboard password` prints"
_MOST_MEMORY: Final = 256 * 1024
"""KiB for one try: more would let who tries passwords take the memory of the host."""
_MOST_PASSES: Final = 16
_MOST_LANES: Final = 16


def _check_hash(text: str) -> str:
    match = _HASH.fullmatch(text)
    if match is None and text.startswith(_BEGINNING) and "," not in text:
        raise RefusedError("is cut at its first comma, which ends a value between braces; write it between quotes")
    if match is None:
        raise RefusedError(f"is not an argon2id hash; {_FIX}")
    memory, passes, lanes = map(int, match.groups()[:3])
    if not 8 * lanes <= memory <= _MOST_MEMORY or not 1 <= passes <= _MOST_PASSES or not 1 <= lanes <= _MOST_LANES:
        raise RefusedError(f"is a hash that takes too much memory or time, or too little; {_FIX}")
    for part in match.groups()[3:]:
        try:
            b64decode(part + "=" * (-len(part) % 4), validate=True)
        except binascii.Error:
            raise RefusedError(f"is not a whole argon2id hash; {_FIX}") from None
    return text


def _check_origin(text: str) -> str:
    """As browsers send it: scheme, host and a port that is not the scheme's own."""
    fix = "write one such as https://shardd.example"
    try:
        parts = urlsplit(text.lower())
        port = parts.port
    except ValueError:
        raise RefusedError(f"is not an origin; {fix}") from None
    if parts.scheme not in {"http", "https"} or not re.fullmatch(r"[a-z0-9.-]+|[0-9a-f:.]+", parts.hostname or ""):
        raise RefusedError(f"is not a scheme and a host; {fix}")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    own = {"http": 80, "https": 443}[parts.scheme]
    origin = f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, own) else "")
    if text != origin:
        raise RefusedError(f"is not an origin as browsers write it; write {origin}")
    return text


def _check_peer(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise RefusedError(
            "is neither an IP address nor a network; write one such as 127.0.0.1 or 10.0.0.0/24"
        ) from None
    return text


ROLE: Final = Choice(("look", "operate"))
UserName = Annotated[
    str,
    Text(
        matching(
            USER_NAME.pattern,
            "is not a name of a user (letters, digits and . _ @ + -, at most 64); write one such as ada",
        )
    ),
]
Origin = Annotated[str, Text(_check_origin)]
"""Such as `https://shardd.example`."""
HeaderName = Annotated[
    str,
    Text(matching(r"[A-Za-z][A-Za-z0-9-]{0,63}", "is not the name of a header; write one such as X-Remote-User")),
]
Peers = Annotated[tuple[str, ...], Listed(Text(_check_peer), most=50, like="127.0.0.1, 10.0.0.0/24")]


class DashboardUserConfig(Section, reload="live"):
    """Somebody who may use the page."""

    password: Annotated[str, Text(_check_hash, secret=True)] | None = setting(
        None,
        "Hash of the password: the line that `shardd dashboard password` prints. null: only dashboard.trusted_header can name "
        "this user.",
        sample="${ADA_PASSWORD_HASH}",
    )
    role: Annotated[str, ROLE] = setting(
        "look", "look, or operate: pause, cancel, decide, pair, and whatever else the page can do."
    )


class DashboardConfig(Section, reload="live"):
    """The web page for operators."""

    listen: DashboardAddress | None = setting(
        "127.0.0.1:8484",
        "Address of the page: an address of this host and a port. Its process is started by the first request. Sign in with the "
        "link of `shardd dashboard link`, or as one of the users. Other addresses than loopback need users or trusted_header. "
        "null: there is none.",
        reload="restart",
    )
    origin: Origin | None = setting(
        None,
        "Where browsers find the page if that is not listen: behind a proxy, such as https://shardd.example. A page that is "
        "asked for by another name is refused. null: only by address, or as localhost.",
    )
    trusted_proxies: Peers | None = setting(
        None,
        "Addresses of your proxies, separated by commas, such as 127.0.0.1. The page believes their X-Forwarded-For and "
        "trusted_header, which they must set themselves. null: none.",
    )
    trusted_header: HeaderName | None = setting(
        None, "Header in which your proxy names the user whom it has authenticated, such as X-Remote-User. null: none."
    )
    trusted_role: Annotated[str, ROLE] | None = setting(
        None,
        "Role of those whom the header names and who are not in users: look or operate. null: they may do nothing.",
    )
    users: dict[UserName, DashboardUserConfig] = named_sections(
        DashboardUserConfig,
        "Those who may sign in with a password, and the roles of those whom the header names.",
        sample="ada",
    )
