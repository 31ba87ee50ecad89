"""`shardd device move`: a device leaves this region for another one, whose database a second config names.

Its session is taken from the device here, its client is closed, and nobody opens another one; then the session is copied, and
deleted here exactly as it was copied; only then does the other region let the device send. So at no moment can both open a
client, wherever this is interrupted, and repeating it goes on: until it has come, the device is `replaced` there, with the
session that it will have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import click

from shardd.cli.acts import acts, record, under_way
from shardd.cli.device.session import LOGOUT_TIMEOUT, open_session_context
from shardd.cli.help import examples
from shardd.cli.names import confirm, id_argument
from shardd.cli.options import config_option, load_other_config, other_region_option, run_async, yes_option
from shardd.cli.output import say
from shardd.cli.regions import names_of
from shardd.config import Config
from shardd.control_client import ask
from shardd.errors import DatabaseError, NotRunningError, PairingError, SharddError, UsageError
from shardd.hashing import shard_of
from shardd.pairing.context import CLOSE_TIMEOUT, WITH_SESSIONS, SessionContext, close_path
from shardd.queue.devices import DeviceAdmin, DeviceRow
from shardd.queue.job_admin import JobAdmin
from shardd.queue.moving import Arrivals, Departures, copy_opt_outs, gone_with, has_gone
from shardd.queue.unknown_device import unknown_device
from shardd.states import CAN_SEND, DeviceState
from shardd.supervisor.cluster.node_shares import look
from shardd.transports.whatsapp.sessions.importing import move_session
from shardd.transports.whatsapp.sessions.setup import prepare_store
from shardd.transports.whatsapp.sessions.store import SessionStore
from shardd.words import count

REPEAT: Final = "then repeat shardd device move"


@click.command("move", epilog=examples("shardd device move berlin-1 --to=/etc/shardd/asia.yaml"))
@id_argument("device", "device_id")
@other_region_option
@yes_option
@config_option
@acts("move")
@run_async
async def move(device_id: str, target: Path, yes: bool, config: Config) -> None:
    """Move a device to another region.

    To another database, which a second config names, with its session, settings and counts, and all opt-outs of this region. Run
    it on the host that serves the device, with the config of that host. No job may wait for the device: let them be sent, or
    cancel them and insert them there. Repeat it if it was interrupted. Afterwards, lead the programs that insert for the device
    to the other database.
    """
    other = load_other_config(target)
    here_name, there_name = names_of([config, other])
    async with open_session_context(config) as here, open_session_context(other) as there:
        move = Move(here, there, device_id, there_name)
        if not await move.begun():
            number = (await move.check()).session
            whose = "" if number is None else f" with the session of +{number.partition(':')[0].partition('@')[0]}"
            confirm(f"Move device {device_id}{whose} to {there_name}?", yes=yes)
        what = f"device {device_id}"
        async with under_way(here.database, config, what, f"to {there_name}"):
            await move.run()
        await record(there.database, other, what, f"from {here_name}")


@dataclass(frozen=True, slots=True)
class Move:
    """One device, and the two regions."""

    here: SessionContext
    there: SessionContext
    device_id: str
    there_name: str
    deleting: asyncio.Event = field(default_factory=asyncio.Event)
    """The session may be gone here, whatever the answer of the database was."""

    async def begun(self) -> bool:
        """Whether it has left already, by an earlier try. Raises UsageError for a device that is not here."""
        device = await self._here()
        return device.session is None and device.state == DeviceState.UNPAIRED and has_gone(device.reason)

    async def check(self) -> DeviceRow:
        """The device, which can leave. Raises UsageError."""
        device = await self._here()
        if device.state not in CAN_SEND:
            raise UsageError(f"device {self.device_id} is {device.state}: only a device that can send is moved")
        if device.transport in WITH_SESSIONS and device.session is None:
            raise UsageError(f"device {self.device_id} has no session: add it there, and pair it")
        if device.session is not None:
            await self._lease()
        await JobAdmin(self.here.database).return_to_pools([self.device_id])
        if jobs := (await self._here()).jobs:
            raise UsageError(
                f"{count(jobs, 'job')} of device {self.device_id} would stay here: wait until they are sent, or cancel them and "
                f"insert them there: shardd job cancel --device={self.device_id}; {REPEAT}"
            )
        return device

    async def run(self) -> None:
        """All steps that are left."""
        async with self.here.sessions.hold_pairing(self.device_id, patience=LOGOUT_TIMEOUT) as ours:
            if not ours:
                raise PairingError(f"device {self.device_id} is being paired or moved by another process right now")
            if not await self.begun():
                await self._leave()
            session = await self._session_there()
            opted_out = await copy_opt_outs(self.here.database, self.there.database)
            if session is not None and not await self._is_there(session):
                raise SharddError(f"no region has the session of device {self.device_id}: pair it there")
            days = await Departures(self.here.database).days(self.device_id)
            await Arrivals(self.there.database).take_days(days)
            await Arrivals(self.there.database).has_come(self.device_id)
        copied = f", and copied {count(opted_out, 'opt-out')}" if opted_out else ""
        say(f"moved device {self.device_id} to {self.there_name}{copied}; lead the programs that insert for it there")
        if not await DeviceAdmin(self.here.database).remove([self.device_id]):
            raise UsageError(
                f"meanwhile jobs were inserted here for device {self.device_id}, which are not sent; cancel them, and insert "
                f"them there: shardd device remove {self.device_id} --cancel-jobs"
            )

    async def _here(self) -> DeviceRow:
        found = await DeviceAdmin(self.here.database).find(ids=[self.device_id])
        if not found:
            raise await unknown_device(self.here.database, self.device_id)
        return found[0]

    async def _leave(self) -> None:
        """Take the session from the device, move it, and be sure that nobody uses it. Undone if that fails before it is there."""
        device = await self.check()
        if device.session is not None:
            await prepare_store(self.there.store, pgbouncer=self.there.pgbouncer)
        leaving = Departures(self.here.database)
        if not await Arrivals(self.there.database).expect(await leaving.row(self.device_id)):
            raise UsageError(
                f"{self.there_name} has a device {self.device_id} already, or another one of its number; nothing was changed"
            )
        if not await leaving.let_go(self.device_id, device.session):
            raise UsageError(f"device {self.device_id} was changed meanwhile, or got a job; nothing was changed")
        try:
            await self._move_session(device.session)
        except BaseException:
            # Also on ^C: a session that did not begin to leave remains the device's.
            if not self.deleting.is_set():
                await self.here.sessions.restore(device)
            raise

    async def _move_session(self, session: str | None) -> None:
        if session is None:
            return
        shard, epoch = await self._close()

        @asynccontextmanager
        async def sure() -> AsyncGenerator[None]:
            async with Departures(self.here.database).same_holder(shard, epoch) as same:
                if not same:
                    raise SharddError(f"another node took over device {self.device_id} meanwhile; {REPEAT} there")
                self.deleting.set()
                yield

        await move_session(self.here.store, self.there.store, session, sure)

    async def _close(self) -> tuple[int, int | None]:
        """Have the node that serves the device close its client; what `_lease` returns. Raises SharddError."""
        shard, epoch = await self._lease()
        if epoch is not None:
            await ask(self.here.control_socket, "POST", close_path(self.device_id), timeout=CLOSE_TIMEOUT)
        return shard, epoch

    async def _lease(self) -> tuple[int, int | None]:
        """Its shard, and the epoch under which this host holds that; None: no host does. Raises UsageError for another one's."""
        nodes, sharing = await look(self.here.database)
        shard = shard_of(self.device_id, sharing.shards) if nodes else 0
        holder = await Departures(self.here.database).shard_holder(shard)
        if holder is None:
            return shard, None
        own: list[int | None] = []
        with suppress(NotRunningError):
            status = await ask(self.here.control_socket, "GET", "/status")
            own = [one["epoch"] for one in status["shards"] if one["shard"] == shard]
        if own != [holder.epoch]:
            raise UsageError(
                f"device {self.device_id} is served by node {holder.node} on host {holder.host}: run this there, with its "
                "config; if that node is dead, when its lease is over (lease.ttl)"
            )
        return shard, holder.epoch

    async def _session_there(self) -> str | None:
        """The session that the device has there, after one more try to move it. Raises UsageError if the device is not there."""
        session, found = (await self._here()).reason, await DeviceAdmin(self.there.database).find(ids=[self.device_id])
        if not found or session != gone_with(found[0].session):
            raise UsageError(
                f"{self.there_name} does not expect device {self.device_id}: name the region to which its move began"
            )
        if found[0].session is not None and await self._is_here(found[0].session):
            await self._move_session(found[0].session)
        return found[0].session

    async def _is_here(self, session: str) -> bool:
        return await _has(self.here, session)

    async def _is_there(self, session: str) -> bool:
        return await _has(self.there, session)


async def _has(context: SessionContext, session: str) -> bool:
    store = SessionStore(context.store)
    try:
        return await store.session_digest(session) is not None
    except DatabaseError as error:
        raise DatabaseError(f"{context.settings.source}: {error}") from error
    finally:
        await store.close()
