"""One job through its transport with a real journal: the order of the steps, and the verdict of each ending."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from shardd.errors import DeviceUnavailableError, ErrorClass, InDoubtError, PermanentError, SendError, TransientError
from shardd.ipc import DeviceSpec, JobSpec, Outcome
from shardd.journal import Journal
from shardd.transports.base import Sent, Transport
from shardd.worker import sender as sender_module
from shardd.worker.sender import Sender
from shardd.worker.start_gate import StartGate

HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging


class Scripted(Transport):
    """Does at each step what a test says: a step may be a coroutine function or raise."""

    def __init__(self) -> None:
        self.steps: dict[str, Any] = {}
        self.seen: list[tuple[str, int]] = []
        self.news = asyncio.Condition()
        self.turns = asyncio.Semaphore(1)

    async def fetch(self, device: DeviceSpec, job: JobSpec) -> Any:
        return await self._step("fetch", job)

    async def prepare(self, device: DeviceSpec, job: JobSpec, fetched: Any) -> Any:
        return await self._step("prepare", job)

    async def deliver(self, device: DeviceSpec, job: JobSpec, prepared: Any) -> Sent:
        await self._step("deliver", job)
        self.seen.append(("delivered", job.id))
        return Sent(message_id=f"m-{job.id}")

    def discard(self, fetched: Any) -> None:
        if fetched is not None:
            self.seen.append(("discarded", fetched))

    def visit_turn(self) -> AbstractAsyncContextManager[None]:
        return self.turns

    async def visit(self, device: DeviceSpec, *, late: bool = False, probe: bool = False) -> None:
        await self._step("visit", job(0, device.id))

    async def until(self, what: Callable[[], Any]) -> None:
        async with asyncio.timeout(HANG), self.news:
            await self.news.wait_for(what)

    async def _step(self, name: str, job: JobSpec) -> Any:
        self.seen.append((name, job.id))
        async with self.news:
            self.news.notify_all()
        step = self.steps.get(name)
        if isinstance(step, BaseException):
            raise step
        return None if step is None else await step(job)


class Loaded(dict[str, Transport]):
    """The worker's transports: what is not loaded cannot be."""

    async def load(self, name: str) -> None:
        return None


