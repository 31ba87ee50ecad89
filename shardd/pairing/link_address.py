"""Where pairing links lead: their makers are told when nobody but this host could open them."""

from __future__ import annotations

from urllib.parse import urlsplit

from shardd.addresses import read_address


def warning_of(origin: str | None, address: str) -> str | None:
    """Why the links are of no use on a phone; None: they are. `origin`: `dashboard.origin`. `address`: with which they begin.

    An origin that the config names is meant, whatever it is.
    """
    host = urlsplit(address).hostname or ""
    found = read_address(host)
    is_here = host == "localhost" if found is None else found.is_loopback or found.is_unspecified
    if origin is not None or not is_here:
        return None
    return (
        f"links lead to {host}, which no other device can open; set dashboard.origin to where the phones' owners reach the "
        "dashboard, such as https://shardd.example"
    )
