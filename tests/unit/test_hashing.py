"""Rendezvous hashing: stable, balanced, and few moves when the number of shards changes."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.hashing import shard_of

DEVICES = [f"device-{number:05d}" for number in range(3000)]


def test_the_mapping_never_changes() -> None:
    # Another value here means that every installation's devices change owners: it must never be "corrected".
    assert [shard_of(device, 8) for device in ("a", "628123", "device-00001", "+4915112345678", "ä")] == [4, 2, 2, 6, 4]
    mapping = ",".join(str(shard_of(device, 16)) for device in DEVICES)
    assert sha256(mapping.encode()).hexdigest() == "36dce9c4a39163e527f7b19dd47179021bef22ca081aa6927d1171dbd1cb7a06"


@pytest.mark.parametrize("shards", [1, 2, 8, 16, 64])
def test_shards_are_balanced(shards: int) -> None:
    counts = Counter(shard_of(device, shards) for device in DEVICES)
    assert set(counts) == set(range(shards))
    mean = len(DEVICES) / shards
    # Five standard deviations of a fair lottery: what rendezvous hashing promises, and a ring does not keep.
    spread = 5 * (mean * (1 - 1 / shards)) ** 0.5
    assert all(abs(count - mean) <= spread for count in counts.values())


@pytest.mark.parametrize("shards", [1, 4, 8, 15])
def test_a_new_shard_takes_its_share_and_moves_nothing_else(shards: int) -> None:
    before = {device: shard_of(device, shards) for device in DEVICES}
    after = {device: shard_of(device, shards + 1) for device in DEVICES}
    moved = [device for device in DEVICES if before[device] != after[device]]
    assert all(after[device] == shards for device in moved)
    assert 0 < len(moved) < 1.5 * len(DEVICES) / (shards + 1)


@given(st.text(max_size=70), st.integers(1, 256))
def test_every_device_has_a_shard(device: str, shards: int) -> None:
    assert 0 <= shard_of(device, shards) < shards
    assert shard_of(device, shards) == shard_of(device, shards)