class Rig:
    """A sender with a scripted transport, and everything that it reports."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.transport = Scripted()
        self.outcomes: list[Outcome] = []
        self.rss = 100
        self.lease_good = True
        self.asked: list[tuple[str, ...]] = []
        self.stopped: set[str] = set()
        self.changes: list[tuple[str, str, str, float | None]] = []
        self.visits: list[tuple[str, bool, str | None]] = []
        self.at_report: Callable[[Outcome], None] = lambda _: None
        self.sender = Sender(
            journal=journal,
            transports=Loaded(scripted=self.transport),  # type: ignore[arg-type]  # has what the sender asks of it
            devices={
                name: DeviceSpec(name, transport)
                for name, transport in (("a", "scripted"), ("b", "scripted"), ("x", "missing"))
            },
            events=self,  # type: ignore[arg-type]  # receipts do not pass through the sender
            report=self._report,
            rss=lambda: self.rss,
            opted_out=self.opted_out,
            may_start=lambda: self.lease_good,
            send_timeout=600.0,
        )

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None:
        self.changes.append((device_id, state, reason, until))

    def visited(self, device_id: str, *, online: bool, presence: bool = False, note: str | None = None) -> None:
        self.visits.append((device_id, online, note))

    async def opted_out(self, address: str, others: Sequence[str]) -> bool:
        self.asked.append((address, *others))
        return address in self.stopped

    def take(self, *jobs: JobSpec) -> None:
        for job in jobs:
            self.sender.take(job)

    async def until_ended(self, count: int = 1) -> Outcome:
        await self.transport.until(lambda: len(self.outcomes) >= count)
        return self.outcomes[-1]

    def started(self) -> set[int]:
        return {claim[0] for claim in self.journal.read().started}

    def remembered(self) -> list[Outcome]:
        return list(self.journal.read().outcomes.values())

    def _report(self, outcome: Outcome) -> None:
        self.at_report(outcome)
        self.outcomes.append(outcome)

        async def tell() -> None:
            async with self.transport.news:
                self.transport.news.notify_all()

        self._telling = asyncio.ensure_future(tell())


def job(number: int = 1, device: str = "a") -> JobSpec:
    return JobSpec(number, 7, 1, 9, device, "+628")


async def for_ever(_: JobSpec) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    journal = Journal.open(tmp_path / "journal" / "shard-000.journal", state="0" * 32, shard=0)
    journal.begin()
    rig = Rig(journal)
    yield rig
    await rig.sender.drain(0.0)
    journal.close()


# ---- the order of the steps


async def test_the_journal_knows_before_anybody_else(rig: Rig) -> None:
    seen: list[tuple[str, set[int], int]] = []

    def note(what: str) -> None:
        seen.append((what, rig.started(), len(rig.remembered())))

    async def deliver(_: JobSpec) -> None:
        note("deliver")

    async def prepare(_: JobSpec) -> None:
        note("prepare")

    rig.transport.steps.update(prepare=prepare, deliver=deliver)
    rig.at_report = lambda _: note("report")
    rig.take(job())
    outcome = await rig.until_ended()
    assert seen == [("prepare", set(), 0), ("deliver", {1}, 0), ("report", {1}, 1)]
    assert rig.transport.seen == [("fetch", 1), ("prepare", 1), ("deliver", 1), ("delivered", 1)]
    assert (outcome.verdict, outcome.message_id, outcome.id, outcome.epoch, outcome.attempt) == ("sent", "m-1", 1, 7, 1)
    assert rig.remembered() == [outcome]
    assert rig.sender.claims() == []


async def test_nothing_is_handed_over_once_the_lease_may_be_another_nodes(rig: Rig) -> None:
    """Though it was claimed and prepared in time: another node may send it a moment later."""

    async def prepare(_: JobSpec) -> None:
        rig.lease_good = False

    rig.transport.steps["prepare"] = prepare
    rig.take(job())
    assert (await rig.until_ended()).verdict == "returned"
    assert rig.started() == set()
    assert rig.transport.seen == [("fetch", 1), ("prepare", 1)]


# ---- the ways to end

UNTIL = datetime(2100, 1, 1, tzinfo=UTC)
ERRORS: list[tuple[SendError, str]] = [
    (PermanentError("no", error_class=ErrorClass.RECIPIENT), "permanent"),
    (TransientError("later", retry_after=5.0, error_class=ErrorClass.SERVER), "transient"),
    (DeviceUnavailableError("away", retry_after=9.0, error_class=ErrorClass.CONNECTION), "unavailable"),
    (InDoubtError("who knows", error_class=ErrorClass.TIMEOUT), "in_doubt"),
]


@pytest.mark.parametrize("step", ["fetch", "prepare"])
@pytest.mark.parametrize(("error", "verdict"), ERRORS[:3])
async def test_an_error_before_the_hand_over(rig: Rig, step: str, *, error: SendError, verdict: str) -> None:
    rig.transport.steps[step] = error
    rig.take(job())
    outcome = await rig.until_ended()
    assert (outcome.verdict, outcome.error, outcome.error_class, outcome.retry_after) == (
        verdict,
        str(error),
        error.error_class,
        getattr(error, "retry_after", None),
    )
    assert rig.started() == set()
    assert ("deliver", 1) not in rig.transport.seen


@pytest.mark.parametrize(("error", "verdict"), ERRORS)
async def test_an_error_of_the_hand_over(rig: Rig, error: SendError, verdict: str) -> None:
    rig.transport.steps["deliver"] = error
    rig.take(job())
    outcome = await rig.until_ended()
    assert (outcome.verdict, outcome.error) == (verdict, str(error))
    assert rig.remembered() == [outcome]


@pytest.mark.parametrize(
    ("step", "verdict"), [("fetch", "transient"), ("prepare", "transient"), ("deliver", "in_doubt")]
)
@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyError("x"), TimeoutError(), OSError(5, "io")])
async def test_a_defect_of_a_transport_is_no_proof(rig: Rig, step: str, *, verdict: str, error: Exception) -> None:
    rig.transport.steps[step] = error
    rig.take(job(), job(2, "b"))
    await rig.until_ended(2)
    assert [outcome.verdict for outcome in rig.outcomes] == [verdict] * 2
    assert type(error).__name__ in (rig.outcomes[0].error or "")


async def test_what_an_error_proves_about_the_device_is_told_before_the_outcome(rig: Rig) -> None:
    rig.transport.steps["deliver"] = DeviceUnavailableError("for spam", state="banned", until=UNTIL)
    changes_at_report: list[int] = []
    rig.at_report = lambda _: changes_at_report.append(len(rig.changes))
    rig.take(job())
    outcome = await rig.until_ended()
    assert rig.changes == [("a", "banned", "for spam", UNTIL.timestamp())]
    assert changes_at_report == [1]
    assert outcome.device_state == "banned"
    assert outcome.retry_after is not None
    assert outcome.retry_after > 3600


@pytest.mark.parametrize(
    ("step", "verdict", "words"),
    [
        ("fetch", "transient", "not ready to send within 0.05 s"),
        ("prepare", "transient", "not ready to send within 0.05 s"),
        ("deliver", "in_doubt", "no answer within 0.05 s"),
    ],
)
async def test_no_step_takes_for_ever(rig: Rig, *, step: str, verdict: str, words: str) -> None:
    rig.sender._send_timeout = 0.05
    rig.transport.steps[step] = for_ever
    rig.take(job(), job(2, "b"))
    await rig.until_ended(2)
    assert [(outcome.verdict, outcome.error) for outcome in rig.outcomes] == [(verdict, words)] * 2
    rig.transport.steps.clear()
    rig.take(job(3))
    assert (await rig.until_ended(3)).verdict == "sent"


@pytest.mark.parametrize("step", ["take", "fetch", "prepare"])
async def test_nothing_leaves_when_its_time_is_over(rig: Rig, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(sender_module, "time", SimpleNamespace(time=lambda: clock[0]))

    async def take_long(_: JobSpec) -> None:
        clock[0] = 1060.0

    rig.transport.steps[step] = take_long
    expires_at = 1000.0 if step == "take" else 1060.0
    rig.take(msgspec.structs.replace(job(), expires_at=expires_at))
    outcome = await rig.until_ended()
    assert (outcome.verdict, outcome.error_class) == ("expired", "expired")
    assert rig.started() == set()
    assert ("deliver", 1) not in rig.transport.seen
    assert (("fetch", 1) in rig.transport.seen) is (step != "take"), "nothing is begun that is late from the first"


async def test_what_has_left_in_time_is_sent(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(sender_module, "time", SimpleNamespace(time=lambda: clock[0]))

    async def take_long(_: JobSpec) -> None:
        clock[0] = 1060.0

    rig.transport.steps["deliver"] = take_long
    rig.take(msgspec.structs.replace(job(), expires_at=1059.0))
    assert (await rig.until_ended()).verdict == "sent"


async def test_a_wait_for_the_whole_account_is_told(rig: Rig) -> None:
    rig.transport.steps["prepare"] = DeviceUnavailableError("slow down", retry_after=9.0, whole_account=True)
    rig.take(job())
    outcome = await rig.until_ended()
    assert (outcome.whole_account, outcome.retry_after) == (True, 9.0)


async def test_a_device_that_is_not_known_gives_its_job_back_and_is_left_alone_for_a_while(
    rig: Rig,
) -> None:
    rig.take(job(1, "nobody"))
    outcome = await rig.until_ended()
    assert (outcome.verdict, outcome.error) == ("unavailable", "this worker does not know its device")


async def test_a_transport_that_is_not_there_makes_its_devices_unavailable(rig: Rig) -> None:
    rig.take(job(1, "x"), job(2))
    await rig.until_ended(2)
    by_id = {outcome.id: outcome for outcome in rig.outcomes}
    assert (by_id[1].verdict, by_id[2].verdict) == ("unavailable", "sent")
    assert "missing" in (by_id[1].error or "")
    assert by_id[1].retry_after


# ---- a journal that refuses


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """The journal cannot grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def test_nothing_leaves_that_the_journal_does_not_know(rig: Rig) -> None:
    with full_disk(rig.journal.path):
        rig.take(job())
        outcome = await rig.until_ended()
    assert outcome.verdict == "unavailable"
    assert outcome.retry_after == sender_module.JOURNAL_RETRY
    assert ("deliver", 1) not in rig.transport.seen
    assert rig.journal.check() is None
    rig.take(job(2))
    assert (await rig.until_ended(2)).verdict == "sent"
    assert rig.started() == {2}


