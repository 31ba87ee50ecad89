"""The journal: what it remembers through every sequence of writes, torn tails, compactions, full disks and kill -9."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from shardd import journal as journal_module
from shardd.errors import JournalError
from shardd.ipc import Outcome
from shardd.journal import Journal, Record, boot_id, read_pid
from shardd.states import Verdict

HANG = 60.0  # seconds; no test waits that long, it only keeps a broken one from hanging

# Writes for ever; says on its standard output what it was told is safe, after it was told so.
WRITER = """
import os, sys
from pathlib import Path
from shardd import journal
from shardd.ipc import Outcome
journal.COMPACT_ABOVE = 2000
book = journal.Journal.open(Path(sys.argv[1]))
book.begin(0)
number = 0
while True:
    number += 1
    book.started((number, 1, 1))
    os.write(1, b"s %d\\n" % number)
    if number % 3 == 0:
        continue
    book.outcome(Outcome(number, 1, 1, "sent", message_id="m" * (number % 90)))
    os.write(1, b"o %d\\n" % number)
    if number % 2 == 0:
        os.write(1, b"f %d\\n" % number)
        book.settled([(number, 1)])
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "shard-003.journal"


@contextmanager
def opened(path: Path, *, fsync: bool = False) -> Iterator[Journal]:
    journal = Journal.open(path, fsync=fsync)
    try:
        yield journal
    finally:
        journal.close()


def sent(job: int, epoch: int = 1, attempt: int = 1, **more: Any) -> Outcome:
    return Outcome(job, epoch, attempt, Verdict.SENT.value, **more)


def read(path: Path) -> Record:
    with opened(path) as journal:
        return journal.read()


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


# ---- what it says


