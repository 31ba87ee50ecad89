"""The router with a real database and simulated workers, which it only knows through `send`."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from shardd import ipc
from shardd.errors import DatabaseError
from shardd.ipc import JobSpec, Outcome
from shardd.pacing import DevicePace, Pace
from shardd.queue.columns import ARCHIVED
from shardd.queue.cycle import Settlement
from shardd.queue.database import Database
from shardd.queue.devices import Devices
from shardd.queue.job_pass import JobPass
from shardd.queue.jobs import Jobs
from shardd.queue.records import ClaimedJob
from shardd.queue.settle import JobBackoff
from shardd.states import JobState, Verdict
from shardd.supervisor.dispatch import router as router_module
from shardd.supervisor.dispatch.cycle_writer import REDUCED
from shardd.supervisor.dispatch.in_flight import InFlight, PoisonJobs
from shardd.supervisor.dispatch.lost_commits import LostCommits
from shardd.supervisor.dispatch.memory import SentMemory
from shardd.supervisor.dispatch.router import CheckOptOuts, Router
from shardd.supervisor.scheduling.scheduler import Scheduler
from tests.support.queue_rows import add_devices, connect, find_work, insert_jobs, row_of, states, take_epoch
from tests.support.queue_rows import finish as finish_job

RUN = uuid4()
"""The supervisor."""
HANG = 45.0  # seconds; no test waits that long, it only keeps a broken one from hanging


class Workers:
    """Stands where the fleet stands: hears what the router says, and answers each job as `answer` wants, or holds it."""

    def __init__(self) -> None:
        self.router: Router
        self.got: list[JobSpec] = []
        self.held: list[tuple[int, JobSpec]] = []
        self.settled: list[tuple[int, int]] = []
        self.up = True
        self.answer: Callable[[JobSpec], Outcome | None] = outcome
        self.at_settled: Callable[[], None] = lambda: None
        self.news = asyncio.Condition()

    def send(self, shard: int, message: ipc.ToWorker) -> bool:
        if not self.up:
            return False
        if isinstance(message, ipc.SendJob):
            self.got.append(message.job)
            answered = self.answer(message.job)
            if answered is None:
                self.held.append((shard, message.job))
            else:
                asyncio.get_running_loop().call_soon(self.router.outcomes, shard, [answered])
        elif isinstance(message, ipc.Settled):
            self.settled += [(job, attempt) for job, _, attempt, _ in message.claims]
            self.at_settled()
        asyncio.get_running_loop().create_task(self._tell())
        return True

    def end_held(self, verdict: Verdict = Verdict.SENT) -> None:
        held, self.held = self.held, []
        for shard, job in held:
            self.router.outcomes(shard, [outcome(job, verdict)])

    async def until(self, what: Callable[[], Any]) -> None:
        async with asyncio.timeout(HANG), self.news:
            await self.news.wait_for(what)

    async def _tell(self) -> None:
        async with self.news:
            self.news.notify_all()


def outcome(job: JobSpec, verdict: Verdict = Verdict.SENT, **more: Any) -> Outcome:
    more.setdefault("message_id", f"m-{job.id}-{job.attempt}" if verdict is Verdict.SENT else None)
    return Outcome(*job.key, verdict.value, at=time.time(), **more)


async def until(what: Callable[[], Any]) -> None:
    """For what announces itself to nobody."""
    async with asyncio.timeout(HANG):
        while not what():  # noqa: ASYNC110  # there is no event to wait for
            await asyncio.sleep(0.005)


async def nobody_opted_out(_: Sequence[ClaimedJob], __: float) -> set[int]:
    return set()


class Node:
    """A router that runs, its scheduler and its workers, without the watchers: `find_work` is called by hand."""

    def __init__(
        self,
        database: Database,
        pace: Pace | None = None,
        room: int = 1,
        opt_out_check: CheckOptOuts | None = None,
        batch: int = 50,
    ) -> None:
        self.database = database
        self.jobs = Jobs(database)
        self.workers = Workers()
        self.good: Callable[[], bool] = lambda: True
        self.in_flight = InFlight()
        self.state_dir = tempfile.TemporaryDirectory()
        self.memory = SentMemory(Path(self.state_dir.name))
        self.scheduler = Scheduler(
            shard_of=lambda _: 0, pace_of=lambda _: DevicePace(pace or Pace()), in_flight_of=lambda _: room,
            account_of=lambda _: None,
        )  # fmt: skip
        self.router = self.workers.router = Router(
            incarnation=RUN, jobs=self.jobs, scheduler=self.scheduler, in_flight=self.in_flight, poison=PoisonJobs(),
            memory=self.memory, send=self.workers.send,
            may_claim=self._may_claim, batch=lambda: batch, backoff=lambda: JobBackoff(first=5, cap=600),
            opt_out_check=opt_out_check or nobody_opted_out, defect=lambda _: None,
        )  # fmt: skip
        self.task = asyncio.create_task(self.router.run())

    @property
    def totals(self) -> Counter[str]:
        """Outcomes of all shards by verdict."""
        return sum(self.router.shard_totals.values(), Counter())

    def _may_claim(self) -> bool:
        return self.good()

    async def begin(self, epoch: int) -> None:
        devices = await Devices(self.database).all(0)
        self.scheduler.set_devices(devices, time.monotonic(), wall=time.time(), unwritten={})
        self.router.shard_up(0, epoch)
        await self.find_work()

    async def find_work(self) -> None:
        for device, lane, place in await find_work(self.jobs):
            self.scheduler.hint(device, lane, place, time.monotonic())
        self.router.wake()

    async def settled(self) -> None:
        """Until every job that was handed out is settled."""
        async with asyncio.timeout(HANG):
            await self.router.wait_settled(0)

    async def end(self) -> None:
        async with asyncio.timeout(HANG):
            await self.router.stop()
            await self.task


@pytest.fixture
async def epoch(dsn: str, database: Database) -> int:
    add_devices(dsn, "a", "b")
    return await take_epoch(database, incarnation=RUN)


@pytest.fixture
async def node(database: Database, epoch: int) -> AsyncIterator[Node]:
    node = Node(database)
    yield node
    if not node.task.done():
        await node.end()


# ---- two cycles at a time


@contextlib.contextmanager
def locked(dsn: str, job: int) -> Iterator[Callable[[], Any]]:
    """Somebody's transaction holds a job's row; yields what ends it."""
    with psycopg.connect(dsn) as holder:
        holder.execute("SELECT FROM shardd.jobs WHERE id = %s FOR UPDATE", [job])
        yield holder.rollback


async def test_while_one_cycle_waits_for_the_database_another_settles(
    dsn: str, database: Database, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "BESIDE", 5)
    node = Node(database, room=20)
    node.workers.answer = lambda _: None
    first, *others = insert_jobs(dsn, "a", 6)
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.held) == 6)
    with locked(dsn, first) as unlock:
        node.router.outcomes(0, [outcome(job) for _, job in node.workers.held if job.id == first])
        await until(lambda: is_blocked(dsn))
        node.router.outcomes(0, [outcome(job) for _, job in node.workers.held if job.id != first])
        await node.workers.until(lambda: len(node.workers.settled) == 5)
        assert {job for job, _ in node.workers.settled} == set(others)
        unlock()
    await node.settled()
    assert Counter(states(dsn).values()) == {"sent": 6}
    await node.end()


async def test_a_job_that_goes_back_is_claimed_again_though_a_claim_beside_could_not_see_it(
    dsn: str, database: Database, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody scans here, which would find it, too."""
    monkeypatch.setattr(router_module, "BESIDE", 1)
    add_devices(dsn, "c", "d")
    node = Node(database, batch=1)
    node.workers.answer = lambda job: None if job.attempt == 1 else outcome(job)
    back, slow, other = (insert_jobs(dsn, name)[0] for name in ("a", "b", "c"))
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.held) == 3)
    by_id = {job.id: job for _, job in node.workers.held}
    (first,) = insert_jobs(dsn, "d")
    (hint,) = (found for found in await find_work(node.jobs) if found[0] == "d")
    with locked(dsn, slow) as unlock:
        # The cycle that returns it claims only for the device that has waited longer, and waits.
        node.scheduler.hint(*hint, time.monotonic())
        node.router.outcomes(0, [outcome(by_id[back], Verdict.RETURNED), outcome(by_id[slow])])
        await until(lambda: is_blocked(dsn))
        node.router.outcomes(0, [outcome(by_id[other])])
        await node.workers.until(lambda: (other, 1) in node.workers.settled)
        unlock()
    await node.workers.until(lambda: any(job.id == back and job.attempt == 2 for job in node.workers.got))
    node.workers.end_held()
    await node.settled()
    assert row_of(dsn, first)["state"] == "sent"
    await node.end()


