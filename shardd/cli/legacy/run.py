"""The steps of an import: devices first, then their sessions, then the messages. A rehearsal takes them too, changing nothing."""

from __future__ import annotations

from contextlib import closing
from datetime import datetime

from shardd.cli.legacy.jobs import JobImport
from shardd.cli.sessions import SessionContext, open_session_context
from shardd.config import Config
from shardd.errors import SourceError
from shardd.legacy.devices import SECRETS, DevicePlan, plan_devices
from shardd.legacy.old_system import OldSystem
from shardd.legacy.postgresql import PostgresqlSource
from shardd.legacy.report import Report
from shardd.legacy.tables import SESSIONS
from shardd.queue.imports import Imports
from shardd.queue.sessions import Adoption
from shardd.transports.whatsapp.sessions.importing import import_sessions
from shardd.transports.whatsapp.sessions.setup import prepare_store
from shardd.transports.whatsapp.sessions.store import SessionStore


async def take_over(config: Config, system: OldSystem, store: str | None, report: Report, now: datetime) -> None:
    """Do what the report then tells. `store`: the DSN of the old sessions, if they can be reached. Raises SharddError."""
    async with open_session_context(config) as context:
        imports = Imports(context.database, rehearse=report.dry_run)
        there = _list_sessions(store) if store else []
        plan = plan_devices(system.devices, await imports.known_devices(), there, report)
        _remark(system, store, plan, report)
        await imports.add_devices(plan.add)
        if report.dry_run:
            report.sessions["new"] = len(plan.sessions)
        elif store is not None and plan.sessions:
            await _move_sessions(context, store, plan, report)
        await JobImport(imports, plan, report, now).run(system.spool)


def _list_sessions(store: str) -> list[str]:
    """By their keys alone: the store may be of an older library, which knew less about a session."""
    with closing(PostgresqlSource(store)) as source:
        sessions = [row["jid"] or "" for _, row in source.scan(SESSIONS)]
        if source.columns(SESSIONS) is None:
            raise SourceError(
                f"{source.name} has no table {SESSIONS.name}: name the database of the old sessions with --sessions"
            )
        return sessions


async def _move_sessions(context: SessionContext, store: str, plan: DevicePlan, report: Report) -> None:
    """Copy the sessions into shardd's store, unless it is the same, and give them to their devices."""
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
    """What was assumed, and what is left to do for a person."""
    tokens = sum(bool(device.settings) for device in plan.add)
    if tokens:
        what = ", ".join(f"{setting} of {transport}" for transport, setting in SECRETS.items())
        report.remarks.append(
            f"the jid of {tokens} platform devices was taken as what they prove themselves with ({what})"
        )
    if store is None and system.sessions:
        report.remarks.append(
            f"{len(system.sessions)} WhatsApp sessions stand in the source, and stay there: they are copied from a PostgreSQL "
            "database only. Restore the whatsmeow_* tables into one, and import again with --sessions DSN; else pair the devices"
        )
