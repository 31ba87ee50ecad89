"""Handling of the stanzas of a client; requests (iq) are answered by namespace."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..faults import Fault, Kind, Occasion, Stage
from ..state.accounts import PublicKeys
from ..state.groups import UnknownGroupError
from ..wire.nodes import JID, Attributes, Node
from . import messages, pairing
from .directory import answer_usync, no_keys, prekey_bundle

if TYPE_CHECKING:
    from .connection import ChatConnection

PREKEYS_LEFT = 50  # reported to the client, which uploads new ones if fewer than 5 are left
MEDIA_HOST = "mmg.whatsapp.net"
MEDIA_TTL = 86400
NOT_FOUND = 404
_SILENT = frozenset({"ack", "ib", "chatstate", "xmlstreamend"})
_PLAIN_RESULT = frozenset({"passive", "w:p", "privacy", "urn:xmpp:whatsapp:push", "abt", "w:stats"})


async def handle(connection: ChatConnection, node: Node) -> None:
    """Answer one stanza, or apply a fault instead."""
    if node.tag == "message":
        await messages.receive(connection, node)
    elif node.tag == "iq":
        fault = connection.network.faults.strike(_occasion(connection, node))
        if fault is None or await _goes_on(connection, node, fault):
            await _handle_iq(connection, node, fault)
    elif node.tag == "receipt":
        _confirm(connection, node)
        _acknowledge_receipt(connection, node)
    elif node.tag == "ack" and node.text("class", "") == "message":
        _confirm(connection, node)
    elif node.tag == "ack" and node.text("class", "") == "receipt" and connection.device is not None:
        connection.device.confirm_receipt(node)
    elif node.tag == "presence":
        _presence(connection, node)
    elif node.tag not in _SILENT:
        connection.network.record.note("unknown_stanza", _name(connection), stanza=node.tag)


def _occasion(connection: ChatConnection, node: Node) -> Occasion:
    namespace = node.text("xmlns", "")
    stage, users = Stage.IQ, []
    if namespace == "usync":
        stage, users = Stage.USYNC, node.need("usync").need("list").children
    elif namespace == "encrypt" and node.find("key"):
        stage, users = Stage.PREKEYS, node.need("key").children
    jids = [user.jid("jid") for user in users if isinstance(user.attributes.get("jid"), JID)]
    named = tuple(_device(jid) if stage is Stage.PREKEYS else jid.number for jid in jids)
    return Occasion(stage, _name(connection), named, xmlns=namespace)


async def _goes_on(connection: ChatConnection, node: Node, fault: Fault) -> bool:
    await connection.strike(fault)
    if fault.kind is Kind.ERROR:
        connection.answer_error(node, fault.code or 500, "fault")
    return fault.kind in (Kind.DELAY, Kind.OMIT, Kind.REFUSE)


async def _handle_iq(connection: ChatConnection, node: Node, fault: Fault | None) -> None:
    namespace = node.text("xmlns", "")
    if not namespace:
        if node.find("pair-device-sign"):
            await pairing.device_signed(connection, node)
        return
    if namespace in _HANDLERS:
        _HANDLERS[namespace](connection, node, fault)
    else:
        if namespace not in _PLAIN_RESULT:
            connection.network.record.note("unknown_stanza", _name(connection), stanza=f"iq {namespace}")
        connection.answer(node)


def _encrypt(connection: ChatConnection, node: Node, fault: Fault | None) -> None:
    if node.find("count"):
        connection.answer(node, Node("count", {"value": PREKEYS_LEFT}))
    elif node.find("key"):
        asked = [user.jid("jid") for user in node.need("key").children]
        struck: list[JID] = []
        if fault is not None and fault.kind in (Kind.OMIT, Kind.REFUSE):
            struck = [jid for jid in asked if not fault.spares(_device(jid), _number(connection))]
        found = [prekey_bundle(connection.network, jid) for jid in asked if jid not in struck]
        if fault is not None and fault.kind is Kind.REFUSE:
            found += [no_keys(jid, fault.code or NOT_FOUND) for jid in struck]
        connection.answer(node, Node("list", None, found))
    else:
        if connection.device is not None and node.find("identity"):
            signed = node.need("skey")
            connection.device.keys = PublicKeys(
                node.need("registration").data,
                node.need("identity").data,
                signed.need("id").number,
                signed.need("value").data,
                signed.need("signature").data,
            )
            connection.device.add_prekeys(node.need("list").children)
            connection.network.record.note("prekeys_uploaded", connection.device.name)
        connection.answer(node)


def _usync(connection: ChatConnection, node: Node, fault: Fault | None) -> None:
    omits = fault is not None and fault.kind is Kind.OMIT

    def has_devices(number: str) -> bool:
        return not omits or fault is None or fault.spares(number, _number(connection))

    connection.answer(node, answer_usync(connection.network, node.need("usync"), has_devices))


def _media_connection(connection: ChatConnection, node: Node, _: Fault | None) -> None:
    attributes: Attributes = {"auth": "test", "ttl": MEDIA_TTL, "auth_ttl": MEDIA_TTL, "max_buckets": 12}
    connection.answer(node, Node("media_conn", attributes, [Node("host", {"hostname": MEDIA_HOST})]))


def _groups(connection: ChatConnection, node: Node, _: Fault | None) -> None:
    groups = connection.network.groups
    if node.find("participating") and connection.device is not None:
        mine = [group.description() for group in groups.of_member(connection.device.number)]
        connection.answer(node, Node("groups", None, mine))
        return
    try:
        connection.answer(node, groups.find(node.jid("to").user).description())
    except UnknownGroupError:
        connection.answer_error(node, NOT_FOUND, "item-not-found")


def _multi_device(connection: ChatConnection, node: Node, _: Fault | None) -> None:
    registration = node.find("link_code_companion_reg")
    if registration is not None:
        pairing.code_stage(connection, node, registration)
        return
    if node.find("remove-companion-device") and connection.device is not None:
        connection.network.accounts.remove(connection.device)
        connection.network.record.note("logout", connection.device.name)
    connection.answer(node)


def _profile_picture(connection: ChatConnection, node: Node, _: Fault | None) -> None:
    connection.answer_error(node, NOT_FOUND, "item-not-found")


def _confirm(connection: ChatConnection, node: Node) -> None:
    if connection.device is not None:
        connection.device.confirm_message(node.text("id"))


def _acknowledge_receipt(connection: ChatConnection, node: Node) -> None:
    kind = node.text("type", "delivered")
    connection.network.record.note("client_receipt", _name(connection), id=node.text("id"), type=kind)
    attributes: Attributes = {name: node.attributes.get(name) for name in ("id", "type", "participant")}
    connection.send(Node("ack", attributes | {"class": "receipt", "from": node.attributes.get("to")}))


def _device(jid: JID) -> str:
    return f"{jid.number}:{jid.device}"


def _number(connection: ChatConnection) -> str:
    return _name(connection).partition(":")[0]


def _presence(connection: ChatConnection, node: Node) -> None:
    kind = node.text("type", "available")
    if connection.device is not None and kind == "available":
        connection.device.show_presence()
    connection.network.record.note("presence", _name(connection), type=kind, name=node.text("name", ""))


def _name(connection: ChatConnection) -> str:
    return connection.device.name if connection.device else connection.proxy_user


_HANDLERS: dict[str, Callable[[ChatConnection, Node, Fault | None], None]] = {
    "encrypt": _encrypt,
    "usync": _usync,
    "w:m": _media_connection,
    "w:g2": _groups,
    "md": _multi_device,
    "w:profile:picture": _profile_picture,
}
