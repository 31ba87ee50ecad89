"""The queue in a real database, compared with the one in memory, so that an error in either is found."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta

from shardd.queue.campaigns import Campaigns
from shardd.queue.cycle import Cycle, Settlement
from shardd.queue.database import Database
from shardd.queue.devices import Devices
from shardd.queue.groups import Groups, PoolJob
from shardd.queue.jobs import Jobs
from shardd.queue.records import Campaign, ClaimedJob, ClaimRequest, Device, WorkHint
from tests.support.choice.book import Book, Job, Sender
from tests.support.choice.queue import MemoryQueue
from tests.support.queue_rows import find_work, take_epoch

ALL_TIME = date(2000, 1, 1)
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class RealQueue(MemoryQueue):
    """Asks the database and the queue in memory, compares, and returns the database's answer."""

    numbers = itertools.count(1)

    def __init__(self, book: Book, database: Database) -> None:
        super().__init__(book)
        self.database = database
        self.jobs, self.groups = Jobs(database), Groups(database)
        self.number = next(self.numbers)

    async def run(self, statement: str, *params: object) -> None:
        async with self.database.connection() as connection:
            await connection.execute(statement.encode(), params)

    async def begin(self) -> None:
        """Reset the database to the book's devices, campaigns and groups; opt-outs are permanent, so recipients are new."""
        for table in (
            "jobs", "archive", "campaign_days", "device_days", "contacts", "device_group_members", "device_groups",
            "campaigns", "devices", "leases",
        ):  # fmt: skip
            await self.run(f"DELETE FROM shardd.{table}")
        for sender in self.book.senders.values():
            await self.run("INSERT INTO shardd.devices (id, transport) VALUES (%s, 'sandbox')", sender.id)
        for name, campaign in self.book.campaigns.items():
            await self.run(
                "INSERT INTO shardd.campaigns (id, weight, device_cap) VALUES (%s, %s, %s)",
                name, campaign.weight, campaign.cap,
            )  # fmt: skip
        for group, names in self.book.members.items():
            await self.run("INSERT INTO shardd.device_groups (id) VALUES (%s)", group)
            await self.run("INSERT INTO shardd.device_group_members SELECT %s, unnest(%s::text[])", group, names)

    # ---- who and how much

    async def take_epoch(self, shard: int) -> int:
        await self.run("DELETE FROM shardd.leases WHERE shard = %s", shard)
        return await take_epoch(self.database, shard)

    async def devices(self, warm_days: int) -> list[Device]:
        mine = await super().devices(warm_days)
        found = await Devices(self.database).all(warm_days)
        assert [_counts(each) for each in found] == [_counts(each) for each in mine]
        return found

    async def write_device(self, sender: Sender) -> None:
        await self.run(
            "UPDATE shardd.devices SET state = %s, paused_at = CASE WHEN %s THEN now() END WHERE id = %s",
            sender.state.value, sender.paused, sender.id,
        )  # fmt: skip

    async def running(self) -> dict[str, Campaign]:
        found = await Campaigns(self.database).running()
        assert found == await super().running()
        return found

    async def write_campaign(self, name: str) -> None:
        campaign = self.book.campaigns[name]
        await self.run(
            "UPDATE shardd.campaigns SET state = %s, weight = %s, device_cap = %s WHERE id = %s",
            campaign.state, campaign.weight, campaign.cap, name,
        )  # fmt: skip

    async def sends(self) -> list[tuple[str, str, date, int]]:
        found = await Campaigns(self.database).sends(ALL_TIME)
        capped = {name for name, one in self.book.campaigns.items() if one.state == "running" and one.cap is not None}
        assert sorted(found) == sorted(each for each in await super().sends() if each[0] in capped)
        return found

    # ---- jobs

    def address(self, number: int) -> str:
        return f"628{self.number:06}{number}"

    async def insert(self, jobs: Sequence[Job]) -> None:
        await super().insert(jobs)
        rows = ", ".join(["(%s, %s, %s, %s, 'x', %s, %s, %s, %s, %s, 9)"] * len(jobs))
        params = [
            each
            for job in jobs
            for each in (
                job.id, job.device, job.group, job.address, job.campaign or None, job.job_class, job.priority,
                BEGINNING + timedelta(microseconds=job.run_at), job.order_group,
            )
        ]  # fmt: skip
        await self.run(
            "INSERT INTO shardd.jobs"
            " (id, device_id, device_group, recipient, body, campaign, class, priority, run_at, order_group, token)"
            f" OVERRIDING SYSTEM VALUE VALUES {rows}",
            *params,
        )

    async def opt_out(self, address: str) -> None:
        await super().opt_out(address)
        await self.run(
            "INSERT INTO shardd.opt_outs (address, recipient) VALUES (%s, %s) ON CONFLICT DO NOTHING", address, address
        )

    async def cycle(self, settlement: Settlement, asks: Sequence[ClaimRequest]) -> Cycle:
        found = await self.jobs.cycle(settlement, asks)
        mine = await super().cycle(settlement, asks)
        assert found.settled == mine.settled
        assert [_said(each) for each in found.claimed] == [_said(each) for each in mine.claimed], asks
        assert sorted(found.advanced) == sorted(mine.advanced)
        return found

    async def find_work(self) -> list[WorkHint]:
        found = await find_work(self.jobs)
        assert sorted(found) == sorted(await super().find_work())
        return found

    async def promote_due(self) -> list[WorkHint]:
        # The history has its own clock, not the database's.
        due = [job.id for job in self.book.live() if job.due_at is not None and job.due_at <= self.wall]
        await self.run(
            "UPDATE shardd.jobs SET due_at = now() + CASE WHEN id = ANY (%s) THEN '0' ELSE '1 day' END::interval"
            " WHERE scheduled AND NOT held",
            due,
        )
        _, found = await self.jobs.promote_due(1000)
        assert sorted(found) == sorted(await super().promote_due())
        return found

    # ---- groups

    async def members(self) -> dict[str, list[str]]:
        found = await self.groups.members()
        assert found == await super().members()
        return found

    async def pools(self, after: tuple[str, str], most: int) -> list[tuple[str, str]]:
        found = await self.groups.pools(after, most)
        assert sorted(found) == await super().pools(after, most)
        return found

    async def share_out(
        self, group: str, lane: str, most: int, choose: Callable[[Sequence[PoolJob]], Mapping[int, str]]
    ) -> list[WorkHint]:
        seen: list[PoolJob] = []
        given: dict[int, str] = {}

        def watched(jobs: Sequence[PoolJob]) -> Mapping[int, str]:
            seen.extend(jobs)
            given.update(choose(jobs))
            return given

        def again(jobs: Sequence[PoolJob]) -> Mapping[int, str]:
            assert list(jobs) == seen
            return given

        found = await self.groups.share_out(group, lane, most, watched)
        assert sorted(found) == sorted(await super().share_out(group, lane, most, again))
        return found

    async def take_back(self, device_ids: Sequence[str], most: int) -> int:
        found = await self.groups.take_back(device_ids, most)
        assert found == await super().take_back(device_ids, most)
        return found


def _said(taken: ClaimedJob) -> tuple[object, ...]:
    return taken.claim, taken.opted_out, taken.next


def _counts(device: Device) -> tuple[object, ...]:
    counts = (device.day, device.sent, device.hour, device.hour_sent, device.last_at, device.days)
    return device.id, device.state, device.paused_at is not None, counts
