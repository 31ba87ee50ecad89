"""Rendezvous hashing: devices to shards, shards to nodes; and numbers that look random.

Every (key, bucket) pair has a weight, and the bucket with the highest weight owns the key. When a bucket is added, only the keys
that it wins move. The hash must never change between releases or machines, because devices would change owners; a library's
(clandestined was considered) could.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b


def _weight(key: str, bucket: str) -> bytes:
    return blake2b(f"{bucket}\x00{key}".encode(), digest_size=8).digest()


def owner(key: str, buckets: Sequence[str]) -> str:
    """The bucket that owns the key, whatever their order. Raises ValueError when there is none."""
    return max(buckets, key=lambda bucket: (_weight(key, bucket), bucket))


def shard_of(device_id: str, shards: int) -> int:
    """The shard (0 … shards-1) that owns a device."""
    return max(range(shards), key=lambda shard: _weight(device_id, f"shard-{shard}"))


def share_of(key: str) -> float:
    """A number from 0 up to 1 that looks random and is always the same for this key."""
    return int.from_bytes(_weight(key, "share")) / 2**64


def assignment(shards: int, nodes: Iterable[str]) -> dict[int, str]:
    """The node that should hold each shard. Raises ValueError when there is no node."""
    names = list(nodes)
    return {shard: owner(f"shard-{shard}", names) for shard in range(shards)}
