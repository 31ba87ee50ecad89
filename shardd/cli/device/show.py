"""`shardd device list` and `show`. Passwords and secrets are masked, also in JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from shardd.cli.database import with_database
from shardd.cli.device.outlook import ask_outlook, next_words, warm_days
from shardd.cli.help import examples
from shardd.cli.listing import WIDE, Column, Listing
from shardd.cli.names import id_argument
from shardd.cli.options import OneOf, database_config_option, json_option
from shardd.cli.output import SANDBOX, Facts, Lines, make_console, make_facts, print_json, state_text, transport_text
from shardd.config import TRANSPORTS, Config
from shardd.config.transports.device_settings import masked_settings
from shardd.hashing import shard_of
from shardd.queue.database import Database
from shardd.queue.devices import SHOWN_STATES, DeviceAdmin, DeviceRow
from shardd.queue.unknown_device import unknown_device
from shardd.states import PAUSED, DeviceState
from shardd.supervisor.scheduling.device_json import device_json, masked_proxy, outlook_json
from shardd.supervisor.scheduling.device_words import (
    BACKING_OFF,
    last_sent_words,
    pace_facts,
    to_do,
    today_words,
    visit_facts,
    why_words,
)
from shardd.supervisor.scheduling.outlook_words import Outlook, sent_words
from shardd.words import count, json_text, moment_text


def _listing(config: Config, *, chosen: bool) -> Listing[DeviceRow]:
    """`chosen`: only some devices were asked for."""
    first = "no devices yet; add some with: shardd device add ID --transport whatsapp"
    return Listing(
        one="device",
        none="no such devices; all of them: shardd device list" if chosen else first,
        transport=lambda device: device.transport,
        columns=[
            Column("id", lambda device: device.id),
            Column("transport", lambda device: transport_text(device.transport)),
            Column("state", lambda device: state_text(device.shown_state), whole=True),
            Column("jobs", lambda device: str(device.jobs), right=True),
            Column("today", lambda device: today_words(device, config.pacing), right=True),
            Column("last sent", lambda device: last_sent_words(device, config.pacing), whole=True),
            Column("shard", lambda device: str(shard_of(device.id, config.shards)), right=True, at_least=WIDE),
            Column("label", lambda device: device.label or "", at_least=WIDE),
            Column("why", why_words),
        ],
    )


@click.command("list", epilog=examples("shardd device list --state=paused"))
@click.option(
    "--state", type=OneOf(SHOWN_STATES), metavar="STATE", help=f"Only devices in this state: {', '.join(SHOWN_STATES)}."
)
@click.option("--transport", type=OneOf(list(TRANSPORTS)), help="Only devices of this transport.")
@json_option("Print a list of objects as of `device show --json`, for programs.")
@database_config_option
def list_(state: str | None, transport: str | None, as_json: bool, config: Config) -> None:
    """List devices."""
    days = warm_days(config)
    found = with_database(
        config, lambda database: DeviceAdmin(database).find(state=state, transport=transport, warm_days=days)
    )
    states = Counter(device.shown_state for device in found)
    total = ": " + ", ".join(f"{number:,} {one}" for one, number in states.most_common())
    listing = _listing(config, chosen=state is not None or transport is not None)
    listing.show(found, as_json=as_json, total=total, plain=lambda device: _device_json(device, config))


@click.command("show", epilog=examples("shardd device show berlin-1"))
@id_argument("device", "device_id")
@json_option("Print an object, for programs; passwords are masked.")
@database_config_option
def show(device_id: str, as_json: bool, config: Config) -> None:
    """Show a device, and when it may send next."""

    async def find(database: Database) -> DeviceRow:
        for device in await DeviceAdmin(database).find(ids=[device_id], warm_days=warm_days(config)):
            return device
        raise await unknown_device(database, device_id)

    device = with_database(config, find)
    outlook = ask_outlook(device, config)
    if as_json:
        print_json(_device_json(device, config) | outlook_json(outlook))
    else:
        make_console().print(make_facts(_facts(device, config, outlook)))


def _device_json(device: DeviceRow, config: Config) -> dict[str, Any]:
    every = config.transports.whatsapp.visit_every
    return device_json(device, config.pacing, shards=config.shards, visit_every=every)


def _facts(device: DeviceRow, config: Config, outlook: Outlook) -> Facts:
    transport = transport_text(device.transport)
    if device.transport == SANDBOX:
        transport.append(": its messages reach nobody")
    settings = masked_settings(device.transport, device.settings)
    in_flight = f", {device.in_flight} in flight" if device.in_flight else ""
    return [
        ("device", device.id),
        ("label", device.label),
        ("transport", transport),
        *_state_facts(device),
        ("to do", BACKING_OFF if outlook.device.error is not None else to_do(device)),
        ("jobs", f"{count(device.jobs, 'live job')}{in_flight}"),
        ("may send", Lines(next_words(outlook))),
        ("sent today", sent_words(outlook)),
        ("last sent", moment_text(device.last_at)),
        *visit_facts(device, config.transports.whatsapp.visit_every),
        *pace_facts(outlook.pace, device),
        ("shard", f"{shard_of(device.id, config.shards)} of {config.shards}"),
        ("session", device.session),
        ("proxy", masked_proxy(device.proxy)),
        ("settings", json_text(settings or None)),
        ("added", moment_text(device.created_at)),
    ]


def _state_facts(device: DeviceRow) -> Facts:
    facts: Facts = [("state", state_text(device.state))]
    if device.paused_at is not None:
        paused = state_text(PAUSED).append(f" since {moment_text(device.paused_at)}", "default")
        facts = [("state", paused), ("why", device.paused_why), ("otherwise", state_text(device.state))]
    if device.state != DeviceState.READY:
        facts += [("why", device.reason), ("since", moment_text(device.state_since))]
        facts.append(("until", moment_text(device.state_until)))
    return facts
