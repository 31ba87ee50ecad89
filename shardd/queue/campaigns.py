"""Campaigns as the router needs them: the statements of `sql/campaigns.sql` as typed calls."""

from __future__ import annotations

from datetime import date

from shardd.queue.database import Database
from shardd.queue.records import Campaign


class Campaigns:
    """The campaigns' statements over a database. Every call raises DatabaseError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def running(self) -> dict[str, Campaign]:
        """Every campaign whose jobs may be sent, by id."""
        return {row[0]: Campaign(row[1], row[2]) for row in await self._database.fetch_all("running_campaigns")}

    async def sends(self, since: date) -> list[tuple[str, str, date, int]]:
        """(campaign, device, day, messages) of running campaigns with a cap since a day."""
        rows = await self._database.fetch_all("campaign_sends", {"since": since})
        return [(row[0], row[1], row[2], row[3]) for row in rows]
