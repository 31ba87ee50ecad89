"""`shardd device link`: links with which the owners of phones link them to devices, in a browser."""

from __future__ import annotations

from typing import Final

import click

from shardd.cli.acts import acts, change
from shardd.cli.help import examples
from shardd.cli.names import ids_argument, login_name, refuse
from shardd.cli.options import OneOf, config_option, json_option
from shardd.cli.output import print_json, say
from shardd.config import Config
from shardd.errors import UsageError
from shardd.pairing.context import WITH_SESSIONS
from shardd.pairing.link_address import warning_of
from shardd.queue.devices import DeviceAdmin
from shardd.queue.pairing_links import MINUTES, USUAL_MINUTES, MadeLink, PairingLinks
from shardd.queue.queries import Queries

UNKNOWN: Final = "unknown"
NO_PHONE: Final = f"no link was made: only {' and '.join(WITH_SESSIONS)} devices have a phone"


@click.command(
    "link", epilog=examples("shardd device link berlin-1", "shardd device link --minutes=60 --json - < ids.txt")
)
@ids_argument("device")
@click.option(
    "--minutes",
    type=OneOf([str(one) for one in MINUTES]),
    default=str(USUAL_MINUTES),
    show_default=True,
    help="How long the links live.",
)
@click.option("--new-number", is_flag=True, help="Allow another number than the device had before.")
@json_option("Print a list of objects with device, link and ends_at, for programs.")
@config_option
@acts("make pairing links")
def link(*, ids: list[str], minutes: str, new_number: bool, as_json: bool, config: Config) -> None:
    """Make links for linking phones without a terminal.

    The owner of the phone opens the link on any screen, and gets a QR code, or a code to type. Each link is for one device and
    one browser, and replaces the device's last one. It is printed once: only its hash is stored.
    """
    site = _address(config)

    async def make(database: Queries) -> tuple[list[MadeLink], dict[str, list[str]]]:
        made = await PairingLinks(database).make(
            ids, lives=60.0 * int(minutes), made_by=login_name(), new_number=new_number
        )
        without = [one for one in ids if one not in made]
        known = {one.id for one in await DeviceAdmin(database).find(ids=without)} if without else set()
        refused = {
            UNKNOWN: [one for one in without if one not in known],
            NO_PHONE: [one for one in without if one in known],
        }
        return [made[one] for one in ids if one in made], refused

    made, refused = change(
        config,
        "device",
        make,
        changed=lambda result: [one.device_id for one in result[0]],
        detail=lambda _: f"for {minutes} minutes",
    )
    if as_json:
        print_json([{"device": one.device_id, "link": one.url(site), "ends_at": one.ends_at} for one in made])
    else:
        for one in made:
            say(one.url(site) if len(ids) == 1 else f"{one.device_id} {one.url(site)}")
    if made and (warning := warning_of(config.dashboard.origin, site)) is not None:
        say(f"warning: {warning}", err=True)
    refuse("device", refused)


def _address(config: Config) -> str:
    """Where browsers find the page. Raises UsageError."""
    if config.dashboard.origin is not None:
        return config.dashboard.origin
    if config.dashboard.listen is None:
        raise UsageError(
            "dashboard.listen is null, and so is dashboard.origin: nobody could open a link; set one of them"
        )
    return f"http://{config.dashboard.listen}"
