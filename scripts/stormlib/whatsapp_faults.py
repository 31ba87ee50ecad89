"""Faults between nodes and WhatsApp, of WhatsApp itself, and of the PgBouncer in front of the sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from stormlib.faults import Make, cut, part
from stormlib.link import Link
from stormlib.node import Node
from stormlib.phones import Phones
from stormlib.place import Place
from stormlib.plan import Fault, Kind

KINDS = {
    "cut node from WhatsApp": Kind(2, 0.1, 1.2),
    "part node from WhatsApp": Kind(2, 0.1, 1.2),
    "WhatsApp hangs up on all": Kind(2),
    "WhatsApp confirms late": Kind(1, 0.2, 1.0),
    "WhatsApp takes messages and hangs up": Kind(1, 0.2, 1.0),
    "WhatsApp hangs up on messages": Kind(1, 0.2, 1.0),
    "WhatsApp takes messages in silence": Kind(1, 0.1, 0.5),
    "kill PgBouncer": Kind(2, 0.0, 0.8),
}


def _whatsapp(node: Node) -> list[Link]:
    assert node.whatsapp is not None
    return [node.whatsapp]


@asynccontextmanager
async def _hang_up(place: Place, _: Fault) -> AsyncIterator[str]:
    yield f"{await _phones(place).server.async_control.call('cut')} connections"


def _server_fault(kind: str, **details: Any) -> Make:
    @asynccontextmanager
    async def make(place: Place, _: Fault) -> AsyncIterator[str]:
        control = _phones(place).server.async_control
        number = await control.call("inject", kind=kind, at="message", times=None, **details)
        yield kind
        await control.call("remove_fault", fault=number)

    return make


@asynccontextmanager
async def _kill_pooler(place: Place, _: Fault) -> AsyncIterator[str]:
    assert place.pooler is not None
    place.pooler.kill()
    yield "it"
    await place.pooler.start()


def _phones(place: Place) -> Phones:
    assert place.phones is not None
    return place.phones


MAKERS: dict[str, Make] = {
    "cut node from WhatsApp": cut(_whatsapp),
    "part node from WhatsApp": part(_whatsapp),
    "WhatsApp hangs up on all": _hang_up,
    "WhatsApp confirms late": _server_fault("delay", seconds=2.0),
    "WhatsApp takes messages and hangs up": _server_fault("drop", probability=0.3, accepted=True),
    "WhatsApp hangs up on messages": _server_fault("drop", probability=0.3),
    "WhatsApp takes messages in silence": _server_fault("ignore", probability=0.3, accepted=True),
    "kill PgBouncer": _kill_pooler,
}
