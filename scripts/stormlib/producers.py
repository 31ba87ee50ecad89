"""Programs that insert jobs and opt people out: each has devices of its own, so that it knows the order of its lanes.

An act is repeated until its answer arrives; a `dedupe_key` makes that safe, and a second opt-out of a person does nothing.
What was asked for is noted before the first try, and what was confirmed after the answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from stormlib.log import Log
from stormlib.session import Session

REPEATABLE = "r"
"""Ends the references of jobs that may be delivered twice."""
REGULARS = 6
"""Recipients of a producer that get many jobs, until they opt out and another one takes the place."""
TO_REGULARS = 0.3
"""The share of jobs for them."""
TO_THE_GONE = 0.05
"""The share for those who have opted out."""
OPT_OUT = 0.06
"""How often an act is an opt-out."""
TO_GROUPS = 0.15
"""The share of jobs that name a device group instead of a device."""

INSERT = (
    "INSERT INTO shardd.jobs "
    "(device_id, device_group, recipient, body, reference, dedupe_key, campaign, order_group, on_doubt) "
    "SELECT * FROM unnest("
    "%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])"
)
OPT_OUTS = "INSERT INTO shardd.opt_outs (recipient, note) VALUES (%s, 'storm')"


@dataclass(frozen=True)
class Asked:
    """A job as its producer asked for it; `number` counts those of one producer. It names a device or a device group."""

    reference: str
    number: int
    device: str | None
    recipient: str
    campaign: str | None
    order_group: str | None
    on_doubt: str
    device_group: str | None = None


@dataclass
class Ledger:
    """What a producer asked for, and what was confirmed."""

    asked: dict[str, Asked] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    """When the insert was tried first."""
    confirmed: dict[str, float] = field(default_factory=dict)
    """When its answer came."""
    opted_out: dict[str, float] = field(default_factory=dict)
    """Recipients whose opt-out was confirmed, each with the time of that."""


@dataclass(frozen=True)
class Range:
    """What a producer may name. `recipients`: without any, they are made up."""

    devices: Sequence[str]
    campaigns: Sequence[str] = ()
    groups: Sequence[str] = ()
    recipients: Sequence[str] = ()


class Producer:
    """Acts until it is told to stop; whatever it has begun is confirmed then."""

    def __init__(self, name: str, dsn: str, range_: Range, *, log: Log, seed: int, every: float) -> None:
        """`every`: mean seconds between its acts."""
        self.name = name
        self.ledger = Ledger()
        self._range = range_
        self._session = Session(name, dsn, log)
        self._log = log
        self._chance = random.Random(f"{seed} {name}")
        self._every = every
        self._count = 0
        self._regulars = [self._stranger() for _ in range(0 if range_.recipients else REGULARS)]

    async def run(self, stop: asyncio.Event) -> None:
        """Act until `stop`."""
        try:
            while not stop.is_set():
                if self._regulars and self._chance.random() < OPT_OUT:
                    await self._opt_out()
                else:
                    await self._insert(self._chance.randint(1, 6))
                await asyncio.sleep(self._chance.uniform(0, 2 * self._every))
        finally:
            await self._session.close()

    async def _insert(self, count: int) -> None:
        jobs = [self._new_job() for _ in range(count)]
        self.ledger.asked.update((job.reference, job) for job in jobs)
        references = [job.reference for job in jobs]
        begin = self._log.write("insert", producer=self.name, references=references)
        self.ledger.begun |= dict.fromkeys(references, begin)
        await self._session.execute(
            INSERT,
            [job.device for job in jobs], [job.device_group for job in jobs], [job.recipient for job in jobs],
            references, references, references,
            [job.campaign for job in jobs], [job.order_group for job in jobs], [job.on_doubt for job in jobs],
        )  # fmt: skip
        end = self._log.write("inserted", producer=self.name, last=references[-1])
        self.ledger.confirmed |= dict.fromkeys(references, end)

    async def _opt_out(self) -> None:
        """A regular recipient, by another spelling of the number; somebody new becomes a regular one."""
        place = self._chance.randrange(len(self._regulars))
        recipient, self._regulars[place] = self._regulars[place], self._stranger()
        self._log.write("opt out", producer=self.name, recipient=recipient)
        await self._session.execute(OPT_OUTS, f"{recipient[:3]} {recipient[3:6]} {recipient[6:]}")
        self.ledger.opted_out[recipient] = self._log.write("opted out", producer=self.name, recipient=recipient)

    def _new_job(self) -> Asked:
        self._count += 1
        chance = self._chance
        on_doubt = "retry" if chance.random() < 0.1 else "hold"
        order_group = f"{self.name}-{chance.randrange(5)}" if chance.random() < 0.1 else None
        group = chance.choice(self._range.groups) if self._range.groups and chance.random() < TO_GROUPS else None
        device = chance.choice(self._range.devices)
        # One of an order group goes to a stranger: to somebody who opts out, it would end its group for good.
        return Asked(
            reference=f"{self.name}-{self._count:07}{REPEATABLE if on_doubt == 'retry' else ''}",
            number=self._count,
            device=device if group is None else None,
            recipient=self._stranger() if order_group else self._somebody(),
            campaign=chance.choice([None, *self._range.campaigns]),
            order_group=order_group,
            on_doubt=on_doubt,
            device_group=group,
        )

    def _somebody(self) -> str:
        chance = self._chance.random()
        if self._regulars and chance < TO_REGULARS:
            return self._chance.choice(self._regulars)
        if self.ledger.opted_out and chance > 1 - TO_THE_GONE:
            return self._chance.choice(list(self.ledger.opted_out))
        return self._stranger()

    def _stranger(self) -> str:
        return self._chance.choice(self._range.recipients or [f"+49151{self._chance.randrange(10**7, 10**8)}"])
