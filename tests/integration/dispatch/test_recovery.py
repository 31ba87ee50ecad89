"""Recovery after a crash, with real journals and a real database: the result of each open claim."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from shardd import __version__
from shardd.errors import DatabaseError, JournalError
from shardd.ipc import Outcome
from shardd.journal import Journal, journal_path
from shardd.journal_lines import header_line, read_header
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.queue.leases import Leases
from shardd.queue.settle import Claim, JobBackoff
from shardd.states import Verdict
from shardd.supervisor.dispatch import recovery, verdicts
from shardd.supervisor.dispatch.in_flight import PoisonJobs
from shardd.supervisor.dispatch.memory import SentMemory
from shardd.supervisor.dispatch.recovery import Recovery
from tests.support.queue_rows import (
    add_devices,
    claim,
    connect,
    finish,
    identity,
    insert_jobs,
    memory_of,
    row_of,
    states,
    take_epoch,
)

STATE = "0" * 32
HANG = 30.0  # seconds; no test waits that long, it only keeps a broken one from hanging
BACKOFF = JobBackoff(first=5, cap=600)
GRACE = 60.0
EARLIER = uuid4()
"""The earlier supervisor of node-a."""

# A worker that holds its journal, says so, and writes the outcome of the claim argv[2] when its input ends.
HOLDER = """
import sys
from pathlib import Path
from shardd.ipc import Outcome
from shardd.journal import Journal
from shardd.journal_lines import header_line, read_header
book = Journal.open(Path(sys.argv[1]), state="0" * 32, shard=0)
book.begin()
claim = tuple(map(int, sys.argv[2].split(",")))
book.started(claim)
print("held", flush=True)
sys.stdin.read()
book.outcome(Outcome(*claim, "sent", message_id="late"))
"""


@pytest.fixture
def jobs(database: Database) -> Jobs:
    return Jobs(database)


@pytest.fixture
async def epoch(dsn: str, database: Database) -> int:
    """Of the earlier run of node-a, for shard 0."""
    add_devices(dsn, "a", "b")
    return await take_epoch(database, incarnation=EARLIER)


async def start_again(database: Database, node: str = "node-a") -> None:
    """The node's next supervisor has registered."""
    memory = memory_of(database, node)
    leases = Leases(database, node=identity(node), incarnation=uuid4(), ttl=600.0, memory=memory)
    await leases.register(8, __version__)
    await leases.release_earlier()


def make_recovery(
    tmp_path: Path,
    database: Database,
    node: str = "node-a",
    poison: PoisonJobs | None = None,
) -> Recovery:
    return Recovery(
        tmp_path, STATE, Jobs(database), incarnation=uuid4(), earlier=[EARLIER] if node == "node-a" else [], shards=8,
        backoff=lambda: BACKOFF, grace=GRACE, zone_of=lambda _: UTC, poison=poison or PoisonJobs(),
        memory=SentMemory(tmp_path),
    )  # fmt: skip


async def recovered(tmp_path: Path, database: Database, node: str = "node-a") -> Recovery:
    await start_again(database, node)
    async with asyncio.timeout(HANG):
        recovery = make_recovery(tmp_path, database, node)
        await recovery.run()
        return recovery


def write_journal(tmp_path: Path, *entries: Outcome | Claim, shard: int = 0, fsync: bool = False) -> Path:
    """As a worker leaves it that dies: claims are started, outcomes known."""
    path = journal_path(tmp_path, shard)
    journal = Journal.open(path, state=STATE, shard=shard, fsync=fsync)
    journal.begin()
    for entry in entries:
        if isinstance(entry, Outcome):
            journal.started(entry.key)
            journal.outcome(entry)
        else:
            journal.started(entry.key)
    journal.close()
    return path


def power_loss(path: Path) -> None:
    """The next boot has another name."""
    mark, header, rest = path.read_bytes().split(b"\n", 2)
    before = read_header(mark + b"\n" + header + b"\n")
    assert before is not None
    after = msgspec.structs.replace(before, boot="5e6c0ffe-0000-4000-8000-000000000000")
    path.write_bytes(mark + b"\n" + header_line(header.split(b" ")[1], after) + rest)


