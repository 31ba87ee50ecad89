"""What a node remembers of its sends: across a restart, damage, and files that cannot be written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardd.ipc import Outcome
from shardd.queue.settle import Claim
from shardd.states import Verdict
from shardd.supervisor.dispatch.memory import CURRENT, FOLDER, PREVIOUS, SentMemory


def sent(job: int, verdict: Verdict = Verdict.SENT, *, token: int = 7, at: float | None = None) -> Outcome:
    return Outcome(job, 1, 1, token, verdict, message_id=f"m-{job}", at=time.time() if at is None else at)


def later(job: int, *, token: int = 7, on_doubt: str = "hold") -> Claim:
    """A claim of the same row under another epoch."""
    return Claim(job, 9, 4, token, "device", 0, 3, on_doubt)


def recalled(memory: SentMemory, *jobs: int) -> Iterator[str | None]:
    for job in jobs:
        outcome = memory.recall(later(job))
        yield None if outcome is None else outcome.verdict


def loaded(folder: Path) -> SentMemory:
    memory = SentMemory(folder)
    memory.load()
    return memory


def test_a_job_is_recalled_by_its_id_and_token_under_any_claim(tmp_path: Path) -> None:
    memory = SentMemory(tmp_path)
    memory.note(sent(1))
    assert memory.recall(later(1)) == Outcome(1, 9, 4, 7, Verdict.SENT, "m-1", at=memory.recall(later(1)).at)  # type: ignore[union-attr]  # recalled
    assert memory.recall(later(1, token=8)) is None
    assert memory.recall(later(2)) is None


@pytest.mark.parametrize("verdict", sorted(set(Verdict) - {Verdict.SENT, Verdict.IN_DOUBT}))
def test_what_did_not_leave_is_not_remembered(tmp_path: Path, verdict: Verdict) -> None:
    memory = SentMemory(tmp_path)
    memory.note(sent(1, verdict))
    assert memory.recall(later(1)) is None


def test_what_is_known_replaces_a_doubt_and_not_the_other_way_round(tmp_path: Path) -> None:
    memory = SentMemory(tmp_path)
    for verdict in (Verdict.IN_DOUBT, Verdict.SENT, Verdict.IN_DOUBT):
        memory.note(sent(1, verdict))
    memory.note_started((2, 1, 1, 7))
    memory.write()
    for each in (memory, loaded(tmp_path)):
        assert list(recalled(each, 1, 2)) == [Verdict.SENT, Verdict.IN_DOUBT]
        assert each.recall(later(2, on_doubt="retry")) is None


def test_what_is_proven_without_it_is_no_loss_of_the_database(tmp_path: Path) -> None:
    memory = SentMemory(tmp_path)
    memory.note_started((1, 1, 1, 7))
    assert memory.recall(later(1), Verdict.IN_DOUBT) is None
    assert memory.notes() == []
    memory.note(sent(1))
    recalled = memory.recall(later(1), Verdict.IN_DOUBT)
    assert recalled is not None
    assert recalled.verdict == Verdict.SENT
    assert "what became of 1 job" in memory.notes()[0]


def test_another_supervisor_reads_what_was_written(tmp_path: Path) -> None:
    first = SentMemory(tmp_path)
    first.note(sent(1))
    first.write()
    first.note(sent(2))  # killed before it was written: it is in a journal
    second = loaded(tmp_path)
    assert list(recalled(second, 1, 2)) == [Verdict.SENT, None]
    second.note(sent(3))
    second.write()
    assert list(recalled(loaded(tmp_path), 1, 2, 3)) == [Verdict.SENT, None, Verdict.SENT]


def test_any_damaged_byte_costs_its_line_and_invents_nothing(tmp_path: Path) -> None:
    memory = SentMemory(tmp_path)
    for job in (1, 2, 3):
        memory.note(sent(job))
    memory.write()
    file = tmp_path / FOLDER / CURRENT
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        found = dict(loaded(tmp_path).remembered())
        assert len(found) >= 1
        assert set(found) <= {(1, 7), (2, 7), (3, 7)}
    file.write_bytes(whole[: len(whole) // 2])
    assert list(recalled(loaded(tmp_path), 1, 3)) == [Verdict.SENT, None]


def test_the_oldest_are_forgotten_when_the_next_file_but_one_begins(tmp_path: Path) -> None:
    memory = SentMemory(tmp_path, most=2)
    for job in range(1, 8):
        memory.note(sent(job))
        memory.write()
    kept = [job for job in range(1, 8) if memory.recall(later(job)) is not None]
    assert kept == [5, 6, 7]
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == [CURRENT, PREVIOUS]
    assert [job for job in range(1, 8) if loaded(tmp_path).recall(later(job)) is not None] == kept


def test_what_is_older_than_two_files_may_be_is_not_read(tmp_path: Path) -> None:
    memory = SentMemory(tmp_path)
    memory.note(sent(1, at=time.time() - 3600))
    memory.note(sent(2))
    memory.write()
    assert list(recalled(loaded(tmp_path), 1, 2)) == [None, Verdict.SENT]


def test_a_file_that_cannot_be_written_is_a_problem_until_it_can(tmp_path: Path) -> None:
    memory = SentMemory(tmp_path)
    (tmp_path / FOLDER).write_text("in the way")
    memory.note(sent(1))
    memory.write()
    (problem,) = memory.problems()
    assert f"{tmp_path / FOLDER}" in problem.text
    assert list(recalled(memory, 1)) == [Verdict.SENT]
    (tmp_path / FOLDER).unlink()
    memory.note(sent(2))
    memory.write()
    assert not list(memory.problems())
    assert list(recalled(loaded(tmp_path), 1, 2)) == [Verdict.SENT] * 2