async def test_claims_are_compared_with_the_database_only_while_no_cycle_is_under_way(
    dsn: str, database: Database, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose answer is being handed over would be taken for a claim that no worker has."""
    monkeypatch.setattr(router_module, "BESIDE", 1)
    answered, go_on, compared = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slowly(claimed: Sequence[ClaimedJob], _: float) -> set[int]:
        if claimed[0].claim.device_id == "a":
            answered.set()
            await go_on.wait()
        return set()

    node = Node(database, opt_out_check=slowly)
    node.workers.answer = lambda _: None
    live_claims = node.jobs.live_claims

    async def live(*args: Any) -> Any:
        compared.set()
        return await live_claims(*args)

    monkeypatch.setattr(node.jobs, "live_claims", live)
    (other,) = insert_jobs(dsn, "b")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.held)
    (job,) = insert_jobs(dsn, "a")
    with locked(dsn, other) as unlock:
        await node.find_work()
        async with asyncio.timeout(HANG):
            await answered.wait()
        node.workers.end_held()
        await until(lambda: is_blocked(dsn))  # the second of two cycles
        node.router.check_claims(await live_claims([job], RUN), [])
        unlock()
        await node.workers.until(lambda: node.workers.settled)
    for _ in range(50):  # turns of the loop: it would be asked in the first few
        await asyncio.sleep(0)
    assert not compared.is_set()
    go_on.set()
    async with asyncio.timeout(HANG):
        await compared.wait()
    await node.workers.until(lambda: node.workers.held)
    node.workers.end_held()
    await node.settled()
    assert [(each.id, each.attempt) for each in node.workers.got] == [(other, 1), (job, 1)]
    await node.end()


def is_blocked(dsn: str) -> bool:
    """Whether a session of the test's database waits for a lock."""
    with connect(dsn) as connection:
        found = connection.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return found.rowcount > 0


# ---- from the table to the workers and back


async def test_every_job_is_sent_once_in_the_order_of_its_line(dsn: str, node: Node, epoch: int) -> None:
    names = [f"d{number:02d}" for number in range(30)]
    add_devices(dsn, *names)
    scheduler = {name: insert_jobs(dsn, name, 3) + insert_jobs(dsn, name, 3, priority=-1) for name in names}
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.got) == 180)
    await node.settled()
    assert {name: [job.id for job in node.workers.got if job.device_id == name] for name in names} == scheduler
    assert set(states(dsn).values()) == {"sent"}
    assert {row_of(dsn, job)["message_id"] for job in scheduler["d00"]} == {f"m-{job}-1" for job in scheduler["d00"]}
    assert node.router.sent_by(0) == 180


