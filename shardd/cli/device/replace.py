"""`shardd device replace`: the jobs of a number that is dead go to another one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import click

from shardd.cli.database import reach_database
from shardd.cli.names import device_ids
from shardd.cli.options import database_config_option
from shardd.cli.output import SANDBOX, count, say
from shardd.config import Config
from shardd.config.transports.device_settings import remedy_of
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin, DeviceRow
from shardd.queue.jobs import JobAdmin, Traits
from shardd.states import CAN_SEND, DeviceState, JobState


@dataclass(frozen=True, slots=True)
class Moved:
    """What came of it."""

    moved: int
    back: int
    """Jobs of groups, for whose other devices they wait now."""
    left: int
    new: DeviceRow


@click.command("replace")
@click.argument("old")
@click.argument("new")
@database_config_option
def replace(old: str, new: str, config: Config) -> None:
    """Move the jobs that wait for the device OLD to the device NEW.

    A job that a worker has in flight stays with OLD. The gap and the daily limit of NEW hold for all its jobs. OLD itself is
    left as it is: point the producers to NEW, too. Jobs of device groups go to the other devices of their groups.
    """
    old, new = device_ids([old])[0], device_ids([new])[0]
    if old == new:
        raise UsageError(f"{old} cannot replace itself: name two devices")
    result = asyncio.run(_replace(config, old, new))
    say(f"moved {count(result.moved, 'job')} from {old} to {new}")
    if result.back:
        say(f"{count(result.back, 'job')} of device groups went back to their groups")
    if result.left:
        verb = "stays" if result.left == 1 else "stay"
        say(
            f"{count(result.left, 'job')} {verb} with {old}: a worker has them in flight; try again for what comes back"
        )
    if result.new.paused_at is not None:
        say(f"they wait: {new} is paused; let it send: shardd device resume {new}")
    elif (state := DeviceState(result.new.state)) not in CAN_SEND:
        say(f"they wait: {new} is {state}; {remedy_of(result.new.transport, state).format(id=new)}")


async def _replace(config: Config, old: str, new: str) -> Moved:
    async with reach_database(config) as database:
        before, after = await _both(database, old, new)
        if (before.transport == SANDBOX) != (after.transport == SANDBOX):
            raise UsageError(
                f"{old} sends by {before.transport} and {new} by {after.transport}: "
                "what is meant for people and what is meant for nobody are kept apart"
            )
        jobs = JobAdmin(database)
        back = await jobs.give_back([old])
        moved = await jobs.move(old=old, new=new)
        left = await jobs.count_cancels(Traits(state=JobState.SENDING, device_ids=[old]))
        return Moved(moved, back, sum(pile.jobs for pile in left), after)


async def _both(database: Database, old: str, new: str) -> tuple[DeviceRow, DeviceRow]:
    found = {device.id: device for device in await DeviceAdmin(database).find(ids=[old, new])}
    for one in (old, new):
        if one not in found:
            raise UsageError(f"device {one} is unknown; the others: shardd device list")
    return found[old], found[new]
