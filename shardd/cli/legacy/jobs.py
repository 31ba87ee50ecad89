"""Bringing the messages of another system into the queue, in batches, and counting what becomes of each."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Final

from shardd.legacy.devices import DevicePlan
from shardd.legacy.messages import AFTER_UNSENT
from shardd.legacy.report import Report
from shardd.legacy.spool import Spool
from shardd.legacy.tables import MESSAGES
from shardd.queue.imports import BATCH, Admission, ImportedJob, Imports

OVERDUE: Final = timedelta(days=1)


class JobImport:
    """One import's messages."""

    def __init__(self, imports: Imports, plan: DevicePlan, report: Report, now: datetime) -> None:
        self._imports = imports
        self._plan = plan
        self._report = report
        self._now = now
        self._new_devices = {device.id: device for device in plan.add}
        self._campaigns: set[str] = set()
        self._new_campaigns: set[str] = set()

    async def run(self, spool: Spool) -> None:
        """Insert what the spool has, in its order. Raises DatabaseError."""
        batch: list[ImportedJob] = []
        unsent: str | None = None
        for group, job in spool.jobs():
            if job is None:
                unsent = group
            elif group is not None and group == unsent:
                self._report.refuse(MESSAGES.name, job.reference, AFTER_UNSENT, group)
            elif job.device_id not in self._plan.ids:
                self._report.refuse(MESSAGES.name, job.reference, "its device is not taken over", job.device_id)
                unsent = group
            else:
                batch.append(dataclasses.replace(job, device_id=self._plan.ids[job.device_id]))
                if len(batch) == BATCH:
                    await self._admit(batch)
                    batch.clear()
        await self._admit(batch)
        self._report.campaigns["new"] = len(self._new_campaigns)
        self._report.campaigns["existing"] = len(self._campaigns - self._new_campaigns)

    async def _admit(self, batch: list[ImportedJob]) -> None:
        devices = [self._new_devices[one] for one in {job.device_id for job in batch} & self._new_devices.keys()]
        admission = await self._imports.admit(batch, devices)
        self._campaigns.update(job.campaign for job in batch if job.campaign is not None)
        self._new_campaigns |= admission.campaigns
        self._report.messages["opted_out"] += len(admission.opted_out)
        for job in batch:
            self._count(job, admission)

    def _count(self, job: ImportedJob, admission: Admission) -> None:
        key, row = job.dedupe_key, job.reference
        if key in admission.added:
            self._report.messages["new"] += 1
            self._report.messages["overdue"] += job.run_at < self._now - OVERDUE
        elif key in admission.refused:
            column, words = admission.refused[key]
            self._report.refuse(MESSAGES.name, row, f"the queue refuses its {column or 'row'}", words)
        elif key in admission.after_refused:
            self._report.refuse(MESSAGES.name, row, AFTER_UNSENT, job.order_group or "")
        else:
            self._report.messages["existing"] += 1
