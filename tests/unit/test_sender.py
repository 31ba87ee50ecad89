"""Sends that take too long, with the real journal and the sandbox that hangs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shardd.ipc import DeviceSpec, JobSpec, Outcome
from shardd.journal import Journal
from shardd.states import Verdict
from shardd.worker.sender import Sender
from shardd.worker.transports import Transports

TIMEOUT = 0.2


class Bench:
    """A sender with devices `a` and `b`, and what it reports."""

    def __init__(self, journal: Journal, **settings: float) -> None:
        self.reported: asyncio.Queue[Outcome] = asyncio.Queue()
        self.sender = Sender(
            journal=journal,
            transports=Transports({"sandbox": {"record": False, **settings}}, self),
            devices={name: DeviceSpec(id=name, transport="sandbox") for name in "ab"},
            events=self,
            report=self.reported.put_nowait,
            send_timeout=TIMEOUT,
        )

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None:
        raise AssertionError("the sandbox changes no device here")

    def receipt(self, device_id: str, message_ids: list[str], kind: str, at: float) -> None:
        raise AssertionError("the sandbox sends no receipts")


def job(number: int, device: str) -> JobSpec:
    return JobSpec(number, epoch=1, attempt=1, device_id=device, recipient="+4915112345678", body="hello")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    journal = Journal.open(tmp_path / "shard-000.journal")
    journal.begin(0)
    yield lambda **settings: Bench(journal, **settings)
    journal.close()


async def test_a_send_without_an_answer_in_time_is_in_doubt(bench: Callable[..., Bench]) -> None:
    hanging = bench(hang_rate=1.0, hang_for=3600.0)
    hanging.sender.take([job(1, "a"), job(2, "b")])
    outcomes = [await hanging.reported.get(), await hanging.reported.get()]
    assert {(o.id, o.verdict, o.error) for o in outcomes} == {
        (1, Verdict.IN_DOUBT, "no answer within 0.2 s"),
        (2, Verdict.IN_DOUBT, "no answer within 0.2 s"),
    }
    assert hanging.sender.in_flight == 0


async def test_a_send_that_never_got_its_device_may_be_tried_again(bench: Callable[..., Bench]) -> None:
    waiting = bench()
    async with waiting.sender.lock_of("a"):
        waiting.sender.take([job(1, "a")])
        outcome = await waiting.reported.get()
    assert (outcome.verdict, outcome.error) == (Verdict.TRANSIENT, "not ready to send within 0.2 s")


async def test_each_send_has_its_own_time(bench: Callable[..., Bench]) -> None:
    loop = asyncio.get_running_loop()
    hanging = bench(hang_rate=1.0, hang_for=3600.0)
    began = loop.time()
    hanging.sender.take([job(1, "a")])
    await asyncio.sleep(TIMEOUT / 2)
    second = loop.time()
    hanging.sender.take([job(2, "b")])
    assert (await hanging.reported.get()).id == 1
    assert loop.time() >= began + TIMEOUT
    assert (await hanging.reported.get()).id == 2
    assert loop.time() >= second + TIMEOUT


async def test_the_watch_goes_on_after_quick_sends(bench: Callable[..., Bench]) -> None:
    quick = bench()
    quick.sender.take([job(1, "a")])
    assert (await quick.reported.get()).verdict == Verdict.SENT
    async with quick.sender.lock_of("b"):
        quick.sender.take([job(2, "b")])
        assert (await quick.reported.get()).verdict == Verdict.TRANSIENT
        quick.sender.take([job(3, "b")])
        assert (await quick.reported.get()).verdict == Verdict.TRANSIENT
