"""structlog without rich, which it would load, with pygments, for coloured tracebacks: `shardd.logs` writes its own.

Without them a worker is loaded with a third less of work.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let an import of this package fail, as if it were not installed; if it was loaded before, it is there again afterwards."""
    modules = cast("dict[str, Any]", sys.modules)
    before = modules.pop(name, None)
    modules[name] = None
    try:
        yield
    finally:
        del modules[name]
        if before is not None:
            modules[name] = before


with _hidden("rich"):
    import structlog
    from structlog.dev import ConsoleRenderer
    from structlog.tracebacks import ExceptionDictTransformer
    from structlog.typing import FilteringBoundLogger

__all__ = ["ConsoleRenderer", "ExceptionDictTransformer", "FilteringBoundLogger", "structlog"]