async def test_a_device_has_one_job_in_hand(dsn: str, node: Node, epoch: int) -> None:
    node.workers.answer = lambda _: None
    insert_jobs(dsn, "a", 5)
    insert_jobs(dsn, "b", 5)
    await node.begin(epoch)
    for number in range(1, 6):
        await node.workers.until(lambda: len(node.workers.held) == 2)
        await node.find_work()
        assert Counter(job.device_id for job in node.workers.got) == {"a": number, "b": number}
        assert len(node.router.in_flight(0)) == 2
        node.workers.end_held()
    await node.settled()
    assert set(states(dsn).values()) == {"sent"}


async def test_a_long_line_does_not_hold_up_a_short_one(dsn: str, node: Node, epoch: int) -> None:
    insert_jobs(dsn, "a", 500)
    (short,) = insert_jobs(dsn, "b")
    await node.begin(epoch)
    await node.workers.until(lambda: any(job.id == short for job in node.workers.got))
    assert len(node.workers.got) < 10
    await node.workers.until(lambda: len(node.workers.got) == 501)


async def test_the_worker_hears_that_a_claim_is_settled_only_when_it_is(dsn: str, node: Node, epoch: int) -> None:
    seen: list[set[str]] = []
    (job,) = insert_jobs(dsn, "a")
    node.workers.at_settled = lambda: seen.append(set(states(dsn).values()))
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.settled)
    assert node.workers.settled == [(job, 1)]
    assert seen == [{"sent"}]


@pytest.mark.parametrize(
    ("verdict", "state"),
    [(Verdict.PERMANENT, "failed"), (Verdict.TRANSIENT, "scheduled"), (Verdict.IN_DOUBT, "in_doubt")],
)
async def test_what_a_worker_says_is_written(dsn: str, node: Node, epoch: int, *, verdict: Verdict, state: str) -> None:
    node.workers.answer = lambda job: outcome(job, verdict, error="why")
    (job,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.settled)
    seen = row_of(dsn, job)
    assert (seen["state"], seen["error"], seen["failures"]) == (state, "why", 1)


async def test_jobs_of_a_device_out_of_reach_stay_queued_and_the_device_waits(dsn: str, node: Node, epoch: int) -> None:
    node.workers.answer = lambda job: outcome(job, Verdict.UNAVAILABLE, error="no route", retry_after=3600.0)
    jobs = insert_jobs(dsn, "a", 3)
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.settled)
    await node.find_work()
    await node.settled()
    assert len(node.workers.got) == 1
    assert [row_of(dsn, job)["state"] for job in jobs] == ["queued"] * 3
    assert row_of(dsn, jobs[0])["failures"] == 0