def known(its_claim: Claim, verdict: Verdict = Verdict.SENT, **more: Any) -> Outcome:
    return Outcome(*its_claim.key, verdict.value, **more)


async def in_flight(dsn: str, jobs: Jobs, epoch: int, count: int = 1, **fields: Any) -> list[Claim]:
    """What the earlier run had claimed."""
    insert_jobs(dsn, "a", count, **fields)
    return await claim(jobs, epoch, "a", room=count)


# ---- the journal decides


async def test_what_was_never_started_goes_back(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    (lost,) = await in_flight(dsn, jobs, epoch)
    write_journal(tmp_path)
    await recovered(tmp_path, database)
    seen = row_of(dsn, lost.id)
    assert (seen["state"], seen["failures"], seen["attempt"]) == ("queued", 0, 1)


async def test_what_was_being_prepared_goes_back_as_a_suspect_and_ends_after_very_many_deaths(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    claims = await in_flight(dsn, jobs, epoch, 3)
    with connect(dsn) as connection:
        for its_claim, deaths in zip(claims, (0, 5, 9), strict=True):
            connection.execute("UPDATE shardd.jobs SET worker_deaths = %s WHERE id = %s", (deaths, its_claim.id))
    journal = Journal.open(journal_path(tmp_path, 0), state=STATE, shard=0)
    journal.begin()
    for its_claim in claims:
        journal.preparing(its_claim.key, alone=True)
    journal.close()
    await start_again(database)
    poison = PoisonJobs()
    await make_recovery(tmp_path, database, poison=poison).run()
    with connect(dsn) as connection:
        rows = connection.execute("SELECT id, worker_deaths, failures FROM shardd.jobs ORDER BY id").fetchall()
    assert rows == [(claims[0].id, 1, 0), (claims[1].id, 6, 0)]
    ended = row_of(dsn, claims[2].id)
    assert (ended["state"], ended["error_class"]) == ("failed", "worker")
    assert ended["error"].startswith("10 workers died while they prepared it; the last: its worker died")
    (problem,) = poison.problems()
    assert f"job {claims[2].id} of device a: {ended['error']}" in problem.text


async def test_what_was_started_is_in_doubt(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    held, retried = [*await in_flight(dsn, jobs, epoch), *await in_flight(dsn, jobs, epoch, on_doubt="retry")]
    write_journal(tmp_path, held, retried)
    await recovered(tmp_path, database)
    assert row_of(dsn, held.id)["state"] == "in_doubt"
    assert row_of(dsn, held.id)["error"] == verdicts.DIED
    assert row_of(dsn, retried.id)["state"] == "scheduled"


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Verdict.SENT, "sent"),
        (Verdict.PERMANENT, "failed"),
        (Verdict.TRANSIENT, "scheduled"),
        (Verdict.UNAVAILABLE, "queued"),
        (Verdict.RETURNED, "queued"),
        (Verdict.IN_DOUBT, "in_doubt"),
    ],
)
async def test_what_is_known_is_settled(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path, *, verdict: Verdict, state: str
) -> None:
    (its_claim,) = await in_flight(dsn, jobs, epoch)
    write_journal(tmp_path, known(its_claim, verdict, message_id="3EB0", error="as the journal says"))
    await recovered(tmp_path, database)
    seen = row_of(dsn, its_claim.id)
    assert (seen["state"], seen["error"]) == (state, "as the journal says")
    assert seen["message_id"] == ("3EB0" if seen["settled_at"] else None)


