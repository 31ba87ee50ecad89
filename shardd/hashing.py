"""Rendezvous hashing: devices to shards, and the weights by which nodes share the shards; and numbers that look random.

Every (key, bucket) pair has a weight, and the bucket with the highest weight owns the key. When a bucket is added, only the keys
that it wins move. The hash must never change between releases or machines, because devices would change owners; a library's
(clandestined was considered) could. Nodes share evenly, so with them the weight only decides among even shares
(`shardd.supervisor.cluster.plan`).
"""

from __future__ import annotations

from hashlib import blake2b


def weight(key: str, bucket: str) -> bytes:
    """Of a pair; to be compared."""
    return blake2b(f"{bucket}\x00{key}".encode(), digest_size=8).digest()


def shard_of(device_id: str, shards: int) -> int:
    """The shard (0 … shards-1) that owns a device."""
    return max(range(shards), key=lambda shard: weight(device_id, f"shard-{shard}"))


def share_of(key: str) -> float:
    """A number from 0 up to 1 that looks random and is always the same for this key."""
    return int.from_bytes(weight(key, "share")) / 2**64
