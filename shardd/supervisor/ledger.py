"""The router's book of claims: which a shard's worker has in hand, which ended and are to be written, which are being written."""

from __future__ import annotations

from shardd.ipc import ClaimKey, Outcome
from shardd.queue.settle import Claim, Finish, Release

Entry = tuple[int, Claim, Outcome, Finish | Release]
"""A claim that ended: its shard, what was known and what is to be written."""


class Ledger:
    """Every claim of this node, from its commit to that of its settling."""

    def __init__(self) -> None:
        self._in_hand: dict[int, dict[ClaimKey, Claim]] = {}  # by shard
        self._ended: list[Entry] = []
        self._settling: list[Entry] = []

    def __bool__(self) -> bool:
        """Whether anything waits to be settled."""
        return bool(self._ended)

    def claimed(self, shard: int, claim: Claim) -> None:
        """A claim is in the hand of a shard from now on."""
        self._in_hand.setdefault(shard, {})[claim.key] = claim

    def returned(self, shard: int, outcome: Outcome) -> Claim | None:
        """The claim that an outcome is of, in nobody's hand any more; None: it was not in the shard's hand."""
        return self._in_hand.get(shard, {}).pop(outcome.key, None)

    def end(self, entry: Entry) -> None:
        """A claim ended; it waits to be settled."""
        self._ended.append(entry)

    def begin(self, most: int) -> list[Entry]:
        """The next entries to be settled."""
        self._settling, self._ended = self._ended[:most], self._ended[most:]
        return self._settling

    def settled(self) -> None:
        """The settling that was begun is over."""
        self._settling = []

    def again(self, entries: list[Entry]) -> None:
        """These must be settled once more, before all others."""
        self._ended = entries + self._ended

    def in_hand(self, shard: int) -> list[Claim]:
        """What a shard has in hand."""
        return list(self._in_hand.get(shard, {}).values())

    def in_hand_count(self, shard: int) -> int:
        """How many jobs a shard has in hand."""
        return len(self._in_hand.get(shard, ()))

    def waiting(self) -> int:
        """How many ended claims wait to be settled."""
        return len(self._ended)

    def unsettled(self, shard: int) -> int:
        """How many claims of a shard are not settled yet."""
        return self.in_hand_count(shard) + sum(1 for entry in (*self._ended, *self._settling) if entry[0] == shard)

    def missing(self, claims: list[Claim]) -> list[Claim]:
        """Those of these claims that this book does not know."""
        known = {key for hand in self._in_hand.values() for key in hand}
        known |= {claim.key for _, claim, _, _ in self._ended}
        return [claim for claim in claims if claim.key not in known]
