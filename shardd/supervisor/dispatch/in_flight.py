"""The router's book of claims: which a shard's worker has in flight, which ended and are to be written, which are being written.

And those that ended but cannot be written, because the database refuses what is known of them: they are set aside and tried
again now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from shardd.ipc import ClaimKey, Outcome
from shardd.queue.settle import Claim, Finish, Release

Entry = tuple[int, Claim, Outcome, Finish | Release]
"""A claim that ended: its shard, what was known and what is to be written."""


class InFlight:
    """Every claim of this node, from its commit to that of its settling."""

    def __init__(self) -> None:
        self._by_shard: dict[int, dict[ClaimKey, tuple[Claim, float]]] = {}  # by shard, with since when
        self._ended: list[Entry] = []
        self._settling: list[Entry] = []
        self._aside: dict[ClaimKey, tuple[Entry, str]] = {}  # with the error

    def __bool__(self) -> bool:
        """Whether anything waits to be settled."""
        return bool(self._ended)

    def claimed(self, shard: int, claim: Claim) -> None:
        """A claim is in the hand of a shard from now on."""
        self._by_shard.setdefault(shard, {})[claim.key] = claim, time.monotonic()

    def returned(self, shard: int, outcome: Outcome) -> Claim | None:
        """The claim that an outcome is of, in nobody's hand any more; None: it was not in the shard's hand."""
        claim, _ = self._by_shard.get(shard, {}).pop(outcome.key, (None, 0.0))
        return claim

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

    def of_shard(self, shard: int) -> list[Claim]:
        """What a shard has in flight."""
        return [claim for claim, _ in self._by_shard.get(shard, {}).values()]

    def count(self, shard: int) -> int:
        """How many jobs a shard has in flight."""
        return len(self._by_shard.get(shard, ()))

    def since(self, before: float) -> Iterator[tuple[int, Claim]]:
        """Which claims a shard, by its number, has had in flight since a moment of the monotonic clock or longer."""
        for shard, claims in self._by_shard.items():
            for claim, since in claims.values():
                if since > before:
                    break  # those that follow came later
                yield shard, claim

    def set_aside(self, entry: Entry, error: str) -> None:
        """A claim ended, but the database refuses to write that."""
        self._aside[entry[1].key] = entry, error

    def aside(self) -> list[tuple[Claim, str]]:
        """What was set aside, with the errors."""
        return [(entry[1], error) for entry, error in self._aside.values()]

    def try_aside(self) -> None:
        """Let what was set aside be settled once more."""
        self._ended += [entry for entry, _ in self._aside.values()]
        self._aside = {}

    def waiting(self) -> int:
        """How many ended claims wait to be settled."""
        return len(self._ended) + len(self._aside)

    def unsettled(self, shard: int) -> int:
        """How many claims of a shard are not settled yet."""
        aside = [entry for entry, _ in self._aside.values()]
        return self.count(shard) + sum(entry[0] == shard for entry in (*self._ended, *self._settling, *aside))

    def epochs(self) -> set[int]:
        """Of all claims that are not settled yet."""
        entries = (*self._ended, *self._settling, *(entry for entry, _ in self._aside.values()))
        return {claim.epoch for _, claim, _, _ in entries} | {
            claim.epoch for claims in self._by_shard.values() for claim, _ in claims.values()
        }

    def missing(self, claims: list[Claim]) -> list[Claim]:
        """Those of these claims that this book does not know."""
        known = {key for claims_of_shard in self._by_shard.values() for key in claims_of_shard}
        known |= {claim.key for _, claim, _, _ in self._ended} | self._aside.keys()
        return [claim for claim in claims if claim.key not in known]
