"""A device gets another session while one of its jobs waits: the job is sent with the new one."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shardd.ipc import DeviceSpec, JobSpec
from shardd.journal import Journal
from tests.unit.worker.test_sender import Rig, job


async def test_a_job_that_was_fetched_before_uses_the_new_session(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal" / "shard-000.journal", state="0" * 32, shard=0)
    journal.begin()
    devices = {"a": DeviceSpec("a", "scripted", session="old")}
    rig = Rig(journal)
    rig.sender._devices = devices
    used: list[str | None] = []
    prepare = rig.transport.prepare

    async def spy(device: DeviceSpec, of: JobSpec, fetched: object) -> object:
        used.append(device.session)
        return await prepare(device, of, fetched)

    rig.transport.prepare = spy  # type: ignore[method-assign]
    fetched = asyncio.Event()

    async def fetch(_: JobSpec) -> None:
        await fetched.wait()

    rig.transport.steps["fetch"] = fetch
    rig.take(job())
    await rig.transport.until(lambda: ("fetch", 1) in rig.transport.seen)
    devices["a"] = DeviceSpec("a", "scripted", session="new")
    fetched.set()
    await rig.until_ended()
    assert used == ["new"]
    journal.close()
