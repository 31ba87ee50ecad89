"""Which version of the WhatsApp library is installed, without loading it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

_PACKAGE = "neonize"


@cache
def installed_library() -> str:
    """Its name and version, such as `neonize 0.5.2`, as of the start of this process."""
    try:
        return f"{_PACKAGE} {version(_PACKAGE)}"
    except PackageNotFoundError:
        return f"{_PACKAGE}, which is not installed"