async def test_an_outcome_that_the_journal_refuses_is_still_told(rig: Rig) -> None:
    release = asyncio.Event()

    async def deliver(_: JobSpec) -> None:
        await release.wait()

    rig.transport.steps["deliver"] = deliver
    rig.take(job())
    await rig.transport.until(lambda: ("deliver", 1) in rig.transport.seen)
    with full_disk(rig.journal.path):
        release.set()
        assert (await rig.until_ended()).verdict == "sent"
    assert rig.remembered() == []


# ---- one at a time


async def test_a_device_sends_one_after_the_other_in_order(rig: Rig) -> None:
    inside: list[int] = []

    async def deliver(which: JobSpec) -> None:
        inside.append(which.id)
        for _ in range(3):
            await asyncio.sleep(0)
        assert inside == [which.id]
        inside.remove(which.id)

    rig.transport.steps["deliver"] = deliver
    rig.take(*[job(number) for number in range(20)])
    await rig.until_ended(20)
    assert [outcome.verdict for outcome in rig.outcomes] == ["sent"] * 20
    assert [number for step, number in rig.transport.seen if step == "delivered"] == list(range(20))


async def test_devices_do_not_wait_for_each_other(rig: Rig) -> None:
    async def deliver(which: JobSpec) -> None:
        if which.device_id == "a":
            await asyncio.Event().wait()

    rig.transport.steps["deliver"] = deliver
    rig.take(job(1, "a"), job(2, "b"))
    assert (await rig.until_ended()).id == 2
    assert len(rig.sender.claims()) == 1


