"""What a worker process is to the rest of its host: a spare one that waits for a shard, or the worker of one.

`ps` and `top` show the difference by its name, and the kernel ends a spare one first when memory is short: no shard may suffer
from what is only kept for later.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Final

from shardd.logs import bind_logs, get_logger

log = get_logger(__name__)

_NAME: Final = Path("/proc/self/comm")
_SCORE: Final = Path("/proc/self/oom_score_adj")
_FIRST: Final = "1000"


class Role:
    """Of this process; at first the worker of a shard that is not known yet."""

    def __init__(self) -> None:
        self._score: str | None = None
        """What was in oom_score_adj before."""
        self.waits = False
        """It is a spare one."""

    def wait(self, modules: Iterable[str]) -> None:
        """Be a spare one: load these."""
        self.waits = True
        _put(_NAME, "shardd-spare")
        with suppress(OSError):
            self._score = _SCORE.read_text()
            _SCORE.write_text(_FIRST)
        for name in modules:
            try:
                import_module(name)
            except ImportError as error:
                # The transport that needs it says so once it is wanted.
                log.debug("module not loaded in advance", action="spare", module=name, error=str(error))

    def serve(self, shard: int) -> None:
        """Be the worker of this shard."""
        self.waits = False
        bind_logs(shard=shard)
        _put(_NAME, f"shardd-{shard}")
        if self._score is not None:
            _put(_SCORE, self._score)


def _put(file: Path, text: str) -> None:
    with suppress(OSError):
        file.write_text(text)
