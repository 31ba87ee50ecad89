"""The session of a device: what all commands about sessions need, and `shardd device take-over` and `logout`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import click

from shardd.cli.acts import acting, acts, under_way
from shardd.cli.database import command_pool, reach_dsn
from shardd.cli.help import examples
from shardd.cli.names import confirm, id_argument
from shardd.cli.options import config_option, run_async, yes_option
from shardd.cli.output import say
from shardd.config import Config
from shardd.errors import DatabaseError, PairingError, PairingFailure, SharddError, UsageError
from shardd.pairing.context import SessionContext, session_settings
from shardd.queue.sessions import SessionAdmin, number_of
from shardd.states import DEVICE_REMEDY, DeviceState
from shardd.supervisor.cluster.session_store import sessions_dsn_of
from shardd.transports.whatsapp.linking.unlinking import forget_session

LOGOUT_TIMEOUT: Final = 600.0
"""Seconds for which a logout excludes a pairing; each of its steps has a shorter timeout."""


@asynccontextmanager
async def open_session_context(config: Config) -> AsyncGenerator[SessionContext]:
    """Connect to the database. Raises DatabaseError."""
    async with (
        reach_dsn(config, make=False) as dsn,
        command_pool(config, dsn, connections=2) as database,  # a pairing holds one of them
    ):
        yield SessionContext(session_settings(config, sessions_dsn_of(config, dsn)), database)


@click.command("take-over", epilog=examples("shardd device take-over berlin-1"))
@id_argument("device", "device_id")
@yes_option
@config_option
@acts("take over")
@run_async
async def take_over(device_id: str, yes: bool, config: Config) -> None:
    """Let a replaced device send again.

    WhatsApp keeps one connection per session: a new one ends the other. So first find the other program that uses the session
    of the device ID (an older gateway, or a shardd on another database with a copy of it) and stop it for good; otherwise the
    two replace each other forever.
    """
    async with open_session_context(config) as context:
        device = await context.device(device_id)
        if device.state != DeviceState.REPLACED:
            remedy = DEVICE_REMEDY[DeviceState(device.state)].format(id=device_id)
            raise UsageError(f"device {device_id} is not replaced but {device.state}: {remedy}")
        confirm(f"Is the other client that used +{number_of(device.session or '')} stopped for good?", yes=yes)
        async with acting(context.database, config, f"device {device_id}") as act:
            if not await SessionAdmin(act.database).take_over(device_id):
                raise UsageError(f"device {device_id} is not replaced any more; see: shardd device show {device_id}")
    say(f"device {device_id} is ready; if it is replaced again, the other client still runs")


@click.command("logout", epilog=examples("shardd device logout berlin-1"))
@id_argument("device", "device_id")
@click.option("--forget", is_flag=True, help="Only forget the session here; the phone still lists it as linked.")
@yes_option
@config_option
@acts("log out")
@run_async
async def logout(device_id: str, forget: bool, yes: bool, config: Config) -> None:
    """Unlink a device from its phone.

    Its session ends and the device ID becomes unpaired. Works while shardd runs. Its jobs wait for a new pairing.
    """
    async with open_session_context(config) as context:
        device = await context.device(device_id)
        if device.session is None:
            raise UsageError(f"device {device_id} has no session: there is nothing to log out")
        number = number_of(device.session)
        confirm(f"End the session of +{number} on device {device_id}?", yes=yes)
        async with (
            under_way(context.database, config, f"device {device_id}", "only here" if forget else ""),
            context.sessions.hold_pairing(device_id, patience=LOGOUT_TIMEOUT) as ours,
        ):
            if not ours:
                raise PairingError(
                    f"device {device_id} is being paired by another process right now", PairingFailure.BUSY
                )
            if not await context.sessions.unbind(device_id, device.session, "logged out by an operator"):
                raise UsageError(f"device {device_id} was changed meanwhile; see: shardd device show {device_id}")
            remark = None
            try:
                await context.close_client(device_id)
                if forget:
                    await forget_session(context.store, device.session)
                else:
                    remark = await context.unlink(device, device.session)
            except BaseException as error:
                # Also on ^C: a session that has not ended remains the device's.
                await context.sessions.restore(device)
                if isinstance(error, SharddError) and not isinstance(error, DatabaseError) and not forget:
                    raise SharddError(f"{error}; or forget it here only: --forget") from error
                raise
    done = (
        f"has forgotten +{number}; remove it on the phone too, under Linked devices"
        if forget
        else f"is logged out of +{number}"
    )
    if remark is not None:
        say(remark, err=True)
    say(f"device {device_id} {done}; pair it again: shardd device pair {device_id}")
