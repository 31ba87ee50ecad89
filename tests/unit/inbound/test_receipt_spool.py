"""The receipt spool: what is kept survives the process, and damage costs only itself."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from shardd.errors import UnsafeFileError
from shardd.ipc import Receipt
from shardd.supervisor.inbound.receipt_spool import NAME, SPARE, ReceiptSpool

FIRST = Receipt("p1", ["wamid.1"], "failed", 5.5, "no such number ☝\n", "recipient", (17, 3, 1, -5))
SECOND = Receipt("p2", ["wamid.2"], "read", 6.5)
THIRD = Receipt("p3", ["wamid.3"], "unreadable", 7.5)


async def test_receipts_are_read_back_until_they_are_stored(tmp_path: Path) -> None:
    spool = ReceiptSpool(tmp_path)
    assert spool.load() == []
    await asyncio.gather(spool.keep([FIRST]), spool.keep([SECOND, FIRST]))
    again = ReceiptSpool(tmp_path)
    assert again.load() == [FIRST, SECOND, FIRST]
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    await again.stored([SECOND])
    assert ReceiptSpool(tmp_path).load() == [FIRST, SECOND, FIRST], "too few to rewrite the file"
    await again.stored([])
    assert not (tmp_path / NAME).exists()
    await again.keep([SECOND])
    assert ReceiptSpool(tmp_path).load() == [SECOND]


async def test_a_flipped_bit_or_a_lost_end_costs_one_receipt(tmp_path: Path) -> None:
    await ReceiptSpool(tmp_path).keep([FIRST, SECOND])
    whole = (tmp_path / NAME).read_bytes()
    for place in range(0, len(whole) * 8, 7):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        (tmp_path / NAME).write_bytes(data)
        found = ReceiptSpool(tmp_path).load()
        assert found in ([FIRST, SECOND], [FIRST], [SECOND]), place
    (tmp_path / NAME).write_bytes(whole[:-9])
    spool = ReceiptSpool(tmp_path)
    assert spool.load() == [FIRST]
    await spool.keep([SECOND])
    assert ReceiptSpool(tmp_path).load() == [FIRST, SECOND]


async def test_stored_receipts_leave_the_file_while_others_wait(tmp_path: Path) -> None:
    spool = ReceiptSpool(tmp_path)
    await spool.keep([FIRST] * (SPARE + 3))
    await spool.stored([SECOND])
    assert ReceiptSpool(tmp_path).load() == [SECOND]


async def test_a_file_that_cannot_be_written_refuses_and_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    spool = ReceiptSpool(tmp_path)
    with pytest.raises(UnsafeFileError):
        await spool.keep([FIRST])
    (problem,) = spool.problems()
    assert "so they repeat them" in problem.text
    await spool.check()
    assert list(spool.problems()) == [problem]
    (tmp_path / NAME).rmdir()
    await spool.check()
    assert list(spool.problems()) == []
    await spool.keep([FIRST])
    assert ReceiptSpool(tmp_path).load() == [FIRST]


async def test_the_name_of_a_new_file_is_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, synchronised = os.fsync, list[int]()

    def record(fd: int) -> None:
        synchronised.append(os.fstat(fd).st_ino)
        fsync(fd)

    def file_and_folder() -> list[int]:
        return [(tmp_path / NAME).stat().st_ino, tmp_path.stat().st_ino]

    monkeypatch.setattr(os, "fsync", record)
    spool = ReceiptSpool(tmp_path)
    await spool.keep([FIRST])
    assert synchronised == file_and_folder()
    await spool.stored([])
    synchronised.clear()
    await spool.keep([FIRST] * (SPARE + 3))
    assert synchronised == file_and_folder()
    synchronised.clear()
    await spool.stored([SECOND])
    assert synchronised == file_and_folder()


async def test_a_disk_that_hangs_delays_nothing_else_and_loses_nothing_that_comes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes while the file is rewritten is in the new one, whether it joins a batch from before or not."""
    hangs, goes_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def hang(fd: int) -> None:
        hangs.set()
        assert goes_on.wait(30)
        fsync(fd)

    spool = ReceiptSpool(tmp_path)
    await spool.keep([FIRST] * (SPARE + 3))
    monkeypatch.setattr(os, "fsync", hang)
    first = asyncio.create_task(spool.keep([FIRST]))
    async with asyncio.timeout(30):
        while not hangs.is_set():  # noqa: ASYNC110 - the loop must go on, which is what is tried
            await asyncio.sleep(0)
    joined = asyncio.create_task(spool.keep([SECOND]))
    await asyncio.sleep(0)
    rewritten = asyncio.create_task(spool.stored([SECOND]))
    await asyncio.sleep(0)
    spool.note(THIRD)
    later = asyncio.create_task(spool.keep([FIRST]))
    await asyncio.sleep(0)
    assert not any(one.done() for one in (first, joined, rewritten, later))
    goes_on.set()
    await asyncio.gather(first, joined, rewritten, later)
    assert ReceiptSpool(tmp_path).load() == [SECOND, THIRD, FIRST]