def test_the_three_cases_are_plain(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
        journal.started((1, 7, 1))
        journal.started((2, 7, 4))
        known = sent(2, 7, 4, message_id="3EB0", at=1.5)
        journal.outcome(known)
    record = read(path)
    assert record.started == {(1, 7, 1), (2, 7, 4)}
    assert record.outcomes == {(2, 7, 4): known}
    assert record.complete
    assert record.pid == os.getpid()


def test_every_field_of_an_outcome_comes_back(path: Path) -> None:
    whole = Outcome(1, 2, 3, "unavailable", "id", 'a "quote"\nand ünïcode', 1.25, "restricted", 9.5)
    with opened(path) as journal:
        journal.begin(3)
        journal.outcome(whole)
        assert journal.read().outcomes == {(1, 2, 3): whole}


def test_a_line_is_in_the_file_before_the_call_returns(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
        journal.started((1, 7, 1))
        assert lines(path)[-1] == b'{"s":[1,7,1]}'
        journal.outcome(sent(1, 7))
        assert lines(path)[-1].startswith(b'{"o":[1,7,1,"sent"')


def test_it_is_private(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_settled_claims_are_forgotten_and_the_file_is_emptied(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
        empty = path.read_bytes()
        for job in (1, 2):
            journal.started((job, 7, 1))
            journal.outcome(sent(job, 7))
        journal.settled([(1, 1)])
        assert (2, 7, 1) in journal.read().outcomes
        journal.settled([(2, 1), (99, 1)])
        assert path.read_bytes() == empty
        journal.started((3, 7, 1))
        assert journal.read() == Record(started={(3, 7, 1)}, complete=True, pid=os.getpid())


def test_settling_an_earlier_attempt_forgets_nothing_of_the_present_one(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
        journal.started((1, 7, 2))
        journal.settled([(1, 1)])
        assert journal.read().started == {(1, 7, 2)}


# ---- whether it can be trusted


def header_of(path: Path) -> dict[str, Any]:
    header: dict[str, Any] = msgspec.json.decode(lines(path)[0])
    return header


def rewrite_header(path: Path, **fields: Any) -> None:
    header = {**header_of(path), **fields}
    path.write_bytes(b"\n".join([msgspec.json.encode(header), *lines(path)[1:], b""]))


def test_the_header_names_boot_process_and_shard(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
    header = header_of(path)
    assert (header["boot"], header["pid"], header["shard"]) == (boot_id(), os.getpid(), 3)
    assert re.fullmatch(r"[0-9a-f-]{36}", boot_id())


@pytest.mark.parametrize(("fsync", "complete"), [(False, False), (True, True)])
def test_after_a_reboot_only_a_flushed_journal_is_complete(path: Path, fsync: bool, complete: bool) -> None:
    with opened(path, fsync=fsync) as journal:
        journal.begin(3)
        journal.started((1, 7, 1))
    assert read(path).complete
    rewrite_header(path, boot="5e6c0ffe-0000-4000-8000-000000000000")
    record = read(path)
    assert record.complete is complete
    assert record.started == {(1, 7, 1)}


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"\0" * 300 + b"\n", b'{"s":[1,7,1]}\n'])
def test_a_file_without_a_header_proves_nothing(path: Path, content: bytes) -> None:
    # What a loss of power can leave: the file's length is on the disk, its lines are not.
    path.parent.mkdir()
    path.write_bytes(content)
    assert not read(path).complete


def test_a_hole_in_the_middle_is_noticed(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
        for job in (1, 2, 3):
            journal.started((job, 7, 1))
    whole = lines(path)
    path.write_bytes(b"\n".join([whole[0], whole[1], b"\0" * len(whole[2]), whole[3], b""]))
    record = read(path)
    assert not record.complete
    assert record.started == {(1, 7, 1), (3, 7, 1)}


def test_a_torn_last_line_was_never_acted_upon(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
        journal.started((1, 7, 1))
        journal.outcome(sent(1, 7, message_id="3EB0"))
    data = path.read_bytes()
    start = data.index(b'{"o"')
    for end in range(start, len(data)):
        path.write_bytes(data[:end])
        assert read(path) == Record(started={(1, 7, 1)}, complete=True, pid=os.getpid())


def test_what_was_cleared_is_empty_and_complete(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
        journal.started((1, 7, 1))
    with opened(path) as journal:
        journal.clear()
        assert journal.read() == Record(complete=True)
    rewrite_header(path, boot="5e6c0ffe-0000-4000-8000-000000000000")
    assert not read(path).complete


# ---- its lock


def test_only_one_holds_it(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
        with pytest.raises(JournalError, match=rf"shard-003\.journal is held by another process \(pid {os.getpid()}\)"):
            Journal.open(path)
    with opened(path):
        pass


def test_a_holder_without_a_header_is_told_without_a_pid(path: Path) -> None:
    with opened(path), pytest.raises(JournalError, match=r"held by another process$"):
        Journal.open(path)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    with pytest.raises(JournalError, match=r"shard-003\.journal: (File exists|Not a directory)"):
        Journal.open(tmp_path / "journal" / "shard-003.journal")


def test_a_child_does_not_inherit_the_lock(path: Path) -> None:
    with opened(path) as journal:
        journal.begin(3)
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with opened(path):
            pass
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("text", [None, b"", b"not json\n", b'{"boot":"x"}\n'])
def test_a_pid_that_is_not_there_is_none(path: Path, text: bytes | None) -> None:
    path.parent.mkdir()
    if text is not None:
        path.write_bytes(text)
    assert read_pid(path) is None


# ---- compaction


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    """The size above which a file is rewritten, made small."""
    monkeypatch.setattr(journal_module, "COMPACT_ABOVE", 1000)
    return 1000


def test_a_file_that_never_rests_stays_small(path: Path, small: int) -> None:
    with opened(path) as journal:
        journal.begin(3)
        journal.started((1, 7, 1))
        for job in range(2, 500):
            journal.started((job, 7, 1))
            journal.outcome(sent(job, 7))
            journal.settled([(job, 1)])
            assert path.stat().st_size < 2 * small
        record = journal.read()
        assert (1, 7, 1) in record.started
        assert (1, 7, 1) not in record.outcomes
        assert len(record.started) < 30
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_whoever_waited_for_the_lock_through_a_compaction_gets_the_new_file(path: Path, small: int) -> None:
    with opened(path) as journal:
        journal.begin(3)
        before = os.open(path, os.O_RDWR)
        for job in range(1, 100):
            journal.started((job, 7, 1))
        journal.settled([(1, 1)])
        assert path.stat().st_ino != os.fstat(before).st_ino
        # The old file is free now, and worth nothing: its lock must not pass for the journal's.
        fcntl.flock(before, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(JournalError, match="held by another process"):
            Journal.open(path)
        os.close(before)
    assert len(read(path).started) == 98


def test_nobody_slips_in_while_files_are_replaced(path: Path, small: int) -> None:
    with opened(path) as journal:
        journal.begin(3)
        done = threading.Event()
        stolen: list[Journal] = []
        tries: list[int] = []

        def steal() -> None:
            while not done.is_set():
                tries.append(1)
                try:
                    stolen.append(Journal.open(path))
                except JournalError:
                    continue

        thief = threading.Thread(target=steal)
        thief.start()
        replaced, last, job = 0, 0, 1
        while replaced < 300:
            job += 1
            journal.started((job, 7, 1))
            journal.settled([(job - 10, 1)])
            now = path.stat().st_ino
            replaced, last = replaced + (now != last), now
        done.set()
        thief.join(HANG)
        assert tries
        assert not stolen
        assert len(journal.read().started) == 10


# ---- a disk that refuses


@contextmanager
def disk_ends_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond this many bytes: the kernel takes a part of a write, then refuses."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", range(15))
def test_a_full_disk_refuses_and_leaves_no_half_line(path: Path, room: int) -> None:
    with opened(path) as journal:
        journal.begin(3)
        journal.started((1, 7, 1))
        size = path.stat().st_size
        if room < len(b'{"s":[2,7,1]}\n'):
            with disk_ends_at(size + room), pytest.raises(JournalError, match=r"shard-003\.journal: "):
                journal.started((2, 7, 1))
            assert path.stat().st_size == size
        journal.started((3, 7, 1))
        assert journal.read() == Record(started={(1, 7, 1), (3, 7, 1)}, complete=True, pid=os.getpid())


def test_a_compaction_without_room_keeps_the_old_file_and_works_later(path: Path, small: int) -> None:
    with opened(path) as journal:
        journal.begin(3)
        for job in range(1, 100):
            journal.started((job, 7, 1))
        for _ in range(3):
            with disk_ends_at(700), pytest.raises(JournalError, match=r"No space left|File too large"):
                journal.settled([(1, 1)])
            assert len(journal.read().started) == 99
        inode = path.stat().st_ino
        journal.settled([(1, 1)])
        assert path.stat().st_ino != inode
        assert len(journal.read().started) == 98


def test_every_line_is_flushed_when_asked(tmp_path: Path) -> None:
    """As the kernel saw it: after each write a flush of the same file, and of the folder for a new or replaced file."""
    strace = shutil.which("strace")
    assert strace is not None, "needs strace: apt-get install strace, or ./scripts/test as root"
    program = """
import sys
from pathlib import Path
from shardd import journal
from shardd.ipc import Outcome
journal.COMPACT_ABOVE = 100
book = journal.Journal.open(Path(sys.argv[1]), fsync=True)
book.begin(0)
book.started((1, 1, 1))
book.outcome(Outcome(1, 1, 1, "sent"))
book.settled([])
book.started((2, 1, 1))
"""
    trace = tmp_path / "trace"
    calls = "trace=openat,write,fsync,fdatasync,rename,renameat,renameat2,ftruncate"
    command = [strace, "-y", "-o", trace, "-e", calls, sys.executable, "-c", program, tmp_path / "a" / "x.journal"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0 and "ptrace" in done.stderr.lower():
        pytest.skip("this machine allows no tracing")
    assert done.returncode == 0, done.stderr
    told = []
    for call, rest in re.findall(r"^(write|fsync|fdatasync|rename)\w*\((.*)$", trace.read_text(), re.MULTILINE):
        if "x.journal" in rest or "x.new" in rest:
            told.append(call)
        elif f"{tmp_path}/a>" in rest:
            told.append(f"{call} folder")
    line = ["write", "fdatasync"]
    assert told == [
        *line, "fsync folder", *line, *line, "write", "fsync", "rename", "fsync folder", *line,
    ]  # fmt: skip


# ---- kill -9


@pytest.mark.parametrize("lines_first", [1, 40, 700, 3000])
def test_a_writer_killed_in_the_middle_has_lost_nothing_that_it_was_told_is_safe(path: Path, lines_first: int) -> None:
    with tempfile.TemporaryFile() as told:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=told)
        watch = select.poll()
        try:
            while os.pread(told.fileno(), 10**7, 0).count(b"\n") < lines_first:
                assert writer.poll() is None
                watch.poll(1)
        finally:
            writer.kill()
            writer.wait()
        said = [line.split() for line in os.pread(told.fileno(), 10**8, 0).split(b"\n")[:-1]]
    claims = {kind: {(int(number), 1, 1) for what, number in said if what == kind} for kind in (b"s", b"o", b"f")}
    record = read(path)
    assert record.complete
    assert record.pid == writer.pid
    # The one that it was about to forget may be forgotten or not; everything else that was told is there.
    assert claims[b"s"] - claims[b"f"] <= record.started
    assert claims[b"o"] - claims[b"f"] <= set(record.outcomes)
    # And at most the one line that it had no time to tell is there beyond that.
    assert len(record.started - claims[b"s"]) <= 1
    assert len(set(record.outcomes) - claims[b"o"]) <= 1


# ---- any sequence


class JournalMachine(RuleBasedStateMachine):
    """A journal beside a dictionary that says what it must remember."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="journal-"))
        self.path = self.folder / "shard-000.journal"
        self.number = 0
        self.started: set[tuple[int, int, int]] = set()
        self.outcomes: dict[tuple[int, int, int], Outcome] = {}
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(journal_module, "COMPACT_ABOVE", 400)

    @initialize()
    def begin(self) -> None:
        self.journal = Journal.open(self.path)
        self.journal.begin(0)

    @rule(target=claims, epoch=st.integers(1, 2**62), attempt=st.integers(1, 9))
    def start(self, epoch: int, attempt: int) -> tuple[int, int, int]:
        self.number += 1
        claim = (self.number, epoch, attempt)
        self.journal.started(claim)
        self.started.add(claim)
        return claim

    @rule(claim=claims, verdict=st.sampled_from(Verdict), error=st.none() | st.text(max_size=20))
    def end(self, claim: tuple[int, int, int], verdict: Verdict, error: str | None) -> None:
        if claim in self.started and claim not in self.outcomes:
            outcome = self.outcomes[claim] = Outcome(*claim, verdict.value, error=error)
            self.journal.outcome(outcome)

    @rule(some=st.lists(claims, max_size=5))
    def settle(self, some: list[tuple[int, int, int]]) -> None:
        self.journal.settled([(job, attempt) for job, _, attempt in some])
        self.started -= set(some)
        for claim in some:
            self.outcomes.pop(claim, None)

    @rule(tail=st.binary(min_size=1, max_size=30))
    def die_in_a_write(self, tail: bytes) -> None:
        """The worker dies; its successor finds a torn line, settles what it reads, and begins anew."""
        self.journal.close()
        with self.path.open("ab") as file:
            file.write(tail.replace(b"\n", b" "))
        self.journal = Journal.open(self.path)
        self.check(self.journal.read())
        self.journal.clear()
        assert self.journal.read() == Record(complete=True)
        self.journal.close()
        self.started.clear()
        self.outcomes.clear()
        self.begin()

    @invariant()
    def remembers(self) -> None:
        if hasattr(self, "journal"):
            self.check(self.journal.read())

    def check(self, record: Record) -> None:
        # What is settled may still stand there until the file is rewritten: settling is idempotent.
        assert self.started <= record.started
        assert self.outcomes.items() <= record.outcomes.items()
        assert record.complete
        if not self.started:
            assert not record.started

    def teardown(self) -> None:
        self.journal.close()
        self.patch.undo()
        shutil.rmtree(self.folder)


TestAnySequence = JournalMachine.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
