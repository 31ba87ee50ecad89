"""The steps of a run, each with its name, its result and its time on the screen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Steps:
    """Prints one line a step."""

    def __init__(self, title: str) -> None:
        print(f"== {title}", flush=True)
        self._began = time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """An error is printed under the step's name, and goes on."""
        began = time.monotonic()
        try:
            yield
        except BaseException:
            print(f"FAILED  {time.monotonic() - began:6.1f} s  {name}", flush=True)
            raise
        print(f"ok      {time.monotonic() - began:6.1f} s  {name}", flush=True)

    def total(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began
