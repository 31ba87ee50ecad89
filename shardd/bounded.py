"""Memories of a bounded size, in the order in which their keys were last remembered."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def remember(memory: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    """Remember a value as the newest; beyond `most`, the oldest is forgotten."""
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > most:
        memory.popitem(last=False)
