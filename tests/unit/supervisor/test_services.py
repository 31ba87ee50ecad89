"""The lifecycle of services: each alone, and a group of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from shardd.errors import SharddError
from shardd.supervisor.services import Periodic, Service, ServiceGroup, Steps
from shardd.tasks import run_together

HANG = 10.0


class Noted(Service):
    """Notes what happens to it."""

    def __init__(self, name: str, log: list[str], work: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.log = log
        self.work = work
        self.runs = asyncio.Event()

    async def start(self) -> None:
        self.log.append(f"{self.name} starts")
        if self.name == "unable":
            raise SharddError("its port is in use")

    async def serve(self) -> None:
        self.work()
        self.log.append(f"{self.name} runs")
        self.runs.set()
        await super().serve()

    async def close(self) -> None:
        self.log.append(f"{self.name} closes")


def defect() -> None:
    raise ZeroDivisionError("a defect")


async def test_stopped_before_its_start_it_never_serves() -> None:
    service = Noted("a", [])
    await service.stop()
    async with asyncio.timeout(HANG):
        await service.run()
    assert service.log == ["a closes"]


async def test_stopped_twice_it_has_stopped() -> None:
    service = Noted("a", [])
    task = asyncio.create_task(service.run())
    await service.runs.wait()
    await service.stop()
    await service.stop()
    await task
    assert service.log == ["a runs", "a closes", "a closes"]


async def test_it_ends_though_its_work_swallows_a_cancellation() -> None:
    swallowed, ended = asyncio.Event(), asyncio.Event()

    class Stubborn(Service):
        async def serve(self) -> None:
            await run_together(self.work(), asyncio.Event().wait())  # type: ignore[arg-type]  # bool, of no interest

        async def work(self) -> None:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if swallowed.is_set():
                        ended.set()
                        raise
                    swallowed.set()

    service = Stubborn()
    task = asyncio.create_task(service.run())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    async with asyncio.timeout(HANG):
        await service.stop()
        await task
    assert swallowed.is_set()
    assert ended.is_set(), "its work outlives it"


async def test_when_one_loop_fails_the_other_ends_and_the_error_is_known() -> None:
    async def failing() -> None:
        defect()

    async with asyncio.timeout(HANG):
        with pytest.raises(ZeroDivisionError):
            await run_together(asyncio.Event().wait(), failing())  # type: ignore[arg-type]  # bool, of no interest


async def test_a_group_starts_in_order_and_stops_in_the_reverse_order() -> None:
    log: list[str] = []
    services = [Noted(name, log) for name in "abc"]
    until = asyncio.Event()
    group = asyncio.create_task(
        ServiceGroup(services, failed=lambda _: None).run(until, lambda: log.append("stopping"))
    )
    for service in services:
        await service.runs.wait()
    until.set()
    async with asyncio.timeout(HANG):
        await group
    assert [line for line in log if "starts" in line] == ["a starts", "b starts", "c starts"]
    assert log[-4:] == ["stopping", "c closes", "b closes", "a closes"]


async def test_a_defect_in_one_is_told_and_all_stop_in_order() -> None:
    log: list[str] = []
    services = [Noted("a", log), Noted("ill", log, defect), Noted("c", log)]
    until, failed = asyncio.Event(), list[BaseException]()

    def fail(error: BaseException) -> None:
        failed.append(error)
        until.set()

    async with asyncio.timeout(HANG):
        await ServiceGroup(services, failed=fail).run(until, lambda: None)
    assert [type(error) for error in failed] == [ZeroDivisionError]
    assert log[-3:] == ["c closes", "ill closes", "a closes"]


async def test_one_that_cannot_start_stops_those_before_it() -> None:
    log: list[str] = []
    services = [Noted("a", log), Noted("unable", log), Noted("c", log)]
    with pytest.raises(SharddError, match="its port is in use"):
        async with asyncio.timeout(HANG):
            await ServiceGroup(services, failed=lambda _: None).run(asyncio.Event(), lambda: None)
    assert "c starts" not in log
    assert log[-2:] == ["unable closes", "a closes"]


async def test_periodic_work_that_fails_is_repeated_and_a_defect_is_not_swallowed() -> None:
    steps, errors = Steps(), [SharddError("away"), None, ZeroDivisionError("a defect")]

    async def work() -> None:
        if (error := errors.pop(0)) is not None:
            raise error

    async with asyncio.timeout(HANG):
        with pytest.raises(ZeroDivisionError):
            await Periodic(steps, "working", work, every=0.0).run()
    assert errors == []