async def test_what_was_fetched_is_let_go_of_however_the_job_ends(rig: Rig) -> None:
    async def fetch(one: JobSpec) -> int:
        return one.id

    async def prepare(one: JobSpec) -> None:
        if one.id == 2:
            raise PermanentError("no")
        if one.id == 3:
            await for_ever(one)

    rig.transport.steps = {"fetch": fetch, "prepare": prepare}
    rig.take(job(1), job(2, "b"))
    await rig.until_ended(2)
    rig.take(job(3), job(4))  # the fourth waits for its device
    await rig.transport.until(lambda: ("fetch", 4) in rig.transport.seen)
    await rig.sender.drain(1.0)
    assert sorted(number for what, number in rig.transport.seen if what == "discarded") == [1, 2, 3, 4]


async def test_a_transport_may_take_several_of_a_device_at_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "in_flight", 5)
    rig.transport.steps["deliver"] = for_ever
    rig.take(*[job(number) for number in range(5)])
    await rig.transport.until(lambda: sum(step == "deliver" for step, _ in rig.transport.seen) == 5)


# ---- visits


async def test_a_visit_that_waits_for_its_turn_keeps_its_device_from_nothing(rig: Rig) -> None:
    go_on = asyncio.Event()
    rig.transport.steps["visit"] = lambda _: go_on.wait()
    hangs = asyncio.create_task(rig.sender.visit("a"))
    await rig.transport.until(lambda: ("visit", 0) in rig.transport.seen)
    waits, again = (asyncio.create_task(rig.sender.visit("b")) for _ in range(2))
    await again  # requested again, it is not visited twice
    rig.take(job(1, "b"))
    assert (await rig.until_ended()).verdict == "sent"
    assert not rig.sender.lock_of("b").locked()
    go_on.set()
    await asyncio.gather(hangs, waits)
    assert rig.transport.seen.count(("visit", 0)) == 2
    assert rig.visits == []