async def test_an_answer_that_no_table_can_hold_stops_nobody(dsn: str, node: Node, epoch: int) -> None:
    node.workers.answer = lambda job: outcome(job, Verdict.PERMANENT, error="bad \0 text")
    jobs = insert_jobs(dsn, "a", 2)
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.settled) == 2)
    assert [row_of(dsn, job)["state"] for job in jobs] == ["failed"] * 2


@pytest.mark.parametrize("stale", [{"attempt": 9}, {"epoch": 999}, {"id": 10**9}, {"token": 9}])
async def test_an_outcome_of_another_claim_is_ignored(dsn: str, node: Node, epoch: int, stale: dict[str, int]) -> None:
    node.workers.answer = lambda _: None
    (job,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.held)
    ((_, held),) = node.workers.held
    node.router.outcomes(0, [msgspec.structs.replace(outcome(held), **stale)])
    node.router.outcomes(5, [outcome(node.workers.got[0])])
    assert len(node.router.in_flight(0)) == 1
    node.workers.end_held(Verdict.PERMANENT)
    node.router.outcomes(0, [outcome(node.workers.got[0])])
    await node.settled()
    assert row_of(dsn, job)["state"] == "failed"
    assert node.totals == {"permanent": 1}


async def test_sends_of_a_paced_device_are_counted_for_the_day(dsn: str, database: Database, epoch: int) -> None:
    node = Node(database, Pace(daily_limit=3))
    insert_jobs(dsn, "a", 9)
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.settled) == 3)
    await node.find_work()
    await node.end()
    assert len(node.workers.got) == 3
    with connect(dsn) as connection:
        assert connection.execute("SELECT device_id, sent FROM shardd.device_days").fetchall() == [("a", 3)]


# ---- opt-outs


async def test_what_nobody_wants_reaches_no_worker(dsn: str, node: Node, epoch: int) -> None:
    unwanted, wanted = insert_jobs(dsn, "a"), insert_jobs(dsn, "a", recipient="+6289999999")
    with connect(dsn) as connection:
        connection.execute(
            "INSERT INTO shardd.opt_outs (address, recipient) SELECT address, recipient FROM shardd.jobs WHERE id = %s",
            unwanted,
        )
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.settled) == 2)
    assert [job.id for job in node.workers.got] == wanted
    assert states(dsn) == {unwanted[0]: "opted_out", wanted[0]: "sent"}


async def test_a_second_look_keeps_back_what_it_finds(dsn: str, database: Database, epoch: int) -> None:
    async def screen(taken: Sequence[ClaimedJob], _: float) -> set[int]:
        return {job.claim.id for job in taken if job.claim.address.endswith("9")}

    node = Node(database, opt_out_check=screen)
    unwanted, wanted = insert_jobs(dsn, "a", recipient="+6289999999"), insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.settled) == 2)
    await node.end()
    assert [job.id for job in node.workers.got] == wanted
    assert row_of(dsn, unwanted[0])["error_class"] == "opted_out"


async def test_while_nobody_can_look_nothing_leaves(dsn: str, database: Database, epoch: int) -> None:
    tries = 0

    async def screen(taken: Sequence[ClaimedJob], _: float) -> set[int]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise DatabaseError("away")
        return set()

    node = Node(database, opt_out_check=screen)
    jobs = insert_jobs(dsn, "a", 2)
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.got) == 2)
    await node.settled()
    await node.end()
    assert [(job.id, job.attempt) for job in node.workers.got] == [(jobs[0], 3), (jobs[1], 1)]
    assert row_of(dsn, jobs[0])["failures"] == 0


# ---- when a shard or a lease is not there


async def test_jobs_for_a_worker_that_is_gone_return_to_their_place(dsn: str, node: Node, epoch: int) -> None:
    node.workers.up = False
    jobs = insert_jobs(dsn, "a", 3)
    await node.begin(epoch)
    await until(lambda: node.totals["returned"])
    node.router.shard_down(0)
    await node.settled()
    assert set(states(dsn).values()) == {"queued"}
    node.workers.up = True
    node.router.shard_up(0, epoch)
    await node.find_work()
    await node.workers.until(lambda: len(node.workers.got) == 3)
    assert [job.id for job in node.workers.got] == jobs
    await node.settled()


async def test_without_good_leases_nothing_is_claimed_and_settling_goes_on(dsn: str, node: Node, epoch: int) -> None:
    node.workers.answer = lambda _: None
    first, second = insert_jobs(dsn, "a", 2)
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.held)
    node.good = lambda: False
    node.workers.end_held()
    await node.find_work()
    await node.settled()
    assert states(dsn) == {first: "sent", second: "queued"}
    node.good = lambda: True
    node.router.wake()
    await node.workers.until(lambda: len(node.workers.got) == 2)


