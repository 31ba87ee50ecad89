"""The steps of an import: devices, then their sessions, then the messages in batches. A dry run changes nothing."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from datetime import datetime, timedelta
from typing import Final

from shardd.cli.acts import under_way
from shardd.cli.device.session import open_session_context
from shardd.config import Config
from shardd.errors import SourceError
from shardd.legacy.devices import SECRETS, DevicePlan, plan_devices
from shardd.legacy.messages import AFTER_UNSENT
from shardd.legacy.old_system import OldSystem
from shardd.legacy.postgresql import PostgresqlSource
from shardd.legacy.report import Report
from shardd.legacy.spool import Spool
from shardd.legacy.tables import MESSAGES, SESSIONS
from shardd.pairing.context import SessionContext
from shardd.phone_numbers import calling_codes
from shardd.queue.act_log import UnderWay
from shardd.queue.acts import joined
from shardd.queue.imports import BATCH, Admission, ImportedJob, Imports
from shardd.queue.opt_outs import OptOuts
from shardd.queue.sessions import Adoption
from shardd.transports.whatsapp.sessions.importing import import_sessions
from shardd.transports.whatsapp.sessions.setup import prepare_store
from shardd.transports.whatsapp.sessions.store import SessionStore
from shardd.words import count

OVERDUE: Final = timedelta(days=1)


async def take_over(config: Config, system: OldSystem, store: str | None, report: Report, now: datetime) -> None:
    """Import, and fill the report. `store`: the DSN of the old sessions, if they can be reached. Raises SharddError."""
    async with open_session_context(config) as context:
        recorded: AbstractAsyncContextManager[UnderWay] = nullcontext(UnderWay(""))
        if not report.dry_run:
            recorded = under_way(context.database, config, "another system", report.source)
        async with recorded as here:
            imports = Imports(context.database, dry_run=report.dry_run)
            # By these, the database reads numbers without country code; no node may have stored them yet.
            codes = calling_codes(config.transports.regions)
            await OptOuts(context.database).configure(config.opt_outs.exempt or (), codes)
            there = _list_sessions(store) if store else []
            plan = plan_devices(system.devices, await imports.known_devices(), there, report)
            _remark(system, store, plan, report)
            await imports.add_devices(plan.add)
            if report.dry_run:
                report.sessions["new"] = len(plan.sessions)
            elif store is not None and plan.sessions:
                await _move_sessions(context, store, plan, report)
            await _JobImport(imports, plan, report, now).run(system.spool)
            new = [(report.devices["new"], "new device"), (report.messages["new"], "new message")]
            here.detail = joined(report.source, *(count(number, one) for number, one in new))


def _list_sessions(store: str) -> list[str]:
    """By their keys alone: the store of an older library has fewer columns."""
    with closing(PostgresqlSource(store)) as source:
        sessions = [row["jid"] or "" for _, row in source.scan(SESSIONS)]
        if SESSIONS.name not in source.found:
            raise SourceError(
                f"{source.name} has no table {SESSIONS.name}: name the database of the old sessions with --sessions"
            )
        return sessions


async def _move_sessions(context: SessionContext, store: str, plan: DevicePlan, report: Report) -> None:
    """Copy the sessions into shardd's store, unless it is the same, and bind them to their devices."""
    await prepare_store(context.store, pgbouncer=context.pgbouncer)
    ours = SessionStore(context.store)
    try:
        here = {session.jid for session in await ours.list_sessions()}
    finally:
        await ours.close()
    new = [session for session in plan.sessions.values() if session not in here]
    if new:
        await import_sessions(store, context.store, new)
    ids, sessions = list(plan.sessions), list(plan.sessions.values())
    adopted = await context.sessions.adopt(Adoption(ids=ids, sessions=sessions, labels=[None] * len(ids)))
    report.sessions["new"] = len(adopted)
    for device, session in plan.sessions.items():
        if device not in adopted:
            report.refuse(SESSIONS.name, session, "its device or its number was taken meanwhile; import again", device)


def _remark(system: OldSystem, store: str | None, plan: DevicePlan, report: Report) -> None:
    """What was assumed, and what is left to do by hand."""
    tokens = sum(bool(device.settings) for device in plan.add)
    if tokens:
        what = ", ".join(f"{setting} of {transport}" for transport, setting in SECRETS.items())
        report.remarks.append(f"the jid of {tokens} platform devices was used as their credential ({what})")
    if store is None and system.sessions:
        report.remarks.append(
            f"{len(system.sessions)} WhatsApp sessions in the source are left out: sessions are copied from PostgreSQL only. "
            "Restore the whatsmeow_* tables into a database, and import again with --sessions DSN; or pair the devices"
        )


class _JobImport:
    """The messages of one import."""

    def __init__(self, imports: Imports, plan: DevicePlan, report: Report, now: datetime) -> None:
        self._imports = imports
        self._plan = plan
        self._report = report
        self._now = now
        self._campaigns: set[str] = set()
        self._new_campaigns: set[str] = set()

    async def run(self, spool: Spool) -> None:
        """Insert the jobs of the spool, in its order. Raises DatabaseError."""
        batch: list[ImportedJob] = []
        unsent: str | None = None
        for group, job in spool.jobs():
            if job is None:
                unsent = group
            elif group is not None and group == unsent:
                self._report.refuse(MESSAGES.name, job.reference, AFTER_UNSENT, group)
            elif job.device_id not in self._plan.ids:
                self._report.refuse(MESSAGES.name, job.reference, "its device is not imported", job.device_id)
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
        admission = await self._imports.admit(batch)
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
