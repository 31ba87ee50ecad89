"""The lines of a journal: how they are written, and what a possibly damaged file still proves.

    4f3c20a1 5be0c1d2 m 0000000000000000 0000000000000012            the mark, rewritten in place
    90ab12cd 5be0c1d2 h {"version": 2, "state": "…", "shard": 3, …}   the header
    1f3a9c07 5be0c1d2 11 p [4711,7,1,-92233720368,0]                  its preparation begins; last: alone in its worker
    7706a1b3 5be0c1d2 12 s [4711,7,1,-92233720368]                    started: it may have left from here on
    03d99f10 5be0c1d2 13 o [4711,7,1,-92233720368,"sent",…]           the outcome (`shardd.ipc.Outcome`)
    c3f01b77 5be0c1d2 14 n null                                       nothing: the disk takes lines again

Each line begins with a checksum (`shardd.checked_lines`) and the file's life: a random number drawn whenever a file is begun, so
that a line of another file, or of an earlier life of this one, cannot fill a gap unnoticed. Entries are numbered without gaps.
The mark holds the number up to which everything is settled, and that of the last `started`: it shows that a file's end is lost.

A line with a correct checksum is a fact wherever it is found, because one of the four numbers that identify a claim is random. A
*missing* line proves something only in a file without a hole. So damage costs knowledge, and never invents an outcome.

Undetectable: a line that was damaged so that its checksum fits (one in four billion); and an earlier state of this file alone,
restored in place, while the boot is the same or fsync is on. Of a whole state folder a start notices it (`shardd.queue.lives`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec

from shardd.checked_lines import checked_line, text_of
from shardd.errors import ErrorClass
from shardd.ipc import ClaimKey, Outcome
from shardd.storable import MAX_TIME

VERSION: Final = 2
"""Of the format. Version 1 had no checksums; it was never part of a release."""
MARK_SIZE: Final = 54
"""Bytes of the first line: within one sector, and rewritten as a whole."""
HEADER_MOST: Final = 4096
"""Bytes of mark and header together, at most."""

_Number = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_encode = msgspec.json.Encoder().encode
_decode_started = msgspec.json.Decoder(tuple[_Number, _Number, _Number, _Number]).decode
_decode_preparing = msgspec.json.Decoder(tuple[_Number, _Number, _Number, _Number, int]).decode
_decode_outcome = msgspec.json.Decoder(Outcome).decode
_ERROR_CLASSES: Final = frozenset({None, *ErrorClass})


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Which shard's journal it is, and what its writer guaranteed."""

    version: int = VERSION
    state: str
    """Id of the state folder."""
    shard: int
    file: str
    """Identifies the file itself (`shardd.state_files.file_identity`): a copy may be older than what was acted upon."""
    fsync: bool
    """Each line was on the disk before it was acted upon."""
    boot: str | None = None
    """Identifies the run of the kernel; None: unknown."""
    pid: int | None = None
    """The worker that writes it; None: none yet."""


_decode_header = msgspec.json.Decoder(Header).decode


class Phase(StrEnum):
    """How far a claim got."""

    NOTHING = "nothing"
    PREPARING = "preparing"
    PREPARING_ALONE = "preparing_alone"
    """It was the only job of its worker at that time."""
    STARTED = "started"
    ENDED = "ended"
    """Its outcome is known."""
    UNKNOWN = "unknown"
    """The lines that would show it are lost or contradict each other."""


@dataclass(slots=True)
class Record:
    """What a journal says about claims; settled ones are included while their lines remain."""

    preparing: dict[ClaimKey, bool] = field(default_factory=dict)
    """Claims whose preparation had begun, and whether each was alone in its worker."""
    started: set[ClaimKey] = field(default_factory=set)
    outcomes: dict[ClaimKey, Outcome] = field(default_factory=dict)
    contradicted: set[ClaimKey] = field(default_factory=set)
    """Claims with two different outcomes."""
    spared: set[ClaimKey] = field(default_factory=set)
    """Claims whose preparation began after the last hole: had they started, a later line would show it."""
    flaw: str | None = "there is no journal"
    """Why a missing line proves nothing; None: the record is complete."""
    pid: int | None = None
    """The worker that wrote it."""

    @property
    def complete(self) -> bool:
        """Whether a claim that is not in it was certainly never started."""
        return self.flaw is None

    def phase(self, claim: ClaimKey) -> Phase:
        """How far a claim got."""
        if claim in self.contradicted:
            return Phase.UNKNOWN
        if claim in self.outcomes:
            return Phase.ENDED
        if claim in self.started:
            return Phase.STARTED
        if not self.complete and claim not in self.spared:
            return Phase.UNKNOWN
        if claim in self.preparing:
            return Phase.PREPARING_ALONE if self.preparing[claim] else Phase.PREPARING
        return Phase.NOTHING


# ---- writing


def header_line(life: bytes, header: Header) -> bytes:
    """The second line of a file."""
    return checked_line(b"%b h %b" % (life, _encode(header)))


def mark_line(life: bytes, settled: int, started: int) -> bytes:
    """The first line of a file: the entry up to which all is settled, and the last `started` entry."""
    return checked_line(b"%b m %016x %016x" % (life, settled, started))


def preparing_line(life: bytes, number: int, claim: ClaimKey, *, alone: bool) -> bytes:
    """The preparation of a claim begins."""
    return checked_line(b"%b %d p [%d,%d,%d,%d,%d]" % (life, number, *claim, alone))


def started_line(life: bytes, number: int, claim: ClaimKey) -> bytes:
    """A message is about to be handed over."""
    return checked_line(b"%b %d s [%d,%d,%d,%d]" % (life, number, *claim))


