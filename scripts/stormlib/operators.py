"""An operator who pauses devices and campaigns, cancels what waits there, retries that, and decides what is in doubt.

What an operator decides is what was really delivered, so only about the sandbox's devices: what was sent to WhatsApp may still be
on the way. Jobs of order groups are not cancelled, because that ends their groups.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from stormlib.command import Command
from stormlib.log import Log
from stormlib.session import Session

MOST = 5
"""Jobs of one command: so many it names that it left alone."""
DECIDED = 0.7
"""The share of doubts that are decided."""
PAUSED_FOR = (0.5, 3.0)
"""Seconds."""
WAITING = (
    "SELECT id, attempt FROM shardd.outcomes "
    "WHERE state IN ('queued', 'scheduled') AND order_group IS NULL AND (device_id = %s OR campaign = %s) "
    "ORDER BY id DESC LIMIT %s"
)
DOUBTS = (
    "SELECT id, attempt, reference, order_group IS NOT NULL FROM shardd.outcomes "
    "WHERE state = 'in_doubt' AND device_id = ANY (%s) AND NOT id = ANY (%s) ORDER BY id LIMIT 1"
)


@dataclass(frozen=True)
class Decision:
    """The last that an operator did to a job. `state`: cancelled, sent or failed; or queued: it was retried.

    `attempt`: its last one before; `at`: when it was confirmed.
    """

    state: str
    attempt: int
    at: float = 0.0


@dataclass(frozen=True)
class Pause:
    """Of a campaign: from the answer to the pause until somebody resumes it."""

    campaign: str
    begin: float
    end: float


@dataclass
class Acts:
    """What the operator did, as confirmed."""

    decisions: dict[int, Decision] = field(default_factory=dict)
    """By job."""
    pauses: list[Pause] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)


class Operator:
    """`delivered`: the references that were delivered until now, as far as the sandbox knows."""

    def __init__(
        self,
        command: Command,
        dsn: str,
        devices: Sequence[str],
        campaigns: Sequence[str],
        delivered: Callable[[], set[str]],
        *,
        log: Log,
        seed: int,
        every: float,
    ) -> None:
        """`every`: mean seconds between acts, each of which takes some commands."""
        self.acts = Acts()
        self._command = command
        self._session = Session("operator", dsn, log)
        self._devices = devices
        self._campaigns = campaigns
        self._delivered = delivered
        self._log = log
        self._chance = random.Random(f"{seed} operator")
        self._every = every
        self._looked_at: set[int] = set()
        self._paused: defaultdict[str, set[str]] = defaultdict(set)
        """What was ever paused, by kind."""

    async def run(self, stop: asyncio.Event) -> None:
        """Act until `stop`; whatever was paused is resumed then."""
        try:
            while not stop.is_set():
                await asyncio.sleep(self._chance.uniform(0, 2 * self._every))
                pause = self._chance.choice((self._pause_device, self._pause_campaign))
                if not await self.decide():
                    await pause()
        finally:
            await self._session.close()

    async def resume_all(self) -> None:
        """Resume once more what was ever paused: a database that forgets commits may have forgotten that it was resumed."""
        for kind, names in self._paused.items():
            await self._command.run(kind, "resume", *sorted(names))

    async def _pause_device(self) -> None:
        device = self._chance.choice(self._devices)
        self._paused["device"].add(device)
        await self._command.run("device", "pause", device, "--why=storm")
        self.acts.done["devices paused"] += 1
        await self._meanwhile(device)
        await self._command.run("device", "resume", device)

    async def _pause_campaign(self) -> None:
        campaign = self._chance.choice(self._campaigns)
        self._paused["campaign"].add(campaign)
        await self._command.run("campaign", "pause", campaign, "--why=storm")
        self.acts.done["campaigns paused"] += 1
        begin = self._log.write("paused", campaign=campaign)
        await self._meanwhile(campaign)
        self.acts.pauses.append(Pause(campaign, begin, self._log.write("resume", campaign=campaign)))
        await self._command.run("campaign", "resume", campaign)

    async def _meanwhile(self, name: str) -> None:
        """Cancel some of what waits for this device or campaign, and bring some of that back."""
        await asyncio.sleep(self._chance.uniform(*PAUSED_FOR))
        again = self._chance.random() < 0.5
        jobs = dict[int, int](await self._session.execute(WAITING, name, name, MOST))
        cancelled = await self._handle("cancel", jobs, "cancelled", "cancel")
        if again:
            await self._handle("retry", {job: jobs[job] for job in cancelled}, "queued", "retry", "--state=cancelled")

    async def decide(self) -> bool:
        """Decide a job in doubt, unless it is to stay so, and retry it if it was not sent. Returns whether there was one."""
        found = await self._session.execute(DOUBTS, list(self._devices), list(self._looked_at))
        decides, again = self._chance.random() < DECIDED, self._chance.random() < 0.5
        for job, attempt, reference, in_group in found:
            self._looked_at.add(job)
            if not decides:
                continue
            if reference in self._delivered():
                await self._handle("decide", {job: attempt}, "sent", "resolve", "--sent")
                continue
            failed = await self._handle("decide", {job: attempt}, "failed", "resolve", "--not-sent")
            if failed and (again or in_group):
                await self._handle("retry", {job: attempt}, "queued", "retry", "--state=failed")
        return decides and bool(found)

    async def _handle(self, what: str, jobs: dict[int, int], state: str, *words: str) -> list[int]:
        """Run a command for these jobs (with their attempts); returns those that are as requested."""
        if not jobs:
            return []
        said = await self._command.run("job", *words, *map(str, jobs), "--yes", "--json")
        left = {job for some in said["left"] for job in some["ids"]}
        done = [job for job in jobs if job not in left]
        at = self._log.write("handled", jobs=done, state=state)
        self.acts.decisions |= {job: Decision(state, jobs[job], at) for job in done}
        self.acts.done[f"jobs: {what}"] += len(done)
        return done
