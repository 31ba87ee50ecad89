"""Answers workers that ask, right before messages are handed over, whether the recipients opted out under another address.

The questions of all workers that wait are answered by one look at the list. What belongs to one person is remembered in the
database first: from then on, an opt-out under one address holds for the others, and claims know it by themselves. A person whose
addresses cannot be remembered now, because another program's open transaction is in the way, holds up no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from shardd import ipc
from shardd.errors import BlockedError, DatabaseError, RefusedDataError
from shardd.logs import get_logger
from shardd.queue.opt_outs import OptOuts
from shardd.supervisor.services import Service

log = get_logger(__name__)

MOST: Final = 1000
"""Persons of one look."""
ALONE_FOR: Final = 5.0
"""Seconds for which persons of one look are remembered one by one; workers wait `opt_out_questions.TIMEOUT`."""

Person = tuple[str, list[str]]


class OptOutAnswers(Service):
    """Collects questions and answers them in batches."""

    def __init__(
        self,
        opt_outs: OptOuts,
        opted_out: Callable[[str, float], bool],
        send: Callable[[int, ipc.ToWorker], bool],
    ) -> None:
        """`opted_out`: `OptOutInbox.contains`, for those that are not stored yet; `send`: to a shard's worker."""
        self._opt_outs = opt_outs
        self._opted_out = opted_out
        self._send = send
        self._waiting: list[tuple[int, ipc.OptOutQuestion]] = []
        self._wake = asyncio.Event()

    def asked(self, shard: int, question: ipc.OptOutQuestion) -> None:
        """A worker asks."""
        self._waiting.append((shard, question))
        self._wake.set()

    async def serve(self) -> None:
        """Answer."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._answer(self._next())

    def _next(self) -> list[tuple[int, ipc.OptOutQuestion]]:
        count = persons = 0
        for _, question in self._waiting:
            persons += len(question.persons)
            if count and persons > MOST:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch

    async def _answer(self, batch: list[tuple[int, ipc.OptOutQuestion]]) -> None:
        persons = [person for _, question in batch for person in question.persons]
        addresses = {one for address, others in persons for one in (address, *others)}
        began = time.monotonic()
        opted_out: set[str] = set()
        try:
            failed = await self._learn(persons)
            opted_out = await self._opt_outs.opted_out(addresses)
        except DatabaseError as error:
            failed = {address: str(error) for address, _ in persons}
        if failed:
            why = next(iter(failed.values()))
            log.warning("opt-outs could not be checked; jobs go back", action="opt_out_check", error=why)
        # Read last: one that came meanwhile may have been stored a moment after that look.
        opted_out |= {address for address in addresses if self._opted_out(address, began)}
        for shard, question in batch:
            named = [one for address, others in question.persons for one in (address, *others) if one in opted_out]
            unknown = [address for address, _ in question.persons if address in failed]
            error_text = failed[unknown[0]] if unknown else None
            self._send(shard, ipc.OptOutAnswer(question.request, named, unknown, error_text))

    async def _learn(self, persons: Sequence[Person]) -> dict[str, str]:
        """Remember who belongs together; returns why not, by the address of a job. Raises DatabaseError."""
        try:
            await self._opt_outs.learn((address, other) for address, others in persons for other in others)
        except (BlockedError, RefusedDataError) as error:
            if len(persons) == 1:
                return {persons[0][0]: str(error)}
            why = str(error)
        else:
            return {}
        failed: dict[str, str] = {}
        until = time.monotonic() + ALONE_FOR
        for address, others in persons:
            if time.monotonic() >= until:
                failed[address] = why
                continue
            try:
                await self._opt_outs.learn((address, other) for other in others)
            except (BlockedError, RefusedDataError) as error:
                failed[address] = str(error)
        return failed
