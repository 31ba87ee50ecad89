"""Whether the device and the campaign that filters of jobs name ever existed: a typo must not look like "no such jobs"."""

from __future__ import annotations

from shardd.errors import UsageError
from shardd.queue.campaigns import CampaignAdmin
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin
from shardd.queue.job_admin import Traits
from shardd.queue.unknown_device import unknown_device


async def check_names(database: Database, traits: Traits) -> None:
    """Raise UsageError for one that did not. Raises DatabaseError, too."""
    for device in traits.device_ids or ():
        if not await DeviceAdmin(database).was_there(device):
            raise await unknown_device(database, device)
    for campaign in filter(None, (traits.campaign, traits.revokes_campaign)):
        if await CampaignAdmin(database).title(campaign) is None:
            raise UsageError(f"campaign {campaign} is unknown; the others: shardd campaign list")
