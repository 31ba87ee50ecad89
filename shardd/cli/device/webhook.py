"""`shardd device webhook`: what is entered at Wablas and Whacenter, so that they report to shardd."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import click

from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.listing import Column, Listing
from shardd.cli.names import ids_argument, without
from shardd.cli.options import config_option, json_list_option
from shardd.config import Config
from shardd.config.transports.platforms import WITH_PATHS
from shardd.config.transports.webhook_paths import webhook_path
from shardd.errors import UsageError
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin, DeviceRow
from shardd.queue.unknown_device import unknown_device


@dataclass(frozen=True, slots=True)
class _Webhook:
    id: str
    path: str


_LISTING: Final = Listing[_Webhook](
    one="path",
    none="no such devices",
    columns=[Column("id", lambda one: one.id, whole=True), Column("path", lambda one: one.path, whole=True)],
)


@click.command("webhook", epilog=examples("shardd device webhook jakarta-1"))
@ids_argument("device")
@json_list_option
@config_option
def webhook(ids: list[str], as_json: bool, config: Config) -> None:
    """Print the secret paths of devices of Wablas and Whacenter.

    Enter the https URL of your web server with this path at the platform. Whoever knows a path can report for its device,
    opt-outs included.
    """

    async def find(database: Database) -> list[DeviceRow]:
        found = {one.id: one for one in await DeviceAdmin(database).find(ids=ids)}
        for unknown in without(ids, found):
            raise await unknown_device(database, unknown)
        return [found[device_id] for device_id in ids]

    paths = []
    for device in with_database(config, find):
        if device.transport not in WITH_PATHS:
            raise UsageError(
                f"device {device.id} is of transport {device.transport}; only those of {' and '.join(WITH_PATHS)} have a path"
            )
        secret = getattr(config.transports, device.transport).webhook.secret
        if secret is None:
            raise UsageError(
                f"the config has no transports.{device.transport}.webhook.secret; write it as ${{NAME}}, with listen beside it"
            )
        paths.append(_Webhook(device.id, webhook_path(secret, device.transport, device.id)))
    _LISTING.show(paths, as_json=as_json, plain=asdict, counted=False)
