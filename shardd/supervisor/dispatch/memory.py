"""What this node sent, or may have sent, in the last minutes: for a database that forgets commits.

A fail-over to a standby that lags behind, or a restored backup, undoes the last commits: jobs whose messages were sent are queued
again, or claimed by a supervisor that has settled them. So this memory is asked before a job is sent, and before a claim that no
worker has is returned to the queue. It is a file in the state folder and survives the supervisor.

A job is recognized by its id and its token, a random number of its row: ids and epochs can be handed out again. A job that is
retried after it ended gets another token, so what a person decided is never undone.

The file is not flushed to the disk: a crash of shardd loses nothing, but after a power loss its last lines may be missing. What
another node sent is that node's to remember: see `remembered`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import msgspec

from shardd.checked_lines import checked_line, text_of
from shardd.errors import ErrorClass, UnsafeFileError
from shardd.ipc import ClaimKey, Outcome
from shardd.logs import get_logger
from shardd.queue.settle import Claim
from shardd.state_files import open_file, open_folder
from shardd.states import MAY_HAVE_LEFT, Verdict
from shardd.supervisor.problems import Problem, ProblemKind

log = get_logger(__name__)

FOLDER: Final = "sent"
"""Below the state folder."""
CURRENT: Final = "current"
PREVIOUS: Final = "previous"
"""A file in it, as CURRENT is: it is forgotten when the current one is full."""
REMEMBER: Final = 600.0
"""Seconds for which a job is remembered at least, unless there are too many."""
MOST: Final = 500_000
"""Jobs in one file."""
SHOWN: Final = 3600.0
"""Seconds for which the status shows that jobs were recognized."""
FORGOTTEN: Final = "the database had forgotten that it was in doubt"

_Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Line = tuple[_Number, _Number, str, str | None, float]
"""id, token, verdict, message id, POSIX seconds."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode

Job = tuple[int, int]
"""(id, token)."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a job."""

    verdict: Verdict
    """`sent` or `in_doubt`."""
    message_id: str | None
    at: float
    """POSIX seconds."""


