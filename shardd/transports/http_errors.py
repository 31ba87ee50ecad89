"""Why a connection to an HTTP server failed, without a URL.

aiohttp's own texts may quote a whole URL: the request's with its query, a proxy's with its password.
"""

from __future__ import annotations

import os
from typing import Final

import aiohttp

# The first match decides.
_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (TimeoutError, "no answer in time"),
    (aiohttp.ClientConnectorCertificateError, "its certificate cannot be trusted"),
    (aiohttp.ClientSSLError, "no TLS connection"),
    (aiohttp.ClientConnectorDNSError, "its host name is unknown"),
    (aiohttp.ClientPayloadError, "the answer was cut off"),
    (aiohttp.ClientResponseError, "the answer is not valid HTTP"),
    (aiohttp.ClientConnectionError, "the connection was closed"),
    (ConnectionError, "the connection was closed"),
)


def connection_words(error: Exception) -> str:
    """Why a request got no answer, or not all of it: the end of a sentence."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered {error.status}"
    number = error.os_error.errno if isinstance(error, aiohttp.ClientConnectorError) else getattr(error, "errno", None)
    known = next((words for kind, words in _WORDS if isinstance(error, kind)), type(error).__name__)
    named = isinstance(error, aiohttp.ClientConnectorDNSError | aiohttp.ClientSSLError | TimeoutError)
    # Numbers outside the system's are the resolver's (negative) and OpenSSL's.
    return known if named or number is None or not 0 < number < 200 else os.strerror(number)