def outcome_line(life: bytes, number: int, outcome: Outcome) -> bytes:
    """How a claim ended."""
    return checked_line(b"%b %d o %b" % (life, number, _encode(outcome)))


def probe_line(life: bytes, number: int) -> bytes:
    """A line without content."""
    return checked_line(b"%b %d n null" % (life, number))


# ---- reading


def read_header(data: bytes) -> Header | None:
    """The header of a file that begins with these bytes; None: it has no readable one."""
    lines = data.split(b"\n", 2)
    text = text_of(lines[1]) if len(lines) == 3 else None
    if text is None or text[8:11] != b" h ":
        return None
    try:
        return _decode_header(text[11:])
    except (ValueError, msgspec.MsgspecError):
        return None


def read_journal(data: bytes, *, state: str, shard: int, file: str, boot: str | None) -> Record:
    """What any bytes say, checked against the state folder's id, the shard, the file itself and the boot."""
    record = Record()
    lines = data.split(b"\n")
    mark, header = _read_mark(lines[0]), read_header(data)
    if mark is None or header is None or not _begins(lines[1], mark.life):
        for line in lines[:-1]:
            _learn(line, record)
        record.flaw = _without_beginning(data, header)
        return record
    record.pid = header.pid
    hole = _read_in_order(lines[2:], mark, record)
    objection = _objection(header, state=state, shard=shard, file=file, boot=boot)
    if objection is not None:
        record.spared.clear()
    record.flaw = objection or hole
    return record


def _read_in_order(lines: list[bytes], mark: _Mark, record: Record) -> str | None:
    """Add these lines to the record; returns what is wrong with their order, if anything."""
    hole, due = None, mark.settled + 1
    for line in lines[:-1]:
        entry = _learn(line, record)
        before = due == mark.settled + 1
        if entry is not None and entry.life == mark.life:
            if before and entry.number <= mark.settled:
                continue
            if entry.number == due:
                # Whatever precedes the first entry that counts was settled, readable or not.
                hole = None if before else hole
            else:
                hole = hole or "lines are missing or out of order"
                record.spared.clear()
            if entry.number >= due:
                due = entry.number + 1
                if entry.prepares is not None:
                    record.spared.add(entry.prepares)
            continue
        # If it took the place of an entry, the next number will be missing.
        hole = hole or ("a line cannot be read" if entry is None else "a line of another file is in it")
    if lines[-1]:
        # An unfinished write of a dying worker was never acted upon, but it looks like a line that lost its end.
        hole = hole or "its last line is cut off"
    elif due <= mark.started:
        hole = hole or "its end is lost"
    else:
        return hole
    record.spared.clear()
    return hole


def _objection(header: Header, *, state: str, shard: int, file: str, boot: str | None) -> str | None:
    """Why missing lines of a file prove nothing, though it may be complete."""
    unknown = boot is None or header.boot is None
    objections = (
        (header.version != VERSION, f"it has format {header.version}, and this shardd reads {VERSION}"),
        (header.state != state, "it is of another state folder"),
        (header.shard != shard, f"it is of shard {header.shard}"),
        (header.file != file, "it is a copy, which may be older than what it was copied from"),
        (not header.fsync and unknown, "whether the machine restarted since is unknown: its boot id is hidden"),
        (not header.fsync and header.boot != boot, "the machine restarted, and worker.journal_fsync is off"),
    )
    return next((text for holds, text in objections if holds), None)


def _without_beginning(data: bytes, header: Header | None) -> str:
    if not data:
        return "it is empty"
    if data.startswith(b'{"boot"'):
        return "it was written by an earlier version of shardd, without checksums"
    return "its header cannot be read" if header is None else "its mark cannot be read, or is of another file"


class _Mark(NamedTuple):
    life: bytes
    settled: int
    started: int


class _Entry(NamedTuple):
    life: bytes
    number: int
    prepares: ClaimKey | None
    """The claim whose preparation begins with it, if one does."""


def _begins(header: bytes, life: bytes) -> bool:
    """Whether a header is of this life: it may come from another file."""
    text = text_of(header)
    return text is not None and text.split(b" ", 1)[0] == life


def _read_mark(line: bytes) -> _Mark | None:
    text = text_of(line)
    try:
        life, kind, settled, started = (text or b"").split(b" ")
        return _Mark(life, int(settled, 16), int(started, 16)) if kind == b"m" else None
    except ValueError:
        return None


def _learn(line: bytes, record: Record) -> _Entry | None:
    """Add a line to the record; None: it cannot be read, or is not an entry."""
    text = text_of(line)
    if text is None:
        return None
    try:
        life, digits, kind, said = text.split(b" ", 3)
        number = int(digits)
        if kind == b"p":
            *key, alone = _decode_preparing(said)
            claim = (key[0], key[1], key[2], key[3])
            record.preparing[claim] = bool(alone)
            return _Entry(life, number, claim)
        if kind == b"s":
            record.started.add(_decode_started(said))
        elif kind == b"o":
            _learn_outcome(_decode_outcome(said), record)
        elif kind != b"n":
            return None
        return _Entry(life, number, None)
    except (ValueError, msgspec.MsgspecError):
        # A correct checksum on nonsense: written by another version of shardd, or by hand.
        return None


def _learn_outcome(outcome: Outcome, record: Record) -> None:
    if (
        outcome.error_class not in _ERROR_CLASSES
        or not outcome.at < MAX_TIME  # what is later was cut down to this
        or not all(-(2**63) <= number < 2**63 for number in outcome.key)
    ):
        raise ValueError("not an outcome that a worker of this version writes")
    if record.outcomes.setdefault(outcome.key, outcome) != outcome:
        record.contradicted.add(outcome.key)
