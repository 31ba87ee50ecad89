"""`shardd device set`: what is different about devices from now on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import click

from shardd.cli.database import with_database
from shardd.cli.device.pace import DEFAULT, check_pace, pace_options, read_pace
from shardd.cli.device.settings import read_proxy, read_settings
from shardd.cli.names import Refusals, device_ids
from shardd.cli.options import config_option
from shardd.cli.output import count, say
from shardd.config import Config
from shardd.config.transports.device_settings import check_device
from shardd.errors import SharddError, UsageError
from shardd.pacing import CLASSES
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin, DeviceChange, DeviceRow


@click.command("set")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--label", help="A name for people; empty: none.")
@click.option("--proxy", help="Proxy of their connections: http://user:password@host:port or socks5://…")
@click.option(
    "--settings", metavar="JSON", help="Settings of the transport, as a JSON object, in place of all of them."
)
@pace_options
@click.option(
    "--clear-class",
    "cleared",
    multiple=True,
    type=click.Choice(CLASSES),
    help="Take all settings of a class away, so that it is as configured.",
)
@config_option
def set_(
    *,
    ids: tuple[str, ...],
    label: str | None,
    proxy: str | None,
    settings: str | None,
    cleared: tuple[str, ...],
    config: Config,
    **pace: Any,
) -> None:
    """Change settings of devices; what is not named stays. The word `default` makes a setting as configured.

    A shardd that runs takes the change over at once.
    """
    fields, classes = read_pace(**pace)
    if label is not None:
        fields["label"] = label or None
    if proxy is not None:
        fields["proxy"] = None if proxy == DEFAULT else read_proxy(proxy)
    if settings is not None:
        fields["settings"] = read_settings(settings)
    if not fields and not classes and not cleared:
        raise UsageError("nothing is to change: name what does, such as --gap 5s..15s; see shardd device set --help")
    names = device_ids(ids)
    change = DeviceChange(fields=fields, classes=classes, cleared=cleared)
    done = with_database(config, lambda database: _set(database, config, names, change))
    if done:
        say(f"changed {count(len(done), 'device')}")
    refusals = Refusals()
    refusals.tell([one for one in names if one not in done], "device", "unknown")
    refusals.finish()


async def _set(database: Database, config: Config, names: Sequence[str], change: DeviceChange) -> set[str]:
    devices = DeviceAdmin(database)
    for device in await devices.find(ids=names):
        changed = _changed(device, change)
        try:
            check_pace(config, changed)
            if "settings" in change.fields or "proxy" in change.fields:
                check_device(changed.transport, changed.settings, changed.proxy)
        except SharddError as error:
            raise UsageError(f"device {device.id}: {error}; nothing was changed") from None
    return await devices.change(names, change)


def _changed(device: DeviceRow, change: DeviceChange) -> DeviceRow:
    """The device as it will be."""
    kept = {name: settings for name, settings in device.classes.items() if name not in change.cleared}
    merged = {name: {**kept.get(name, {}), **change.classes.get(name, {})} for name in {*kept, *change.classes}}
    return dataclasses.replace(device, classes=merged, **change.fields)
