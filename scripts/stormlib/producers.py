"""Programs that insert jobs: each has devices of its own, so that it knows the order of its lanes.

An act is repeated until its answer arrives; a `dedupe_key` makes that safe. What was asked for is noted before the first try, and
what was confirmed after the answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from stormlib.log import Log

ACT_LIMIT = 8.0
"""Seconds after which a producer gives a try up: the database may be frozen."""
AGAIN_AFTER = 0.2
REPEATABLE = "r"
"""Ends the references of jobs that may be delivered twice."""

INSERT = (
    "INSERT INTO shardd.jobs (device_id, recipient, body, reference, dedupe_key, campaign, order_group, on_doubt) "
    "SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])"
)


@dataclass(frozen=True)
class Asked:
    """A job as its producer asked for it; `number` counts those of one producer."""

    reference: str
    number: int
    device: str
    recipient: str
    campaign: str | None
    order_group: str | None
    on_doubt: str


@dataclass
class Ledger:
    """What a producer asked for, and what was confirmed."""

    asked: dict[str, Asked] = field(default_factory=dict)
    confirmed: set[str] = field(default_factory=set)


class Producer:
    """Inserts until it is told to stop; whatever it has begun is confirmed then."""

    def __init__(
        self,
        name: str,
        dsn: str,
        devices: Sequence[str],
        campaigns: Sequence[str],
        *,
        log: Log,
        seed: int,
        every: float,
        recipients: Sequence[str] = (),
    ) -> None:
        """`every`: mean seconds between its acts. `recipients`: without any, each job has a new one."""
        self._recipients = recipients
        self.name = name
        self.ledger = Ledger()
        self._dsn = dsn
        self._devices = devices
        self._campaigns = campaigns
        self._log = log
        self._chance = random.Random(f"{seed} {name}")
        self._every = every
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._count = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Act until `stop`."""
        try:
            while not stop.is_set():
                await self._insert(self._chance.randint(1, 6))
                await asyncio.sleep(self._chance.uniform(0, 2 * self._every))
        finally:
            await self._disconnect()

    async def _insert(self, count: int) -> None:
        jobs = [self._new_job() for _ in range(count)]
        self.ledger.asked.update((job.reference, job) for job in jobs)
        references = [job.reference for job in jobs]
        self._log.write("insert", producer=self.name, references=references)
        await self._until_answered(
            INSERT,
            [job.device for job in jobs], [job.recipient for job in jobs], references, references, references,
            [job.campaign for job in jobs], [job.order_group for job in jobs], [job.on_doubt for job in jobs],
        )  # fmt: skip
        self.ledger.confirmed.update(references)
        self._log.write("inserted", producer=self.name, last=references[-1])

    def _new_job(self) -> Asked:
        self._count += 1
        chance = self._chance
        on_doubt = "retry" if chance.random() < 0.1 else "hold"
        return Asked(
            reference=f"{self.name}-{self._count:07}{REPEATABLE if on_doubt == 'retry' else ''}",
            number=self._count,
            device=chance.choice(self._devices),
            recipient=chance.choice(self._recipients or [f"+49151{chance.randrange(10**7, 10**8)}"]),
            campaign=chance.choice([None, *self._campaigns]),
            order_group=f"{self.name}-{chance.randrange(5)}" if chance.random() < 0.1 else None,
            on_doubt=on_doubt,
        )

    async def _until_answered(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        while True:
            try:
                async with asyncio.timeout(ACT_LIMIT):
                    connection = await self._connected()
                    cursor = await connection.execute(statement, params)
                    return await cursor.fetchall() if cursor.description else []
            except (psycopg.Error, TimeoutError) as error:
                self._log.write("again", producer=self.name, error=f"{type(error).__name__}: {error}"[:200])
                await self._disconnect()
                await asyncio.sleep(AGAIN_AFTER)

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, connect_timeout=3, target_session_attrs="read-write"
            )
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
