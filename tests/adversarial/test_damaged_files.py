"""Journals and spools that are damaged between a crash and the next start.

No start fails, nothing is sent twice, nothing that was never handed over is called sent, and what is unknown is in doubt. The
first tests hold what is read from damaged files against what really happened, 10,000 times; the last one damages the files of a
real daemon and counts the deliveries. A longer run, with new damages each time:

    SHARDD_DAMAGES=1000000 SHARDD_DAMAGED_STARTS=200 SHARDD_SEED=$RANDOM ./scripts/test tests/adversarial/test_damaged_files.py
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shardd import journal as journal_module
from shardd.incoming import Incoming
from shardd.incoming_spool import IncomingSpool
from shardd.ipc import ClaimKey, Outcome
from shardd.journal import Journal
from shardd.queue.settle import Claim
from shardd.states import Verdict
from shardd.supervisor.dispatch.verdicts import NODE_DIED, verdicts
from tests.acceptance.test_promise import check
from tests.adversarial.damage import Damager, load, store
from tests.support.daemon import Daemon, Producer

DAMAGES = int(os.environ.get("SHARDD_DAMAGES", "10000"))
STARTS = int(os.environ.get("SHARDD_DAMAGED_STARTS", "4"))
SEED = os.environ.get("SHARDD_SEED", "1")
PER_RUN = 20
"""Damages of the same files."""
STATE = "5" * 32
ENDS = (Verdict.SENT, Verdict.SENT, Verdict.PERMANENT, Verdict.TRANSIENT, Verdict.IN_DOUBT)


# ---- one worker, simulated, with a real journal


@dataclass
class Truth:
    """What really became of a claim."""

    prepared: bool = False
    left: bool = False
    """It was handed over."""
    outcome: Outcome | None = None


@dataclass
class Shard:
    """A worker that dies in the midst of its work, and what it did."""

    path: Path
    number: int
    truths: dict[ClaimKey, Truth] = field(default_factory=dict)
    """Of the claims that are not settled."""
    dying: ClaimKey | None = None
    """The claim of which it wrote when it died."""
    torn: bool = False
    """It wrote only a part."""

    def live(self, chance: random.Random) -> None:
        """Work for a while, then die, perhaps within a write."""
        self.path.parent.parent.mkdir(0o700, exist_ok=True)
        journal = Journal.open(self.path, state=STATE, shard=self.number)
        try:
            journal.begin()
            job = 0
            for _ in range(chance.randint(0, 60)):
                step = chance.random()
                if step < 0.35 or not self.truths:
                    job += 1
                    key = (self.number * 1000 + job, 7 + self.number, chance.randint(1, 3), chance.getrandbits(63))
                    self.truths[key] = Truth()
                elif step < 0.85:
                    self._go_on(journal, chance.choice(sorted(self.truths)), chance)
                else:
                    self._settle(journal, chance)
            self._die_in_a_write(journal, chance)
        finally:
            journal.close()

    def _go_on(self, journal: Journal, key: ClaimKey, chance: random.Random) -> None:
        truth = self.truths[key]
        if not truth.prepared:
            journal.preparing(key, alone=chance.random() < 0.1)
            truth.prepared = True
        elif not truth.left:
            journal.started(key)
            truth.left = True
        elif truth.outcome is None:
            truth.outcome = Outcome(*key, chance.choice(ENDS).value, message_id=f"m{key[0]}", at=1.5)
            journal.outcome(truth.outcome)

    def _settle(self, journal: Journal, chance: random.Random) -> None:
        ended = [key for key, truth in self.truths.items() if truth.outcome is not None or not truth.left]
        gone = chance.sample(ended, chance.randint(0, len(ended)))
        journal.settled(gone)
        for key in gone:
            del self.truths[key]

    def _die_in_a_write(self, journal: Journal, chance: random.Random) -> None:
        waiting = [key for key, truth in self.truths.items() if not truth.left]
        if not waiting or chance.random() < 0.8:
            return
        self.dying = chance.choice(waiting)
        before = self.path.read_bytes()
        journal.started(self.dying)
        line = self.path.read_bytes()[len(before) :]
        # Not acted upon: the mark is written behind the line.
        written = line[: chance.randint(1, len(line))]
        self.torn = written != line
        self.path.write_bytes(before + written)

    def judge(self) -> dict[ClaimKey, Outcome]:
        """What a start would make of the file as it is now. Whatever it raises is a failed start."""
        journal = Journal.open(self.path, state=STATE, shard=self.number)
        try:
            claims = [Claim(*key, "d1", 0, 5, "hold") for key in self.truths]
            found = verdicts(claims, journal.read(), NODE_DIED)
            return dict(zip(self.truths, found, strict=True))
        finally:
            journal.close()

    def check(self, found: dict[ClaimKey, Outcome], how: str) -> Counter[str]:
        """Hold the verdicts against what happened."""
        for key, outcome in found.items():
            truth = self.truths[key]
            match Verdict(outcome.verdict):
                case Verdict.RETURNED:
                    assert not truth.left, f"{key} would be sent twice: {how}"
                case Verdict.IN_DOUBT:
                    pass
                case _:
                    assert outcome == truth.outcome, f"{key} is called {outcome.verdict}: {how}"
        return Counter(outcome.verdict for outcome in found.values())


@pytest.mark.timeout(60 + DAMAGES // 50)
def test_damaged_journals_never_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    known = 0
    for run in range(DAMAGES // PER_RUN):
        chance = random.Random(f"{SEED}-{run}")
        # Compactions and cuts happen, too.
        monkeypatch.setattr(journal_module, "COMPACT_ABOVE", chance.choice((600, 1 << 20)))
        monkeypatch.setattr(journal_module, "CUT_ABOVE", chance.choice((0, 1 << 20)))
        shards = [Shard(tmp_path / str(run) / "journal" / f"shard-{number:03d}.journal", number) for number in (0, 1)]
        for shard in shards:
            shard.live(chance)
        whole = load(*(shard.path for shard in shards))
        for shard in shards:
            known += sum(shard.check(shard.judge(), f"undamaged, run {run}").values())
        for number in range(PER_RUN):
            damager = Damager(f"{SEED}-{run}-{number}")
            store(damager.damage(whole))
            how = f"seed {SEED}-{run}-{number}: {damager.done}"
            for shard in shards:
                seen += shard.check(shard.judge(), how)
            store(whole)
        shutil.rmtree(tmp_path / str(run))
    # It is no proof of anything if nothing is ever known, or nothing ever doubted.
    assert min(seen[verdict] for verdict in ("sent", "permanent", "transient", "returned", "in_doubt")) > DAMAGES // 10


def test_undamaged_journals_know_everything(tmp_path: Path) -> None:
    for run in range(200):
        chance = random.Random(f"{SEED}-{run}")
        shard = Shard(tmp_path / str(run) / "journal" / "shard-000.journal", 0)
        shard.live(chance)
        for key, outcome in shard.judge().items():
            truth = shard.truths[key]
            if truth.outcome is not None:
                assert outcome == truth.outcome
            elif truth.left or shard.torn or key == shard.dying:
                assert outcome.verdict == "in_doubt"
            else:
                assert outcome.verdict == "returned"


# ---- the spool of incoming messages


@pytest.mark.timeout(60 + DAMAGES // 50)
def test_a_damaged_file_costs_one_message_opts_nobody_else_out_and_is_set_aside(tmp_path: Path) -> None:
    lost = 0
    for number in range(DAMAGES // 4):
        chance = random.Random(f"{SEED}-{number}")
        folder = tmp_path / str(number)
        folder.mkdir(0o700)
        spool = IncomingSpool(folder)
        phones = [f"+49151{chance.randrange(10**7):07d}" for _ in range(chance.randint(1, 4))]
        heard = [
            Incoming(device_id="d1", message_id=f"A{n}", addresses=(phone,), text="Stopp ☝", at=5.5, opt_out=True)
            for n, phone in enumerate(phones)
        ]
        names = [spool.keep(message) for message in heard]
        file = spool.folder / names[0]
        damager = Damager(f"{SEED}-{number}")
        store(damager.damage(load(file)))
        if file.exists():
            os.utime(file, (1, 1))
        after = IncomingSpool(folder)
        found = [after.read(name) for name in names]
        how = f"seed {SEED}-{number}: {damager.done}"
        assert found[1:] == heard[1:], how
        assert found[0] in (heard[0], None), how
        if found[0] is None:
            gone = not list(after.damaged())
            assert not file.exists(), how
            assert gone or [path.name for path in after.damaged()] == [f"{names[0]}.damaged"], how
            lost += 1
        shutil.rmtree(folder)
    assert lost > DAMAGES // 20


# ---- a daemon


@pytest.mark.timeout(120 + 60 * STARTS)
async def test_a_daemon_starts_on_damaged_files_and_sends_nothing_twice(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    devices, per_start = 60, 600
    daemon = make_daemon(
        shards=4,
        transports={"sandbox": {"latency_min": "5ms", "latency_max": "100ms", "connect_for": "20ms"}},
    )
    producer.add_devices(devices)
    await daemon.start()
    for number in range(STARTS):
        producer.add_jobs(per_start, devices)
        goal = len(daemon.messages()) + per_start // 3
        await daemon.until(lambda _, goal=goal: len(daemon.messages()) >= goal)  # type: ignore[misc]
        workers = daemon.worker_pids()
        daemon.kill(signal.SIGSTOP)
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        daemon.kill(signal.SIGKILL)
        await daemon.wait_end()
        chance, damager = random.Random(f"{SEED}-{number}"), Damager(f"{SEED}-{number}")
        files = [*sorted((daemon.home / "journal").glob("*.journal"))]
        files += chance.sample([daemon.home / "state.id", daemon.home / "supervisor.lock"], chance.randint(0, 1))
        for _ in range(2):
            store(damager.damage(load(*files)))
        await daemon.start()
        assert "Traceback" not in daemon.log_file.read_text(), damager.done
    await producer.until_finished(daemon, STARTS * per_start)
    assert await daemon.stop() == 0
    states = check(daemon, producer, STARTS * per_start)
    assert states["sent"] + states["in_doubt"] == STARTS * per_start
    # What the killed workers had in flight at most.
    assert states["in_doubt"] <= STARTS * devices