async def test_all_cases_at_once_and_twice(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    never, started, sent = await in_flight(dsn, jobs, epoch, 3)
    untouched = insert_jobs(dsn, "b", 2)
    path = write_journal(tmp_path, started, known(sent))
    wanted = {never.id: "queued", started.id: "in_doubt", sent.id: "sent", **dict.fromkeys(untouched, "queued")}
    await recovered(tmp_path, database)
    assert states(dsn) == wanted
    journal = Journal.open(path, state=STATE, shard=0)
    record = journal.read()
    journal.close()
    assert (record.started, record.outcomes, record.complete) == (set(), {}, True)
    await recovered(tmp_path, database)
    assert states(dsn) == wanted


@pytest.mark.parametrize(
    ("verdict", "state"), [(Verdict.TRANSIENT, "queued"), (Verdict.SENT, "sent"), (Verdict.IN_DOUBT, "in_doubt")]
)
async def test_an_entry_of_an_earlier_claim_counts_only_if_its_message_may_have_left(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path, *, verdict: Verdict, state: str
) -> None:
    """Then the database has lost a commit: the row would otherwise not be claimed again."""
    (first,) = await in_flight(dsn, jobs, epoch)
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.jobs SET claimed_epoch = NULL")
    (second,) = await claim(jobs, epoch, "a")
    write_journal(tmp_path, known(first, verdict))
    await recovered(tmp_path, database)
    assert (second.id, row_of(dsn, second.id)["state"]) == (first.id, state)


async def test_what_an_earlier_run_settled_is_settled_again_if_the_database_has_lost_it(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    """The journal has forgotten it, and would prove that it was never started."""
    sent, doubt, other = await in_flight(dsn, jobs, epoch, 3)
    memory = SentMemory(tmp_path)
    memory.note(known(sent, message_id="3EB0", at=time.time()))
    memory.note(known(doubt, Verdict.IN_DOUBT, at=time.time()))
    memory.write()
    write_journal(tmp_path)
    await recovered(tmp_path, database)
    assert states(dsn) == {sent.id: "sent", doubt.id: "in_doubt", other.id: "queued"}
    assert row_of(dsn, sent.id)["message_id"] == "3EB0"


async def test_an_entry_speaks_of_no_row_that_got_the_same_id_after_a_restore(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    (before,) = await in_flight(dsn, jobs, epoch)
    write_journal(tmp_path, known(before))
    with connect(dsn) as connection:
        connection.execute("DELETE FROM shardd.jobs")
        connection.execute(
            "INSERT INTO shardd.jobs (id, device_id, recipient, body) OVERRIDING SYSTEM VALUE "
            "VALUES (%s, 'a', '+6281234567', 'x')",
            [before.id],
        )
    (after,) = await claim(jobs, epoch, "a")
    assert after.key[:3] == before.key[:3]
    await recovered(tmp_path, database)
    assert row_of(dsn, after.id)["state"] == "queued"


# ---- journals that cannot be trusted


async def test_after_a_loss_of_power_only_what_is_written_is_believed(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    silent, started, sent = await in_flight(dsn, jobs, epoch, 3)
    power_loss(write_journal(tmp_path, started, known(sent)))
    await recovered(tmp_path, database)
    assert states(dsn) == {silent.id: "in_doubt", started.id: "in_doubt", sent.id: "sent"}
    assert row_of(dsn, silent.id)["error"] == verdicts.LOST


async def test_a_flushed_journal_survives_a_loss_of_power(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    silent, started = await in_flight(dsn, jobs, epoch, 2)
    power_loss(write_journal(tmp_path, started, fsync=True))
    await recovered(tmp_path, database)
    assert states(dsn) == {silent.id: "queued", started.id: "in_doubt"}


@pytest.mark.parametrize("left", [None, b"", b"\0" * 100])
async def test_a_lost_journal_leaves_doubts_and_no_second_message(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path, *, left: bytes | None
) -> None:
    (silent,) = await in_flight(dsn, jobs, epoch)
    if left is not None:
        journal_path(tmp_path, 0).parent.mkdir(0o700)
        journal_path(tmp_path, 0).write_bytes(left)
    await recovered(tmp_path, database)
    seen = row_of(dsn, silent.id)
    assert (seen["state"], seen["error"]) == ("in_doubt", verdicts.LOST)


async def test_a_damaged_journal_casts_doubt_on_its_own_shard_only(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    other = await take_epoch_of_same_run(database)
    (here,) = await in_flight(dsn, jobs, epoch)
    insert_jobs(dsn, "b")
    (there,) = await claim(jobs, other, "b")
    path = write_journal(tmp_path)
    path.write_bytes(path.read_bytes() + b"\0" * 20 + b"\n")
    write_journal(tmp_path, shard=1)
    await recovered(tmp_path, database)
    assert states(dsn) == {here.id: "in_doubt", there.id: "queued"}


async def take_epoch_of_same_run(database: Database) -> int:
    """The lease of shard 1 of the incarnation that has this epoch."""
    memory = memory_of(database, "node-a")
    leases = Leases(database, node=identity("node-a"), incarnation=EARLIER, ttl=600.0, memory=memory)
    await leases.register(8, __version__)
    taken = await leases.take(1)
    assert taken is not None
    return taken


async def test_a_database_that_fails_leaves_the_journals_as_they_are(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    started, sent = await in_flight(dsn, jobs, epoch, 2)
    path = write_journal(tmp_path, started, known(sent))
    before = path.read_bytes()
    with connect(dsn) as connection:
        connection.execute("ALTER TABLE shardd.archive RENAME TO elsewhere")
        with pytest.raises(DatabaseError):
            await recovered(tmp_path, database)
        connection.execute("ALTER TABLE shardd.elsewhere RENAME TO archive")
    assert path.read_bytes() == before
    await recovered(tmp_path, database)
    assert states(dsn) == {started.id: "in_doubt", sent.id: "sent"}


# ---- journals that cannot be opened


async def test_a_journal_that_cannot_be_opened_blocks_its_shard_until_it_can(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    other = await take_epoch_of_same_run(database)
    never, started = await in_flight(dsn, jobs, epoch, 2)
    insert_jobs(dsn, "b")
    (there,) = await claim(jobs, other, "b")
    path = write_journal(tmp_path, started)
    write_journal(tmp_path, known(there), shard=1)
    aside = path.rename(path.with_suffix(".aside"))
    path.symlink_to(tmp_path / "victim")
    recovery = await recovered(tmp_path, database)
    waiting = {never.id: "sending", started.id: "sending", there.id: "sent"}
    assert states(dsn) == waiting
    assert recovery.blocked == {0: f"{path} is a symbolic link, and shardd follows none here: remove it"}
    (problem,) = recovery.problems()
    assert problem.text.startswith("jobs that an earlier run of shard 0 left cannot be settled, and no worker starts: ")
    assert await recovery.retry() == set()
    # The sweep for lost nodes leaves alone what may still be known.
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.leases SET expires_at = now()")
        connection.execute("UPDATE shardd.nodes SET seen_at = now() - interval '1 hour'")
    assert (await recovery.settle_lost_nodes(), states(dsn)) == (0, waiting)
    path.unlink()
    aside.rename(path)
    assert await recovery.retry() == {0}
    assert states(dsn) == {never.id: "queued", started.id: "in_doubt", there.id: "sent"}
    assert (recovery.blocked, list(recovery.problems()), recovery.notes) == ({}, [], [])
    assert await recovery.retry() == set()


async def test_a_journal_folder_that_is_a_link_blocks_every_shard(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    (its_claim,) = await in_flight(dsn, jobs, epoch)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "journal").symlink_to(tmp_path / "elsewhere")
    recovery = await recovered(tmp_path, database)
    assert set(recovery.blocked) == set(range(8))
    (problem,) = recovery.problems()
    assert "/journal is not a folder: move it away" in problem.text
    assert states(dsn) == {its_claim.id: "sending"}
    (tmp_path / "journal").unlink()
    assert await recovery.retry() == set(range(8))
    assert states(dsn) == {its_claim.id: "in_doubt"}


async def test_what_a_damaged_journal_could_not_tell_is_noted(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    await in_flight(dsn, jobs, epoch, 2)
    path = write_journal(tmp_path)
    path.write_bytes(b"\xff" + path.read_bytes()[1:])
    recovery = await recovered(tmp_path, database)
    assert set(states(dsn).values()) == {"in_doubt"}
    (note,) = recovery.notes
    assert note.startswith(
        "2 jobs are in doubt, because the journal of shard 0 cannot prove whether they were handed over: its mark "
    )


# ---- workers that outlive their supervisor


@asynccontextmanager
async def holder(path: Path, its_claim: Claim, *argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(path), ",".join(map(str, its_claim.key)), *argv,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(HANG):
            assert await process.stdout.readline() == b"held\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_worker_that_still_finishes_is_waited_for(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    (its_claim,) = await in_flight(dsn, jobs, epoch)
    async with holder(journal_path(tmp_path, 0), its_claim) as worker:
        recovery_task = asyncio.create_task(recovered(tmp_path, database))
        done, _ = await asyncio.wait([recovery_task], timeout=0.3)
        assert not done
        assert worker.stdin is not None
        worker.stdin.close()
        await recovery_task
    seen = row_of(dsn, its_claim.id)
    assert (seen["state"], seen["message_id"]) == ("sent", "late")


async def test_a_worker_that_does_not_end_is_killed(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "ORPHAN_WAIT", 0.2)
    (its_claim,) = await in_flight(dsn, jobs, epoch)
    async with holder(journal_path(tmp_path, 0), its_claim, "shardd.worker") as worker:
        await recovered(tmp_path, database)
        async with asyncio.timeout(HANG):
            assert await worker.wait() == -9
    assert row_of(dsn, its_claim.id)["state"] == "in_doubt"


async def test_a_stranger_that_holds_a_journal_is_not_killed(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "ORPHAN_WAIT", 0.2)
    (its_claim,) = await in_flight(dsn, jobs, epoch)
    async with holder(journal_path(tmp_path, 0), its_claim) as stranger:
        with pytest.raises(JournalError, match=rf"held by another process \(pid {stranger.pid}\)"):
            await recovered(tmp_path, database)
        assert stranger.returncode is None
    assert row_of(dsn, its_claim.id)["state"] == "sending"


# ---- several nodes


async def test_the_claims_of_another_node_are_left_alone(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    (theirs,) = await in_flight(dsn, jobs, epoch)
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.leases SET expires_at = now()")
    await recovered(tmp_path, database, "node-b")
    assert row_of(dsn, theirs.id)["state"] == "sending"


async def test_a_living_node_settles_its_own_claims(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    other = make_recovery(tmp_path, database, "node-b")
    (its_claim,) = await in_flight(dsn, jobs, epoch)
    assert await other.settle_lost_nodes() == 0
    with connect(dsn) as connection:
        # Its lease has run out, but it was seen within the grace: it may come back with the answer.
        connection.execute("UPDATE shardd.leases SET expires_at = now()")
    assert await other.settle_lost_nodes() == 0
    assert row_of(dsn, its_claim.id)["state"] == "sending"


async def test_what_a_lost_node_had_in_hand_is_in_doubt_until_its_journal_is_back(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    sent, failed, started, silent = await in_flight(dsn, jobs, epoch, 4)
    write_journal(tmp_path, known(sent, message_id="3EB0"), known(failed, Verdict.PERMANENT), started)
    with connect(dsn) as connection:
        connection.execute("UPDATE shardd.leases SET expires_at = now()")
        connection.execute("UPDATE shardd.nodes SET seen_at = now() - interval '1 hour'")
    assert await make_recovery(tmp_path / "b", database, "node-b").settle_lost_nodes() == 4
    assert set(states(dsn).values()) == {"in_doubt"}
    assert row_of(dsn, sent.id)["error"] == "node node-a was lost while this was in flight"
    assert await make_recovery(tmp_path / "b", database, "node-b").settle_lost_nodes() == 0
    await recovered(tmp_path, database)
    resolved = {sent.id: "sent", failed.id: "failed", started.id: "in_doubt", silent.id: "queued"}
    assert states(dsn) == resolved
    assert row_of(dsn, sent.id)["message_id"] == "3EB0"
    assert (row_of(dsn, silent.id)["failures"], row_of(dsn, started.id)["error"]) == (0, verdicts.DIED)
    # The journal is empty now, which proves nothing of what it knew before.
    await recovered(tmp_path, database)
    assert states(dsn) == resolved


async def test_a_lease_that_another_node_wants_does_not_hide_claims(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    """The earlier run's lease is still good, and its next supervisor will not take that shard again."""
    (its_claim,) = await in_flight(dsn, jobs, epoch)
    write_journal(tmp_path, known(its_claim))
    await recovered(tmp_path, database)
    assert row_of(dsn, its_claim.id)["state"] == "sent"


async def test_nothing_left_behind_is_nothing_to_do(
    dsn: str, database: Database, jobs: Jobs, epoch: int, tmp_path: Path
) -> None:
    (its_claim,) = await in_flight(dsn, jobs, epoch)
    await jobs.cycle(finish(its_claim), [])
    await recovered(tmp_path / "new", database)
    assert states(dsn) == {its_claim.id: "sent"}