async def test_a_lease_that_ends_while_a_claim_is_under_way_lets_no_job_out(dsn: str, node: Node, epoch: int) -> None:
    (job,) = insert_jobs(dsn, "a")
    ended = False

    def good() -> bool:
        # Until the database has the claim, which is before its answer is read; what has ended does not come back.
        nonlocal ended
        ended = ended or "sending" in states(dsn).values()
        return not ended

    node.good = good
    await node.begin(epoch)
    await until(lambda: node.totals["returned"])
    await node.settled()
    assert node.workers.got == []
    assert row_of(dsn, job)["state"] == "queued"


# ---- its end


async def test_a_claim_whose_answer_comes_under_another_lease_lets_no_job_out(
    dsn: str, database: Database, epoch: int
) -> None:
    """The shard went to another node and came back meanwhile: that node may have returned the job, and sent it."""

    async def come_back(_: Sequence[ClaimedJob], __: float) -> set[int]:
        node.router.shard_up(0, epoch + 1)
        return set()

    node = Node(database, opt_out_check=come_back)
    (job,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await until(lambda: node.totals[Verdict.RETURNED] == 1)
    await node.settled()
    assert node.workers.got == []
    assert (states(dsn)[job], row_of(dsn, job)["failures"]) == ("queued", 0)
    await node.end()


async def test_it_stops_claiming_and_settles_what_is_in_hand(dsn: str, node: Node, epoch: int) -> None:
    node.workers.answer = lambda _: None
    first, second = insert_jobs(dsn, "a", 2)
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.held)
    node.router.stop_claiming()
    node.workers.end_held()
    await node.end()
    assert states(dsn) == {first: "sent", second: "queued"}


async def test_its_end_does_not_wait_for_a_database_that_is_away(
    dsn: str, database: Database, node: Node, epoch: int
) -> None:
    node.workers.answer = lambda _: None
    (job,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.held)
    await database.close()
    node.workers.end_held()
    await node.end()
    assert row_of(dsn, job)["state"] == "sending"


# ---- commits whose answer never came