async def test_a_visit_gives_way_to_a_send_that_hangs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "VISIT_WAIT", 0.05)
    rig.transport.steps["prepare"] = for_ever
    rig.take(job())
    await rig.transport.until(lambda: ("prepare", 1) in rig.transport.seen)
    await rig.sender.visit("a")
    assert rig.visits == [("a", False, sender_module.GAVE_WAY)]
    assert not rig.transport.turns.locked()
    assert rig.sender.lock_of("a").locked()


async def test_a_defect_of_a_visit_is_reported_as_a_failed_visit(rig: Rig) -> None:
    rig.transport.steps["visit"] = RuntimeError("a defect")
    with pytest.raises(RuntimeError):
        await rig.sender.visit("a")
    rig.transport.steps["visit"] = DeviceUnavailableError("away")
    await rig.sender.visit("a")
    assert rig.visits == [("a", False, "unexpected: RuntimeError: a defect"), ("a", False, "away")]


# ---- drain


async def test_a_drain_gives_back_what_has_not_left(rig: Rig) -> None:
    rig.transport.steps["prepare"] = for_ever
    rig.take(job(1, "a"), job(2, "a"), job(3, "b"))
    await rig.transport.until(lambda: sum(step == "prepare" for step, _ in rig.transport.seen) == 2)
    rig.take(job(4, "b"), job(5, "a"))  # these have not taken their first step
    await rig.sender.drain(0.0)
    assert sorted((outcome.id, outcome.verdict) for outcome in rig.outcomes) == [(n, "returned") for n in range(1, 6)]
    assert rig.started() == set()
    assert len(rig.sender.claims()) == 0


async def test_a_drain_waits_for_what_has_left(rig: Rig) -> None:
    release = asyncio.Event()

    async def deliver(_: JobSpec) -> None:
        await release.wait()

    rig.transport.steps["deliver"] = deliver
    rig.take(job(1), job(2))
    await rig.transport.until(lambda: ("deliver", 1) in rig.transport.seen)
    drain = asyncio.create_task(rig.sender.drain(HANG))
    await rig.transport.until(lambda: rig.outcomes)
    assert (rig.outcomes[0].id, rig.outcomes[0].verdict) == (2, "returned")
    release.set()
    await drain
    assert (rig.outcomes[1].id, rig.outcomes[1].verdict) == (1, "sent")
    assert len(rig.outcomes) == 2


async def test_what_outlasts_a_drain_is_in_doubt(rig: Rig) -> None:
    rig.transport.steps["deliver"] = for_ever
    rig.take(job(1))
    await rig.transport.until(lambda: ("deliver", 1) in rig.transport.seen)
    await rig.sender.drain(0.0)
    (outcome,) = rig.outcomes
    assert (outcome.verdict, outcome.error) == ("in_doubt", "the worker had to stop before the answer came")
    assert rig.remembered() == [outcome]


async def test_after_a_drain_everything_is_given_back(rig: Rig) -> None:
    await rig.sender.drain(0.0)
    rig.take(job(1), job(2))
    assert [(outcome.id, outcome.verdict) for outcome in rig.outcomes] == [(1, "returned"), (2, "returned")]
    assert rig.transport.seen == []


# ---- suspects


def suspect(number: int, device: str = "a", deaths: int = 2) -> JobSpec:
    return msgspec.structs.replace(job(number, device), worker_deaths=deaths)


async def test_a_suspect_is_prepared_when_nothing_else_is_under_way_and_the_journal_knows(rig: Rig) -> None:
    go_on = asyncio.Event()
    rig.transport.steps["deliver"] = lambda _: go_on.wait()
    rig.take(job(1), suspect(2, "b"))
    await rig.transport.until(lambda: ("deliver", 1) in rig.transport.seen)
    assert len(rig.sender.claims()) == 2
    assert [claim[0] for claim in rig.sender.claims()] == [1, 2]
    assert ("fetch", 2) not in rig.transport.seen, "it would take the one that is handed over into doubt"
    rig.take(job(3))
    go_on.set()
    await rig.until_ended(3)
    assert [outcome.id for outcome in rig.outcomes] == [1, 2, 3]
    assert [(claim[0], alone) for claim, alone in rig.journal.read().preparing.items()] == [
        (1, False),
        (2, True),
        (3, False),
    ]


