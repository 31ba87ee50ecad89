"""What a node remembers of its beats survives its process, a torn write and a power failure."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from shardd.postgres.servers import Identity
from shardd.queue.beats import BeatMemory, WentBack
from shardd.queue.leases import LastBeat
from shardd.queue.lives import Life, Past, compare, what_is_lost
from shardd.supervisor.cluster.beat_file import SIZE, BeatFile

STATE, OTHER = "0" * 32, "1" * 32
SERVER = Identity(7, 3)


async def renewed(folder: Path, times: int) -> BeatFile:
    memory = BeatFile(folder, STATE, sync=False)
    for number in range(1, times + 1):
        await memory.intend()
        await memory.acknowledge(number, 1000.5 + number, 900.25, SERVER)
    return memory


def of(memory: BeatMemory) -> tuple[object, ...]:
    return memory.beats, memory.at, memory.life, memory.server, memory.beat, memory.next


async def test_the_next_supervisor_knows_the_last_beat_and_the_one_that_may_have_been_stored(tmp_path: Path) -> None:
    memory = await renewed(tmp_path, 5)
    assert of(BeatFile(tmp_path, STATE, sync=True)) == of(memory)
    await memory.intend()
    again = BeatFile(tmp_path, STATE, sync=True)
    assert of(again) == of(memory)
    assert again.beats_known() == [memory.beat, memory.next]


@pytest.mark.parametrize("slot", [0, 1])
async def test_a_torn_write_costs_one_beat_at_most(tmp_path: Path, slot: int) -> None:
    memory = await renewed(tmp_path, 5)
    file = tmp_path / "beat"
    content = bytearray(file.read_bytes())
    content[slot * SIZE + 40 : slot * SIZE + 80] = bytes(40)
    file.write_bytes(content)
    again = BeatFile(tmp_path, STATE, sync=False)
    assert again.beats in (4, 5)
    assert memory.beat in again.beats_known()


async def test_a_file_of_another_folder_is_no_memory_of_this_one(tmp_path: Path) -> None:
    memory = await renewed(tmp_path, 5)
    other = BeatFile(tmp_path, OTHER, sync=False)
    assert (other.beats, other.beat) == (0, memory.beat)
    (tmp_path / "beat").write_bytes(b"\xff" * 2000)
    assert BeatFile(tmp_path, STATE, sync=False).beats == 0


# ---- what is older


def row(beats: int, beat: UUID | None, *earlier: UUID, at: float = 1000.0) -> LastBeat:
    return LastBeat("a", uuid4(), 1, "host", "/a", None, beats, beat, list(earlier), at)


@pytest.mark.parametrize("memory_of_life", [900.25, 100.0])
async def test_what_is_older_is_found(tmp_path: Path, memory_of_life: float) -> None:
    memory = await renewed(tmp_path, 5)
    await memory.intend()
    mine, following, life = memory.beat, memory.next, Life(900.25, None, 2000.0)
    assert mine is not None
    assert following is not None
    memory.life = memory_of_life
    answered = memory_of_life < life.began
    for known, expected in (
        (row(5, mine), Past.SAME),
        (row(6, following), Past.SAME),
        (row(9, uuid4(), uuid4(), mine), Past.SAME),  # another supervisor ran as this node since, on a copy
        (row(6, uuid4()), Past.FOLDER_OLDER),
        (row(5, uuid4()), Past.FOLDER_OLDER),
        (row(4, uuid4()), Past.FOLDER_OLDER if answered else Past.DATABASE_OLDER),
        (None, Past.NEW if answered else Past.DATABASE_OLDER),
    ):
        assert compare(memory, known, life) is expected
    assert compare(BeatMemory(), None, life) is Past.NEW
    assert compare(BeatMemory(), row(1, uuid4()), life) is Past.FOLDER_OLDER


async def test_how_much_is_lost_and_whether_a_fail_over_explains_it(tmp_path: Path) -> None:
    memory = await renewed(tmp_path, 5)
    behind = row(2, uuid4(), at=memory.at - 40)
    promoted = Identity(7, 4)
    lost = what_is_lost(memory, behind, promoted)
    assert (lost, lost.is_small) == (WentBack(3, 40.0, timeline_changed=True), True)
    for server in (SERVER, Identity(8, 4), Identity(7, 2), None):
        assert not what_is_lost(memory, behind, server).is_small
    assert not what_is_lost(memory, row(2, None, at=memory.at - 601), promoted).is_small
    assert not what_is_lost(memory, None, promoted).is_small
    words = [WentBack(1, seconds, timeline_changed=False).how_much for seconds in (3, 600, 86_400, None)]
    assert words[:3] == ["by about 3 s", "by about 10 min", "by about 24 h"]
    assert words[3] == "it does not know this node, which has renewed its leases 1 times"
