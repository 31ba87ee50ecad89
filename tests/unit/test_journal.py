"""The journal: its content after every sequence of writes, torn tails, compactions, full disks and kill -9."""

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
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from shardd import journal as journal_module
from shardd.errors import JournalError
from shardd.ipc import ClaimKey, Outcome
from shardd.journal import Journal, boot_id, read_pid
from shardd.journal_lines import Header, Phase, Record, header_line, read_header, read_journal
from shardd.state_files import file_identity
from shardd.states import Verdict

STATE = "0" * 32
HANG = 60.0  # seconds; no test waits that long, it only keeps a broken one from hanging

# Writes for ever; says on its standard output what it was told is safe, after it was told so.
WRITER = """
import os, sys
from pathlib import Path
from shardd import journal
from shardd.ipc import Outcome
journal.COMPACT_ABOVE = 2000
book = journal.Journal.open(Path(sys.argv[1]), state="0" * 32, shard=3)
book.begin()
number = 0
while True:
    number += 1
    book.preparing((number, 1, 1, 9))
    book.started((number, 1, 1, 9))
    os.write(1, b"s %d\\n" % number)
    if number % 3 == 0:
        continue
    book.outcome(Outcome(number, 1, 1, 9, "sent", message_id="m" * (number % 90)))
    os.write(1, b"o %d\\n" % number)
    if number % 2 == 0:
        os.write(1, b"f %d\\n" % number)
        book.settled([(number, 1, 1, 9)])
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal" / "shard-003.journal"


@contextmanager
def opened(path: Path, *, fsync: bool = False) -> Iterator[Journal]:
    journal = Journal.open(path, state=STATE, shard=3, fsync=fsync)
    try:
        yield journal
    finally:
        journal.close()


def sent(job: int, epoch: int = 7, attempt: int = 1, **more: Any) -> Outcome:
    return Outcome(job, epoch, attempt, 9, Verdict.SENT.value, **more)


def read(path: Path) -> Record:
    with opened(path) as journal:
        return journal.read()


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


# ---- what it says


def test_the_three_cases_are_plain(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.started((1, 7, 1, 9))
        journal.started((2, 7, 4, 9))
        known = sent(2, 7, 4, message_id="3EB0", at=1.5)
        journal.outcome(known)
    record = read(path)
    assert record.started == {(1, 7, 1, 9), (2, 7, 4, 9)}
    assert record.outcomes == {(2, 7, 4, 9): known}
    assert record.complete
    assert record.pid == os.getpid()


def test_every_field_of_an_outcome_comes_back(path: Path) -> None:
    whole = Outcome(1, 2, 3, -4, "unavailable", "id", 'a "quote"\nand ünïcode', 1.25, "restricted", 9.5)
    with opened(path) as journal:
        journal.begin()
        journal.outcome(whole)
        assert journal.read().outcomes == {(1, 2, 3, -4): whole}


def test_a_line_is_in_the_file_before_the_call_returns(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.preparing((1, 7, 1, 9), alone=True)
        assert lines(path)[-1].endswith(b" 1 p [1,7,1,9,1]")
        journal.started((1, 7, 1, 9))
        assert lines(path)[-1].endswith(b" 2 s [1,7,1,9]")
        journal.outcome(sent(1))
        assert b' 3 o [1,7,1,9,"sent"' in lines(path)[-1]


def test_how_far_a_claim_got_is_told(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.preparing((1, 7, 1, 9))
        journal.preparing((2, 7, 1, 9), alone=True)
        for job in (3, 4):
            journal.preparing((job, 7, 1, 9))
            journal.started((job, 7, 1, 9))
        journal.outcome(sent(4))
        record = journal.read()
    phases = [record.phase((job, 7, 1, 9)) for job in range(6)]
    assert phases == [
        Phase.NOTHING, Phase.PREPARING, Phase.PREPARING_ALONE, Phase.STARTED, Phase.ENDED, Phase.NOTHING,
    ]  # fmt: skip
    # A claim is all of its four numbers.
    assert {record.phase(claim) for claim in ((4, 7, 1, 8), (4, 7, 2, 9), (4, 8, 1, 9))} == {Phase.NOTHING}


def test_it_is_private(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_settled_claims_are_forgotten_with_the_next_rewriting(path: Path, small: int) -> None:
    with opened(path) as journal:
        journal.begin()
        for job in (1, 2):
            journal.started((job, 7, 1, 9))
            journal.outcome(sent(job))
        journal.settled([(1, 7, 1, 9)])
        assert journal.read().outcomes.keys() == {(1, 7, 1, 9), (2, 7, 1, 9)}
        for job in range(3, 30):
            journal.started((job, 7, 1, 9))
        journal.settled([(3, 7, 1, 9), (99, 7, 1, 9)])
        record = journal.read()
        assert record.outcomes.keys() == {(2, 7, 1, 9)}
        assert record.started == {(job, 7, 1, 9) for job in (2, *range(4, 30))}
        assert record.complete


def test_a_file_in_which_all_is_settled_does_not_grow_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "CUT_ABOVE", 1000)
    with opened(path) as journal:
        journal.begin()
        for job in range(200):
            journal.started((job, 7, 1, 9))
            journal.settled([(job, 7, 1, 9)])
            assert path.stat().st_size < 1200
        journal.started((500, 7, 1, 9))
        record = journal.read()
        assert (500, 7, 1, 9) in record.started
        assert record.complete


def test_settling_an_earlier_attempt_forgets_nothing_of_the_present_one(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.started((1, 7, 2, 9))
        journal.settled([(1, 7, 1, 9)])
        assert journal.read().started == {(1, 7, 2, 9)}


# ---- whether it can be trusted


def header_of(path: Path) -> Header:
    header = read_header(path.read_bytes())
    assert header is not None
    return header


def rewrite_header(path: Path, **fields: Any) -> None:
    before = lines(path)
    life = before[1].split(b" ")[1]
    header = header_line(life, msgspec.structs.replace(header_of(path), **fields))
    path.write_bytes(b"\n".join([before[0], header[:-1], *before[2:], b""]))


def identity(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return file_identity(fd)
    finally:
        os.close(fd)


def started_file(path: Path, *jobs: int, fsync: bool = False) -> None:
    with opened(path, fsync=fsync) as journal:
        journal.begin()
        for job in jobs:
            journal.started((job, 7, 1, 9))


def test_the_header_names_folder_shard_process_and_boot(path: Path) -> None:
    started_file(path)
    assert header_of(path) == Header(
        version=2, state=STATE, shard=3, file=identity(path), fsync=False, boot=boot_id(), pid=os.getpid()
    )
    assert re.fullmatch(r"[0-9a-f-]{36}", boot_id() or "")


@pytest.mark.parametrize(("fsync", "complete"), [(False, False), (True, True)])
def test_after_a_reboot_only_a_flushed_journal_is_complete(path: Path, fsync: bool, complete: bool) -> None:
    started_file(path, 1, fsync=fsync)
    assert read(path).complete
    rewrite_header(path, boot="5e6c0ffe-0000-4000-8000-000000000000")
    record = read(path)
    assert record.complete is complete
    assert record.started == {(1, 7, 1, 9)}


@pytest.mark.parametrize("fsync", [False, True])
def test_a_boot_that_cannot_be_known_counts_as_another(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, fsync: bool
) -> None:
    started_file(path, 1, fsync=fsync)
    monkeypatch.setattr(journal_module, "boot_id", lambda: None)
    assert read(path).complete is fsync
    started_file(path, 1, fsync=fsync)
    assert read(path).complete is fsync
    monkeypatch.undo()
    assert read(path).complete is fsync


@pytest.mark.parametrize(
    ("fields", "flaw"),
    [
        ({"state": "1" * 32}, "it is of another state folder"),
        ({"shard": 4}, "it is of shard 4"),
        ({"file": "1.0"}, "it is a copy, which may be older than what it was copied from"),
        ({"version": 3}, "it has format 3, and this shardd reads 2"),
    ],
)
def test_a_file_from_elsewhere_knows_outcomes_and_proves_nothing_by_silence(
    path: Path, fields: dict[str, Any], flaw: str
) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.preparing((1, 7, 1, 9))
        journal.started((2, 7, 1, 9))
        journal.outcome(sent(3))
    rewrite_header(path, **fields)
    record = read(path)
    assert record.flaw == flaw
    phases = [record.phase((job, 7, 1, 9)) for job in range(4)]
    assert phases == [Phase.UNKNOWN, Phase.UNKNOWN, Phase.STARTED, Phase.ENDED]


def test_a_copy_in_the_place_of_a_file_is_known_though_it_has_its_inode(path: Path) -> None:
    started_file(path, 1)
    data, before = path.read_bytes(), path.stat().st_ino
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o600)
    if path.stat().st_ino == before and identity(path).endswith(".0"):
        pytest.skip("this file system does not tell that an inode is used again")
    assert read(path).flaw == "it is a copy, which may be older than what it was copied from"


def test_a_copy_of_a_folder_is_known(path: Path, tmp_path: Path) -> None:
    started_file(path, 1)
    shutil.copytree(path.parent, tmp_path / "copy" / "journal")
    assert read(tmp_path / "copy" / "journal" / path.name).flaw == (
        "it is a copy, which may be older than what it was copied from"
    )


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        (b"", "it is empty"),
        (b"\0" * 300, "its header cannot be read"),
        (b"\0" * 300 + b"\n", "its header cannot be read"),
        (b'{"boot":"x","pid":1,"shard":3,"fsync":true}\n{"s":[1,7,1]}\n',
         "it was written by an earlier version of shardd, without checksums"),
    ],
)  # fmt: skip
def test_a_file_without_a_header_proves_nothing(path: Path, content: bytes, flaw: str) -> None:
    # What a loss of power can leave: the file's length is on the disk, its lines are not.
    path.parent.mkdir()
    path.write_bytes(content)
    record = read(path)
    assert record.flaw == flaw
    assert record.phase((1, 7, 1, 9)) is Phase.UNKNOWN


def test_a_hole_in_the_middle_is_noticed(path: Path) -> None:
    started_file(path, 1, 2, 3)
    whole = lines(path)
    path.write_bytes(b"\n".join([*whole[:3], b"\0" * len(whole[3]), whole[4], b""]))
    record = read(path)
    assert record.flaw == "a line cannot be read"
    assert record.started == {(1, 7, 1, 9), (3, 7, 1, 9)}


def test_lines_that_are_gone_swapped_or_there_twice_are_noticed(path: Path) -> None:
    started_file(path, 1, 2, 3)
    mark, header, *entries = lines(path)
    for order in ([1, 2], [0, 2], [1, 0, 2], [0, 2, 1], [0, 1, 1, 2], [0, 1, 2, 2], [2], []):
        path.write_bytes(b"\n".join([mark, header, *(entries[each] for each in order), b""]))
        record = read(path)
        assert not record.complete
        assert record.started == {(each + 1, 7, 1, 9) for each in order}


def test_a_line_of_another_file_fills_no_gap(path: Path, tmp_path: Path) -> None:
    started_file(path, 1, 2)
    other = tmp_path / "other" / path.name
    started_file(other, 1, 8)
    mine = lines(path)
    path.write_bytes(b"\n".join([*mine[:3], lines(other)[3], b""]))
    record = read(path)
    assert not record.complete
    assert record.started == {(1, 7, 1, 9), (8, 7, 1, 9)}


def test_an_end_that_is_lost_is_noticed_wherever_it_was_cut(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.preparing((1, 7, 1, 9))
        journal.started((1, 7, 1, 9))
        journal.preparing((2, 7, 1, 9))
        journal.started((2, 7, 1, 9))
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        record = read(path)
        assert not record.complete, end
        assert record.phase((2, 7, 1, 9)) is Phase.UNKNOWN
        assert record.phase((1, 7, 1, 9)) in (Phase.UNKNOWN, Phase.STARTED)


def test_an_outcome_that_lost_its_end_leaves_its_claim_started(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.started((1, 7, 1, 9))
        journal.outcome(sent(1, message_id="3EB0"))
    data = path.read_bytes()
    for end in range(data.index(b" o [1") - 10, len(data)):
        path.write_bytes(data[:end])
        assert read(path).phase((1, 7, 1, 9)) is Phase.STARTED


def test_what_was_prepared_behind_a_hole_did_surely_not_start(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.preparing((1, 7, 1, 9))
        journal.started((2, 7, 1, 9))
        journal.preparing((3, 7, 1, 9))
        journal.preparing((4, 7, 1, 9), alone=True)
        journal.started((4, 7, 1, 9))
    whole = lines(path)
    path.write_bytes(b"\n".join([*whole[:3], b"\0", *whole[4:], b""]))
    record = read(path)
    phases = [record.phase((job, 7, 1, 9)) for job in range(1, 6)]
    assert phases == [Phase.UNKNOWN, Phase.UNKNOWN, Phase.PREPARING, Phase.STARTED, Phase.UNKNOWN]


def test_damage_among_settled_lines_costs_nothing(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        for job in (1, 2):
            journal.started((job, 7, 1, 9))
        journal.settled([(1, 7, 1, 9), (2, 7, 1, 9)])
        journal.preparing((3, 7, 1, 9))
    whole = lines(path)
    path.write_bytes(b"\n".join([*whole[:2], b"\0\xff", *whole[3:], b""]))
    record = read(path)
    assert record.complete
    assert record.phase((3, 7, 1, 9)) is Phase.PREPARING


def test_two_outcomes_of_one_claim_are_a_doubt(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        for verdict in (Verdict.SENT, Verdict.PERMANENT):
            journal.outcome(Outcome(1, 7, 1, 9, verdict.value))
        for _ in range(2):
            journal.outcome(sent(2))
    record = read(path)
    assert record.phase((1, 7, 1, 9)) is Phase.UNKNOWN
    assert record.phase((2, 7, 1, 9)) is Phase.ENDED


@pytest.mark.parametrize(
    "said",
    [
        b'1 o [1,7,1,9,"delivered"]', b'1 o [1,7,1,9,"sent",null,null,null,"asleep"]', b"1 s [1,7,1]", b"1 s []", b"1 s {",
        b'1 o [1,7,1,9,"sent",null,null,null,null,1e300]', b'1 o [1,7,1,9,"sent",null,null,1e999]', b"x s [1,7,1,9]",
        b'1 o [18446744073709551615,7,1,9,"sent"]', b'1 o [1,7,1,9,"sent",null,null,null,null,0,"nonsense"]', b"1 s",
        b"1 s [18446744073709551615,7,1,9]", b'1 o [1,7,1,9,"sent","\xff"]', b"1 z [1,7,1,9]", b"1", b"",
    ],
)  # fmt: skip
def test_what_no_worker_writes_is_a_hole_though_its_checksum_is_right(path: Path, said: bytes) -> None:
    started_file(path)
    life = lines(path)[0].split(b" ")[1]
    text = life + b" " + said
    path.write_bytes(path.read_bytes() + b"%08x %b\n" % (zlib.crc32(text), text))
    record = read(path)
    assert record.flaw == "a line cannot be read"
    assert (record.started, record.outcomes) == (set(), {})


def test_no_flipped_bit_makes_a_claim_vanish_or_another_outcome(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        for job in (1, 2, 3):
            journal.preparing((job, 7, 1, 9), alone=job == 2)
        journal.started((1, 7, 1, 9))
        journal.started((2, 7, 1, 9))
        journal.outcome(sent(2, message_id="3EB0"))
        whole = path.read_bytes()
        known = journal.read().outcomes
    file = identity(path)
    for place in range(len(whole) * 8):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        record = read_journal(bytes(data), state=STATE, shard=3, file=file, boot=boot_id())
        assert not record.complete, place
        assert record.outcomes.items() <= known.items(), place
        assert record.phase((1, 7, 1, 9)) in (Phase.STARTED, Phase.UNKNOWN), place
        assert record.phase((2, 7, 1, 9)) in (Phase.STARTED, Phase.UNKNOWN, Phase.ENDED), place
        assert record.phase((3, 7, 1, 9)) in (Phase.PREPARING, Phase.UNKNOWN), place
        assert record.phase((4, 7, 1, 9)) is Phase.UNKNOWN, place


def test_mark_and_header_of_different_files_prove_nothing(path: Path, tmp_path: Path) -> None:
    started_file(path, 1)
    other = tmp_path / "other" / path.name
    started_file(other)
    path.write_bytes(b"\n".join([lines(other)[0], lines(path)[1], b""]))
    assert read(path).flaw == "its mark cannot be read, or is of another file"


@given(st.binary(max_size=600))
def test_any_bytes_are_a_journal(data: bytes) -> None:
    record = read_journal(data, state=STATE, shard=3, file="1.0", boot="b")
    assert record.phase((1, 7, 1, 9)) is Phase.UNKNOWN


def test_what_was_cleared_is_empty_and_complete(path: Path) -> None:
    started_file(path, 1)
    with opened(path) as journal:
        journal.clear()
        assert journal.read() == Record(flaw=None)
    rewrite_header(path, boot="5e6c0ffe-0000-4000-8000-000000000000")
    assert not read(path).complete


# ---- its lock


def test_only_one_holds_it(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        with pytest.raises(JournalError, match=rf"shard-003\.journal is held by another process \(pid {os.getpid()}\)"):
            Journal.open(path, state=STATE, shard=3)
    with opened(path):
        pass


def test_a_holder_without_a_header_is_told_without_a_pid(path: Path) -> None:
    with opened(path), pytest.raises(JournalError, match=r"held by another process$"):
        Journal.open(path, state=STATE, shard=3)


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    with pytest.raises(JournalError, match=r"/journal is not a folder: move it away"):
        read(tmp_path / "journal" / "shard-003.journal")


def test_a_child_does_not_inherit_the_lock(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
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
        journal.begin()
        journal.started((1, 7, 1, 9))
        for job in range(2, 500):
            journal.started((job, 7, 1, 9))
            journal.outcome(sent(job, 7))
            journal.settled([(job, 7, 1, 9)])
            assert path.stat().st_size < 2 * small
        record = journal.read()
        assert (1, 7, 1, 9) in record.started
        assert (1, 7, 1, 9) not in record.outcomes
        assert len(record.started) < 30
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_whoever_waited_for_the_lock_through_a_compaction_gets_the_new_file(path: Path, small: int) -> None:
    with opened(path) as journal:
        journal.begin()
        before = os.open(path, os.O_RDWR)
        for job in range(1, 100):
            journal.started((job, 7, 1, 9))
        journal.settled([(1, 7, 1, 9)])
        assert path.stat().st_ino != os.fstat(before).st_ino
        # The old file is free now, and worth nothing: its lock must not pass for the journal's.
        fcntl.flock(before, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(JournalError, match="held by another process"):
            Journal.open(path, state=STATE, shard=3)
        os.close(before)
    assert len(read(path).started) == 98


def test_nobody_slips_in_while_files_are_replaced(path: Path, small: int) -> None:
    with opened(path) as journal:
        journal.begin()
        done = threading.Event()
        stolen: list[Journal] = []
        tries: list[int] = []

        def steal() -> None:
            while not done.is_set():
                tries.append(1)
                try:
                    stolen.append(Journal.open(path, state=STATE, shard=3))
                except JournalError:
                    continue

        thief = threading.Thread(target=steal)
        thief.start()
        replaced, last, job = 0, 0, 1
        while replaced < 300:
            job += 1
            journal.started((job, 7, 1, 9))
            journal.settled([(job - 10, 7, 1, 9)])
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


def test_a_full_disk_refuses_and_leaves_no_half_line(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.started((1, 7, 1, 9))
        size = path.stat().st_size
        journal.started((2, 7, 1, 9))
        length = path.stat().st_size - size
        for room in range(length):
            size = path.stat().st_size
            with disk_ends_at(size + room), pytest.raises(JournalError, match=r"shard-003\.journal: "):
                journal.started((100, 7, 1, 9))
            assert path.stat().st_size == size
            with pytest.raises(JournalError, match=r"shard-003\.journal: "):
                journal.preparing((100, 7, 1, 9))
            assert journal.check() is None
        journal.started((3, 7, 1, 9))
        assert journal.read() == Record(started={(1, 7, 1, 9), (2, 7, 1, 9), (3, 7, 1, 9)}, flaw=None, pid=os.getpid())


def test_a_full_disk_lets_a_file_be_cleared(path: Path) -> None:
    started_file(path, *range(20))
    with opened(path) as journal, disk_ends_at(path.stat().st_size):
        journal.clear()
        assert journal.read() == Record(flaw=None)


# ---- somebody else's hand on it


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def replace_by_a_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("victim"))


def replace_by_a_copy(path: Path) -> None:
    shutil.copy(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


def delete(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("touch", [cut_to_nothing, append, replace_by_a_link, replace_by_a_copy, delete])
def test_a_file_that_another_program_changed_is_written_anew(path: Path, touch: Callable[[Path], None]) -> None:
    with opened(path) as journal:
        journal.begin()
        journal.preparing((1, 7, 1, 9), alone=True)
        journal.started((2, 7, 1, 9))
        journal.outcome(sent(3))
        assert journal.check() is None
        path.with_name("victim").write_text("precious")
        touch(path)
        assert journal.check() is None
        journal.started((4, 7, 1, 9))
    record = read(path)
    assert record.complete
    assert (record.preparing, record.started) == ({(1, 7, 1, 9): True}, {(2, 7, 1, 9), (4, 7, 1, 9)})
    assert record.outcomes == {(3, 7, 1, 9): sent(3)}
    assert path.with_name("victim").read_text() == "precious"


def test_a_folder_in_its_place_is_told_and_nothing_is_handed_over(path: Path) -> None:
    with opened(path) as journal:
        journal.begin()
        path.unlink()
        path.mkdir()
        words = f"{path} is a folder: move it away"
        assert journal.check() == words
        with pytest.raises(JournalError, match=re.escape(words)):
            journal.started((1, 7, 1, 9))
        path.rmdir()
        assert journal.check() is None
        journal.started((1, 7, 1, 9))
    assert read(path).started == {(1, 7, 1, 9)}


def test_a_compaction_without_room_keeps_the_old_file_and_works_later(path: Path, small: int) -> None:
    with opened(path) as journal:
        journal.begin()
        for job in range(1, 100):
            journal.started((job, 7, 1, 9))
        for _ in range(3):
            with disk_ends_at(900), pytest.raises(JournalError, match=r"No space left|File too large"):
                journal.settled([(1, 7, 1, 9)])
            assert len(journal.read().started) == 99
        inode = path.stat().st_ino
        journal.settled([(1, 7, 1, 9)])
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
book = journal.Journal.open(Path(sys.argv[1]), state="0" * 32, shard=0, fsync=True)
book.begin()
book.preparing((1, 1, 1, 9))
book.started((1, 1, 1, 9))
book.outcome(Outcome(1, 1, 1, 9, "sent"))
book.settled([])
book.started((2, 1, 1, 9))
"""
    trace = tmp_path / "trace"
    calls = "trace=openat,write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,ftruncate"
    command = [strace, "-y", "-o", trace, "-e", calls, sys.executable, "-c", program, tmp_path / "a" / "x.journal"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0 and "ptrace" in done.stderr.lower():
        pytest.skip("this machine allows no tracing")
    assert done.returncode == 0, done.stderr
    told = []
    for call, rest in re.findall(
        r"^(write|pwrite64|fsync|fdatasync|rename)\w*\((.*)$", trace.read_text(), re.MULTILINE
    ):
        if "x.journal" in rest or "x.new" in rest:
            told.append(call)
        elif f"{tmp_path}/a>" in rest:
            told.append(f"{call} folder")
    line, mark = ["pwrite64", "fdatasync"], "pwrite64"
    assert told == [
        *line, "fsync folder", *line, *line, mark, *line, "write", "fsync", "rename", "fsync folder", *line, mark,
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
    claims = {kind: {(int(number), 1, 1, 9) for what, number in said if what == kind} for kind in (b"s", b"o", b"f")}
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
        self.folder = Path(tempfile.mkdtemp(prefix="journal-")) / "journal"
        self.path = self.folder / "shard-000.journal"
        self.number = 0
        self.started: set[ClaimKey] = set()
        self.outcomes: dict[ClaimKey, Outcome] = {}
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(journal_module, "COMPACT_ABOVE", 400)

    @initialize()
    def begin(self) -> None:
        self.journal = Journal.open(self.path, state=STATE, shard=0)
        self.journal.begin()

    @rule(target=claims, epoch=st.integers(1, 2**62), attempt=st.integers(1, 9), token=st.integers(-(2**63), 2**63 - 1))
    def start(self, epoch: int, attempt: int, token: int) -> ClaimKey:
        self.number += 1
        claim = (self.number, epoch, attempt, token)
        self.journal.preparing(claim, alone=epoch % 2 == 0)
        self.journal.started(claim)
        self.started.add(claim)
        return claim

    @rule(claim=claims, verdict=st.sampled_from(Verdict), error=st.none() | st.text(max_size=20))
    def end(self, claim: ClaimKey, verdict: Verdict, error: str | None) -> None:
        if claim in self.started and claim not in self.outcomes:
            outcome = self.outcomes[claim] = Outcome(*claim, verdict.value, error=error)
            self.journal.outcome(outcome)

    @rule(some=st.lists(claims, max_size=5))
    def settle(self, some: list[ClaimKey]) -> None:
        self.journal.settled(some)
        self.started -= set(some)
        for claim in some:
            self.outcomes.pop(claim, None)

    @rule(tail=st.binary(min_size=1, max_size=30))
    def die_in_a_write(self, tail: bytes) -> None:
        """The worker dies; its successor finds a torn line, settles what it reads, and begins anew."""
        self.journal.close()
        with self.path.open("ab") as file:
            file.write(tail.replace(b"\n", b" "))
        self.journal = Journal.open(self.path, state=STATE, shard=0)
        self.check(self.journal.read(), whole=False)
        self.journal.clear()
        assert self.journal.read() == Record(flaw=None)
        self.journal.close()
        self.started.clear()
        self.outcomes.clear()
        self.begin()

    @invariant()
    def remembers(self) -> None:
        if hasattr(self, "journal"):
            self.check(self.journal.read())

    def check(self, record: Record, *, whole: bool = True) -> None:
        # What is settled may stand there until the file is rewritten: settling is idempotent.
        assert self.started <= record.started
        assert self.outcomes.items() <= record.outcomes.items()
        assert record.complete is whole

    def teardown(self) -> None:
        self.journal.close()
        self.patch.undo()
        shutil.rmtree(self.folder.parent)


TestAnySequence = JournalMachine.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=40)