async def test_who_waits_for_a_suspect_loses_none_of_its_own_time(rig: Rig) -> None:
    rig.sender._send_timeout = 0.5
    rig.transport.steps["prepare"] = lambda of: for_ever(of) if of.id == 1 else asyncio.sleep(0)
    rig.take(suspect(1))
    await rig.transport.until(lambda: ("prepare", 1) in rig.transport.seen)
    rig.take(job(2, "b"))
    await rig.until_ended(2)
    assert [(outcome.id, outcome.verdict) for outcome in rig.outcomes] == [(1, "transient"), (2, "sent")]


@pytest.mark.parametrize("memory", [None, 1000])
async def test_what_is_being_prepared_when_a_worker_is_replaced_for_its_memory_is_suspect(
    rig: Rig, memory: int | None
) -> None:
    rig.transport.steps["prepare"] = lambda of: for_ever(of) if of.id == 1 else asyncio.sleep(0)
    rig.transport.steps["deliver"] = for_ever
    rig.take(job(1), job(2, "b"))
    await rig.transport.until(lambda: {("prepare", 1), ("deliver", 2)} <= set(rig.transport.seen))
    rig.take(job(3))
    await rig.sender.drain(0.0, memory=memory)
    found = {outcome.id: (outcome.verdict, outcome.suspect) for outcome in rig.outcomes}
    assert found == {1: ("returned", memory is not None), 2: ("in_doubt", False), 3: ("returned", False)}


async def test_a_job_whose_preparation_has_not_begun_is_not_suspect(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = asyncio.Event()

    async def load(_: str) -> None:
        loading.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(rig.sender._transports, "load", load)
    rig.take(job(1, "x"))
    async with asyncio.timeout(HANG):
        await loading.wait()
    await rig.sender.drain(0.0, memory=1000)
    assert [(outcome.verdict, outcome.suspect) for outcome in rig.outcomes] == [("returned", False)]


@pytest.mark.parametrize(
    ("deaths", "rss", "verdict", "is_suspect"),
    [
        (2, 100 + 250, "permanent", True),
        (2, 100 + 249, "returned", False),  # it was large before
        (3, 100 + 900, "permanent", True),
    ],
)
async def test_a_job_alone_is_at_fault_when_the_worker_has_grown_meanwhile(
    rig: Rig, deaths: int, rss: int, verdict: str, is_suspect: bool
) -> None:
    rig.transport.steps["prepare"] = for_ever
    rig.take(suspect(1, deaths=deaths))
    await rig.transport.until(lambda: ("prepare", 1) in rig.transport.seen)
    rig.take(job(2, "b"))
    rig.sender.watch_memory(rss)
    rig.sender.watch_memory(100)
    await rig.sender.drain(0.0, memory=1000)
    assert [(o.id, o.verdict, o.suspect) for o in rig.outcomes] == [(2, "returned", False), (1, verdict, is_suspect)]


async def test_one_that_is_alone_because_the_worker_is_careful_is_only_suspect(rig: Rig) -> None:
    rig.sender._gate = StartGate(rig.sender._begin, later=asyncio.get_running_loop().call_soon, careful=True)
    rig.transport.steps["prepare"] = for_ever
    rig.take(suspect(1, deaths=1))
    await rig.transport.until(lambda: ("prepare", 1) in rig.transport.seen)
    rig.sender.watch_memory(1000)
    await rig.sender.drain(0.0, memory=1000)
    assert [(outcome.verdict, outcome.suspect) for outcome in rig.outcomes] == [("returned", True)]


async def test_when_nobody_hears_it_the_journal_knows_what_was_given_back(rig: Rig) -> None:
    rig.transport.steps["prepare"] = for_ever
    rig.take(job(1))
    await rig.transport.until(lambda: ("prepare", 1) in rig.transport.seen)
    await rig.sender.drain(0.0, disconnected=True)
    assert [(outcome.id, outcome.verdict) for outcome in rig.remembered()] == [(1, "returned")]
