"""What went wrong between us and an HTTP server, in words without a URL.

The library's own words may repeat a whole URL: that of the request with its query, that of a proxy with its password.
"""

from __future__ import annotations

import os
from typing import Final

import aiohttp

# The first that fits decides.
_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorCertificateError, "its certificate cannot be trusted"),
    (aiohttp.ClientSSLError, "no TLS connection"),
    (aiohttp.ClientConnectorDNSError, "its host name is not known"),
    (aiohttp.ClientPayloadError, "the answer was cut off"),
    (aiohttp.ClientResponseError, "what answered does not keep to HTTP"),
    (aiohttp.ClientConnectionError, "the connection was closed"),
    (ConnectionError, "the connection was closed"),
)


def connection_words(error: Exception) -> str:
    """Why a request got no answer, or not all of it; for the end of a sentence."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    number = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else getattr(error, "errno", None)
    known = next((words for kind, words in _WORDS if isinstance(error, kind)), type(error).__name__)
    named = isinstance(error, aiohttp.ClientConnectorDNSError | aiohttp.ClientSSLError | TimeoutError)
    # Other numbers than the system's are those of the resolver (negative) and of OpenSSL.
    return known if named or number is None or not 0 < number < 200 else os.strerror(number)