class SentMemory:
    """The jobs, in memory and in two files: the current one and the one before it."""

    def __init__(self, state_dir: Path, *, remember: float = REMEMBER, most: int = MOST) -> None:
        self._state_dir = state_dir
        self._remember = remember
        self._most = most
        self._current: dict[Job, Sent] = {}
        self._previous: dict[Job, Sent] = {}
        self._unwritten: list[bytes] = []
        self._began = time.time()
        self._fd: int | None = None
        self._error: str | None = None
        self._recognized = (0, float("-inf"))  # how many, and when the last one was (monotonic)

    # ---- called by the router and the recovery

    def note(self, outcome: Outcome) -> None:
        """Remember the outcome of a claim if its message left, or may have."""
        if outcome.verdict in MAY_HAVE_LEFT:
            self._add(outcome.key, Sent(Verdict(outcome.verdict), outcome.message_id, outcome.at or time.time()))

    def note_started(self, claim: ClaimKey) -> None:
        """Remember a claim whose message may have left, with a worker that died."""
        self._add(claim, Sent(Verdict.IN_DOUBT, None, time.time()))

    def recall(self, claim: Claim, proven: str | None = None) -> Outcome | None:
        """How a claim ends whose job was sent, or may have been, under an earlier claim; None: nothing is known.

        `proven`: a verdict that is known without this memory; recalled is what is more than that. A job in doubt that may be
        sent again is not recalled.
        """
        known = self._known((claim.id, claim.token))
        if known is None or known.verdict == proven:
            return None
        if known.verdict is Verdict.IN_DOUBT and claim.on_doubt == "retry":
            return None
        self.recognized(1)
        if known.verdict is Verdict.SENT:
            return Outcome(*claim.key, Verdict.SENT, known.message_id, at=known.at)
        return Outcome(
            *claim.key, Verdict.IN_DOUBT, known.message_id, FORGOTTEN, at=known.at, error_class=ErrorClass.NODE
        )

    def recognized(self, jobs: int) -> None:
        """So many jobs turned out to be settled already."""
        number, _ = self._recognized
        self._recognized = number + jobs, time.monotonic()

    def remembered(self) -> Iterator[tuple[Job, Sent]]:
        """All jobs that are remembered, the older ones first."""
        yield from ((job, sent) for job, sent in self._previous.items() if job not in self._current)
        yield from self._current.items()

    # ---- the files

    def load(self) -> None:
        """Read what earlier supervisors on this folder left. Damaged lines are left out. Raises UnsafeFileError, OSError."""
        forget = time.time() - 2 * self._remember
        for name, jobs in ((CURRENT, self._current), (PREVIOUS, self._previous)):
            jobs |= {job: sent for job, sent in _read(self._state_dir, f"{FOLDER}/{name}") if sent.at >= forget}
        self._began = min((sent.at for sent in self._current.values()), default=time.time())

    def write(self) -> None:
        """Append what was noted since. Never raises: a failure is a problem in the status, and tried again the next time."""
        if not self._unwritten:
            return
        lines = b"".join(self._unwritten)
        try:
            if self._fd is None:
                self._fd = open_file(self._state_dir, f"{FOLDER}/{CURRENT}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            written = os.write(self._fd, lines)
            # What is there of a cut line is ended, and all of them are written once more the next time.
            self._unwritten = [] if written == len(lines) else [b"\n" + lines]
            if self._is_full() and not self._unwritten:
                self._turn_over()
        except (OSError, UnsafeFileError) as error:
            if self._error is None:
                log.error("what is sent cannot be remembered", action="remember", error=str(error))
            self._error = str(error)
            del self._unwritten[: -self._most]
            return
        self._error = None

    # ---- the status

    def notes(self) -> list[str]:
        """Jobs that were recognized in the last hour."""
        number, at = self._recognized
        if time.monotonic() - at >= SHOWN:
            return []
        jobs = "1 job" if number == 1 else f"{number:,} jobs"
        why = "as after a fail-over to a standby that lagged behind"
        return [f"the database had lost what became of {jobs}, {why}: settled by this node's memory of what it sent"]

    def problems(self) -> Iterator[Problem]:
        """See `shardd.supervisor.problems`."""
        if self._error is not None:
            yield Problem(
                ProblemKind.STATE_FOLDER,
                f"what is sent cannot be written to {self._state_dir / FOLDER / CURRENT} ({self._error}): if shardd is started "
                "again and the database then loses commits, messages may go twice",
            )

    # ----

    def _known(self, job: Job) -> Sent | None:
        return self._current.get(job) or self._previous.get(job)

    def _add(self, claim: ClaimKey, sent: Sent) -> None:
        job = claim[0], claim[3]
        known = self._known(job)
        if known is not None and (known.verdict is Verdict.SENT or known.verdict is sent.verdict):
            return
        self._current[job] = sent
        self._unwritten.append(checked_line(_encode((*job, sent.verdict.value, sent.message_id, sent.at))))

    def _is_full(self) -> bool:
        return len(self._current) >= self._most or time.time() - self._began >= self._remember

    def _turn_over(self) -> None:
        """Begin a new file, which the next `write` opens. Raises UnsafeFileError, OSError."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        folder = open_folder(self._state_dir, FOLDER, make=True)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.rename(CURRENT, PREVIOUS, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            os.close(folder)
        self._previous, self._current = self._current, {}
        self._began = time.time()


def _read(state_dir: Path, file: str) -> Iterator[tuple[Job, Sent]]:
    try:
        fd = open_file(state_dir, file, os.O_RDONLY)
    except FileNotFoundError:
        return
    with open(fd, "rb") as lines:  # noqa: PTH123  # a descriptor
        for line in lines:
            text = text_of(line.rstrip(b"\n"))
            if text is None:
                continue
            try:
                id_, token, verdict, message_id, at = _decode(text)
                yield (id_, token), Sent(Verdict(verdict), message_id, at)
            except (ValueError, msgspec.MsgspecError):
                continue  # of another version
