"""Asks the supervisor, right before messages are handed over, whether their recipients opted out under another address.

A claim checks the address of its job. WhatsApp may list the person under another number, and the message goes to the LID: an
opt-out may be known under one of these alone. The questions of one turn of the loop share a message. The database remembers what
belongs together, so claims cover these addresses from then on, and the same question is not asked again for a while: until one of
these addresses opts out at this node, which the database may not know yet.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from shardd import ipc
from shardd.bounded import remember
from shardd.errors import DeviceUnavailableError, ErrorClass

TIMEOUT: Final = 15.0
"""Seconds that an answer may take."""
RETRY: Final = 2.0
"""Seconds before a device is tried again whose recipients could not be checked."""
KNOWN_FOR: Final = 24 * 3600.0
"""Seconds for which the database is trusted to remember: somebody may restore a backup."""
MOST_KNOWN: Final = 100_000

Person = tuple[str, tuple[str, ...]]


class OptOutQuestions:
    """The questions of one worker."""

    def __init__(self, send: Callable[[ipc.OptOutQuestion], None]) -> None:
        self._send = send
        self._request = 0
        self._persons: list[Person] = []
        """To be asked in this turn of the loop."""
        self._answer: asyncio.Future[ipc.OptOutAnswer] | None = None
        self._awaited: dict[int, asyncio.Future[ipc.OptOutAnswer]] = {}
        self._known: OrderedDict[Person, float] = OrderedDict()
        """What the database knows to be one person, and when it was asked (monotonic)."""
        self._heard: OrderedDict[str, float] = OrderedDict()
        """When an address opted out at this node (monotonic)."""

    async def opted_out(self, address: str, others: Sequence[str]) -> bool:
        """Whether the person with this address opted out under one of the others. Raises DeviceUnavailableError: unknown."""
        person = (address, tuple(sorted({*others} - {address})))
        if not person[1] or self._is_known(person):
            return False
        asked_at = time.monotonic()
        if self._answer is None:
            self._answer = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(self._ask)
        self._persons.append(person)
        try:
            async with asyncio.timeout(TIMEOUT):
                # Others wait for the same answer.
                answer = await asyncio.shield(self._answer)
        except TimeoutError:
            raise DeviceUnavailableError(
                "the supervisor did not say in time whether the recipient opted out",
                retry_after=RETRY,
                error_class=ErrorClass.TIMEOUT,
            ) from None
        if any(one in answer.opted_out for one in (address, *person[1])):
            return True
        if address in answer.unknown:
            text = f"whether the recipient opted out is unknown: {answer.error}"
            raise DeviceUnavailableError(text, retry_after=RETRY, error_class=ErrorClass.SERVER)
        remember(self._known, person, asked_at, MOST_KNOWN)
        # They may have opted out while the answer was on its way.
        return not self._is_known(person) and await self.opted_out(address, others)

    def heard(self, addresses: Iterable[str]) -> None:
        """A person with these addresses opted out at this node: ask about them again."""
        now = time.monotonic()
        for address in addresses:
            remember(self._heard, address, now, MOST_KNOWN)

    def answered(self, answer: ipc.OptOutAnswer) -> None:
        """The supervisor's answer to one message."""
        future = self._awaited.pop(answer.request, None)
        if future is not None and not future.done():
            future.set_result(answer)

    def _is_known(self, person: Person) -> bool:
        address, others = person
        asked_at = self._known.get(person)
        if asked_at is None or asked_at + KNOWN_FOR < time.monotonic():
            return False
        return all(self._heard.get(one, 0.0) < asked_at for one in (address, *others))

    def _ask(self) -> None:
        persons, self._persons = self._persons, []
        answer, self._answer = self._answer, None
        if answer is None:
            return
        self._request += 1
        self._awaited[self._request] = answer
        loop = asyncio.get_running_loop()
        # One that never comes is forgotten.
        loop.call_later(2 * TIMEOUT, self._awaited.pop, self._request, None)
        pairs = [(address, list(others)) for address, others in dict.fromkeys(persons)]
        self._send(ipc.OptOutQuestion(request=self._request, persons=pairs))