class Tunnel:
    """Between the router and PostgreSQL: lets everything through, or swallows what the server says, then breaks."""

    def __init__(self, target: str, folder: Path) -> None:
        self.target = target
        self.folder = folder
        self.deaf = False
        self.writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self._serve, self.folder / ".s.PGSQL.5432")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self.target)
        ends = {writer, up_writer}
        self.writers |= ends
        with contextlib.suppress(ConnectionError):
            await asyncio.wait(
                [
                    asyncio.create_task(self._pump(reader, up_writer, lambda: False)),
                    asyncio.create_task(self._pump(up_reader, writer, lambda: self.deaf)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        for end in ends:
            end.close()
        self.writers -= ends

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallow: Callable[[], bool]) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not swallow():
                    writer.write(data)

    def cut(self) -> None:
        self.deaf = False
        for writer in list(self.writers):
            writer.transport.abort()

    async def stop(self) -> None:
        self.server.close()
        self.cut()


@pytest.fixture
async def tunnel(dsn: str, postgres: Any) -> AsyncIterator[Tunnel]:
    with connect(dsn) as connection:
        host, port = connection.info.host, connection.info.port
    folder = Path(tempfile.mkdtemp(prefix="tunnel-", dir="/tmp"))
    tunnel = Tunnel(f"{host}/.s.PGSQL.{port}", folder)
    await tunnel.start()
    yield tunnel
    await tunnel.stop()
    shutil.rmtree(folder)


@pytest.fixture
async def far_node(dsn: str, tunnel: Tunnel, epoch: int) -> AsyncIterator[Node]:
    """A node whose database is at the other end of the tunnel."""
    async with Database(make_conninfo(dsn, host=str(tunnel.folder), port=5432)) as database:
        node = Node(database)
        yield node
        if not node.task.done():
            await node.end()


async def until_state(dsn: str, job: int, state: str) -> None:
    await until(lambda: row_of(dsn, job)["state"] == state)


async def test_a_claim_whose_answer_is_lost_is_found_and_returned(
    dsn: str, tunnel: Tunnel, far_node: Node, epoch: int
) -> None:
    await far_node.begin(epoch)
    (job,) = insert_jobs(dsn, "a")
    await far_node.find_work()
    await far_node.workers.until(lambda: far_node.workers.settled)
    (job,) = insert_jobs(dsn, "a")
    places = await find_work(far_node.jobs)
    tunnel.deaf = True
    for device, lane, place in places:
        far_node.scheduler.hint(device, lane, place, time.monotonic())
    far_node.router.wake()
    await until_state(dsn, job, "sending")
    assert [got.id for got in far_node.workers.got] != [job]
    tunnel.cut()
    await far_node.workers.until(lambda: (job, 2) in far_node.workers.settled)
    assert [(got.id, got.attempt) for got in far_node.workers.got][1:] == [(job, 2)]
    assert row_of(dsn, job)["state"] == "sent"
    assert far_node.router.database_error is None


async def test_other_lanes_are_sent_between_the_pages_of_an_audit(
    dsn: str, tunnel: Tunnel, far_node: Node, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of which an answer is missing wait: a second job may not overtake the first, which may be claimed."""

    async def endless(_: JobPass[Any]) -> list[Any]:
        await asyncio.sleep(0)
        return []

    await far_node.begin(epoch)
    (first, second), (other,) = insert_jobs(dsn, "a", 2), insert_jobs(dsn, "b")
    of_a, of_b = sorted(await find_work(far_node.jobs))
    tunnel.deaf = True
    far_node.scheduler.hint(*of_a, time.monotonic())
    far_node.router.wake()
    await until_state(dsn, first, "sending")
    with monkeypatch.context() as context:
        context.setattr(JobPass, "page", endless)
        tunnel.cut()
        far_node.scheduler.hint(*of_a, time.monotonic())
        far_node.scheduler.hint(*of_b, time.monotonic())
        far_node.router.wake()
        await far_node.workers.until(lambda: (other, 1) in far_node.workers.settled)
    await far_node.workers.until(lambda: (second, 1) in far_node.workers.settled)
    assert [(job.id, job.attempt) for job in far_node.workers.got] == [(other, 1), (first, 2), (second, 1)]


async def test_the_end_of_a_node_that_knows_all_its_claims_reads_no_queue(
    dsn: str, node: Node, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(_: JobPass[Any]) -> None:
        pytest.fail("the queue was read")

    monkeypatch.setattr(JobPass, "page", read)
    insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.settled)
    await node.end()


async def test_a_settle_whose_answer_is_lost_is_repeated_without_harm(
    dsn: str, tunnel: Tunnel, far_node: Node, epoch: int
) -> None:
    far_node.workers.answer = lambda _: None
    (job,) = insert_jobs(dsn, "a")
    await far_node.begin(epoch)
    await far_node.workers.until(lambda: far_node.workers.held)
    tunnel.deaf = True
    far_node.workers.end_held()
    await until_state(dsn, job, "sent")
    assert far_node.workers.settled == []
    seen = row_of(dsn, job)
    tunnel.cut()
    await far_node.workers.until(lambda: far_node.workers.settled)
    assert far_node.workers.settled == [(job, 1)]
    assert row_of(dsn, job) == seen
    with connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM shardd.archive").fetchone() == (1,)


async def test_killed_connections_neither_lose_nor_double_a_message(
    dsn: str, superuser_dsn: str, database: Database, epoch: int
) -> None:
    names = [f"d{number:02d}" for number in range(20)]
    add_devices(dsn, *names)
    for name in names:
        insert_jobs(dsn, name, 15)
    node = Node(database)
    await node.begin(epoch)
    with connect(superuser_dsn) as killer:
        for goal in range(30, 300, 30):
            await node.workers.until(lambda goal=goal: len(node.workers.got) >= goal)
            killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'shardd/test'"
            )
    await node.workers.until(lambda: len(node.workers.got) == 300)
    await node.settled()
    await node.end()
    assert max(Counter(job.id for job in node.workers.got).values()) == 1
    assert Counter(states(dsn).values()) == {"sent": 300}
    order = {name: [job.id for job in node.workers.got if job.device_id == name] for name in names}
    assert all(ids == sorted(ids) for ids in order.values())


async def test_while_the_database_is_away_outcomes_wait(dsn: str, tunnel: Tunnel, far_node: Node, epoch: int) -> None:
    far_node.workers.answer = lambda _: None
    first, second = insert_jobs(dsn, "a")[0], insert_jobs(dsn, "b")[0]
    await far_node.begin(epoch)
    await far_node.workers.until(lambda: len(far_node.workers.held) == 2)
    tunnel.server.close()
    tunnel.cut()
    far_node.workers.end_held()
    await until(lambda: far_node.router.database_error)
    assert far_node.in_flight.unsettled(0) == 2
    assert states(dsn) == {first: "sending", second: "sending"}
    (tunnel.folder / ".s.PGSQL.5432").unlink(missing_ok=True)
    await tunnel.start()
    await far_node.settled()
    assert states(dsn) == {first: "sent", second: "sent"}


# ---- what the database refuses


async def test_an_answer_too_large_for_an_index_is_stored_without_it_and_stops_nobody(
    dsn: str, node: Node, epoch: int
) -> None:
    """A message id of 2000 letters is no text that an index can hold."""
    dice = random.Random(1)
    long = "".join(chr(dice.randrange(0x4E00, 0x9FFF)) for _ in range(2000))
    (first,) = insert_jobs(dsn, "a")
    node.workers.answer = lambda job: outcome(job, message_id=long if job.id == first else f"m-{job.id}")
    others = insert_jobs(dsn, "b", 3)
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.settled) == 4)
    assert set(states(dsn).values()) == {"sent"}
    assert (row_of(dsn, first)["message_id"], row_of(dsn, first)["error"]) == (None, REDUCED)
    assert [row_of(dsn, job)["message_id"] for job in others] == [f"m-{job}" for job in others]
    assert node.router.database_error is None


async def test_a_doubt_of_another_node_ends_with_what_is_known_here(
    dsn: str, database: Database, node: Node, epoch: int
) -> None:
    """One that a worker has ends with its answer, and not before; one that reached no worker is queued again."""
    node.workers.answer = lambda _: None
    (held,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.held)
    (never,) = insert_jobs(dsn, "b")
    jobs = Jobs(database)
    with connect(dsn) as connection:
        connection.execute(
            "UPDATE shardd.jobs SET attempt = 1, claimed_epoch = %s, claimed_at = now() WHERE id = %s", [epoch, never]
        )
    doubted = [
        replace(finish.finishes[0], error_class="node")
        for finish in (finish_job(one, JobState.IN_DOUBT) for one in await jobs.claims_of_incarnation(RUN).rest())
    ]
    await jobs.cycle(Settlement(finishes=doubted), [])
    assert states(dsn) == {held: "in_doubt", never: "in_doubt"}
    doubts = await jobs.find_doubts([], [RUN])
    node.router.check_claims([], [doubt.claim for doubt in doubts])
    await until(lambda: states(dsn)[never] == "queued")
    assert states(dsn)[held] == "in_doubt"
    node.workers.end_held()
    await node.settled()
    await until(lambda: states(dsn)[held] == "sent")
    assert [job.id for job in node.workers.got if job.id == held] == [held]


async def test_a_claim_that_nobody_here_knows_is_returned_and_one_that_is_known_is_not(
    dsn: str, node: Node, epoch: int
) -> None:
    node.workers.answer = lambda _: None
    (held,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.held)
    (hung,) = insert_jobs(dsn, "b")
    with connect(dsn) as connection:
        connection.execute(
            "UPDATE shardd.jobs SET attempt = 1, worker_deaths = 1, claimed_epoch = %s, claimed_at = now() WHERE id = %s",
            [epoch, hung],
        )
    node.router.check_claims(await node.jobs.claims_of_incarnation(RUN).rest(), [])
    await until(lambda: node.router.lost_claims[0] == 1)
    await node.workers.until(lambda: any(job.id == hung for job in node.workers.got))
    assert [(job.id, job.attempt) for job in node.workers.got] == [(held, 1), (hung, 2)]
    assert [job.worker_deaths for job in node.workers.got] == [0, 1], "what is known of a job outlives a lost claim"
    assert states(dsn)[held] == "sending"
    node.workers.end_held()
    await node.settled()
    assert set(states(dsn).values()) == {"sent"}


# ---- a database that forgets commits

KEPT = ", ".join((*ARCHIVED, "failures"))


def forget(superuser_dsn: str, job: int, claimed_epoch: int | None = None) -> None:
    """Undo the settlement of a job, as the loss of its commit does; its claim is lost, too, or is still there."""
    claimed_at = None if claimed_epoch is None else datetime.now(UTC)
    with connect(superuser_dsn) as connection, connection.transaction():
        connection.execute(
            "SET LOCAL session_replication_role = replica"
        )  # no triggers: the row was never inserted again
        connection.execute(
            f"INSERT INTO shardd.jobs (id, {KEPT}, claimed_epoch, claimed_at) OVERRIDING SYSTEM VALUE "
            f"SELECT id, {KEPT}, %s, %s FROM shardd.archive WHERE id = %s",
            [claimed_epoch, claimed_at, job],
        )
        connection.execute("DELETE FROM shardd.archive WHERE id = %s", [job])


def lose_claim(dsn: str, job: int) -> None:
    """Undo the claim of a job in flight."""
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.jobs SET claimed_epoch = NULL, claimed_at = NULL WHERE id = %s", [job])


@pytest.mark.parametrize(
    ("verdict", "on_doubt", "sends", "state"),
    [
        (Verdict.SENT, "hold", 1, "sent"),
        (Verdict.IN_DOUBT, "hold", 1, "in_doubt"),
        (Verdict.IN_DOUBT, "retry", 2, "sent"),
        (Verdict.PERMANENT, "hold", 2, "sent"),
    ],
)
async def test_a_job_whose_settlement_was_lost_is_settled_again_and_not_sent_again(
    dsn: str, superuser_dsn: str, node: Node, epoch: int, *, verdict: Verdict, on_doubt: str, sends: int, state: str
) -> None:
    """Unless its message cannot have left, or it may be sent again."""
    node.workers.answer = lambda job: outcome(job, verdict, message_id="first" if verdict is Verdict.SENT else None)
    (job,) = insert_jobs(dsn, "a", on_doubt=on_doubt, max_attempts=1)
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.settled)
    node.workers.answer = outcome
    forget(superuser_dsn, job)
    await node.find_work()
    await until(lambda: states(dsn) == {job: state})
    assert len(node.workers.got) == sends
    if verdict is Verdict.SENT:
        assert row_of(dsn, job)["message_id"] == "first"
    assert node.totals[Verdict.SENT] == (state == "sent")
    assert bool(node.memory.notes()) == (sends == 1)


async def test_a_claim_whose_settlement_was_lost_is_settled_again_and_not_returned(
    dsn: str, superuser_dsn: str, node: Node, epoch: int
) -> None:
    (job,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.settled)
    forget(superuser_dsn, job, epoch)
    node.router.check_claims(await node.jobs.claims_of_incarnation(RUN).rest(), [])
    await until(lambda: states(dsn) == {job: "sent"})
    assert [one.id for one in node.workers.got] == [job]
    assert node.router.lost_claims[0] == 0


async def test_a_job_of_the_same_id_is_another_job(dsn: str, superuser_dsn: str, node: Node, epoch: int) -> None:
    (job,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.settled)
    with connect(superuser_dsn) as connection:
        connection.execute("UPDATE shardd.archive SET token = token + 1 WHERE id = %s", [job])
    forget(superuser_dsn, job)
    await node.find_work()
    await until(lambda: states(dsn) == {job: "sent"})
    assert [one.id for one in node.workers.got] == [job, job]


@pytest.mark.parametrize("verdict", [Verdict.SENT, Verdict.PERMANENT, Verdict.RETURNED])
async def test_a_job_in_flight_whose_claim_was_lost_reaches_no_second_worker(
    dsn: str, database: Database, epoch: int, verdict: Verdict
) -> None:
    """Where a device may have several in flight: the second claim ends as the first does."""
    node = Node(database, room=3)
    node.workers.answer = lambda _: None
    (job,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.held)
    lose_claim(dsn, job)
    await node.find_work()
    await until(lambda: node.in_flight.unsettled(0) == 2)
    assert states(dsn) == {job: "sending"}
    node.router.check_claims(await node.jobs.claims_of_incarnation(RUN).rest(), [])
    node.workers.answer = outcome
    node.workers.end_held(verdict)
    await node.settled()
    await until(lambda: set(states(dsn).values()) <= {"sent", "failed"})
    assert len(node.workers.got) == (2 if verdict is Verdict.RETURNED else 1)
    assert node.router.lost_claims[0] == 0
    await node.end()


async def test_what_was_sent_is_settled_again_at_once_after_a_failover_whoever_has_claimed_it(
    dsn: str, superuser_dsn: str, node: Node, epoch: int
) -> None:
    node.workers.answer = lambda job: outcome(job, Verdict.SENT if job.device_id == "a" else Verdict.IN_DOUBT)
    queued, claimed = insert_jobs(dsn, "a", 2)
    doubt, risked = *insert_jobs(dsn, "b"), *insert_jobs(dsn, "b", on_doubt="retry", max_attempts=1)
    await node.begin(epoch)
    await node.workers.until(lambda: len(node.workers.settled) == 4)
    node.router.stop_claiming()
    for job in (queued, doubt, risked):
        forget(superuser_dsn, job)
    forget(superuser_dsn, claimed, epoch + 1)
    with connect(superuser_dsn) as connection:
        connection.execute("DELETE FROM shardd.device_days")
    lost = LostCommits(node.jobs, node.memory, node.in_flight, lambda _: UTC)
    await lost.settle_again()
    assert states(dsn) == {queued: "sent", claimed: "sent", doubt: "in_doubt", risked: "queued"}
    assert row_of(dsn, queued)["message_id"] == f"m-{queued}-1"
    with connect(dsn) as connection:
        assert dict(connection.execute("SELECT device_id, sent FROM shardd.device_days").fetchall()) == {"a": 2, "b": 1}
    await lost.settle_again()
    assert "what became of 3 jobs" in node.memory.notes()[0]


async def test_a_job_in_flight_is_left_to_its_worker(dsn: str, node: Node, epoch: int) -> None:
    """It may have been in doubt before."""
    node.workers.answer = lambda _: None
    (job,) = insert_jobs(dsn, "a")
    await node.begin(epoch)
    await node.workers.until(lambda: node.workers.held)
    ((_, spec),) = node.workers.held
    node.memory.note(outcome(spec, Verdict.IN_DOUBT))
    await LostCommits(node.jobs, node.memory, node.in_flight, lambda _: UTC).settle_again()
    assert states(dsn) == {job: "sending"}
    node.workers.end_held()
    await node.settled()
    assert states(dsn) == {job: "sent"}
