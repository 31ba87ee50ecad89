"""WhatsApp's directory: which numbers are on WhatsApp, with their LIDs, devices and keys."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..crypto.ratchet import ONE_TIME_PREKEY_ID, SIGNED_PREKEY_ID
from ..state.network import Network
from ..wire.nodes import JID, Attributes, MalformedStanzaError, Node, lid_jid, number_jid

_CURVE_TYPE = b"\x05"


def answer_usync(network: Network, request: Node, has_devices: Callable[[str], bool] = lambda _: True) -> Node:
    """The answer to a ``usync``: one entry per user, with the parts that the query names.

    ``has_devices``: whether the device list of this number is not empty.
    """
    wanted = [part.tag for part in request.need("query").children]
    users = [_user(network, user, wanted, has_devices) for user in request.need("list").children]
    results = Node("result", None, [Node(part) for part in wanted])
    return Node("usync", request.attributes, [results, Node("list", None, users)])


def _user(network: Network, user: Node, wanted: list[str], has_devices: Callable[[str], bool]) -> Node:
    if not isinstance(user.attributes.get("jid"), JID):
        return _contact_by_number(network, user)
    jid = user.jid("jid")
    exists = jid.number not in network.not_on_whatsapp and jid.number not in network.listed_as
    parts = [Node("contact", {"type": "in" if exists else "out"})] if "contact" in wanted else []
    if exists and "lid" in wanted:
        parts.append(Node("lid", {"val": lid_jid(jid.number)}))
    if exists and "devices" in wanted:
        listed = _device_list(network, jid.number) if has_devices(jid.number) else Node("device-list")
        parts.append(Node("devices", None, [listed]))
    if exists and "status" in wanted:
        parts.append(Node("status", {"t": 0}, b""))
    return Node("user", {"jid": jid}, parts)


def _contact_by_number(network: Network, user: Node) -> Node:
    """The answer to a query by number: ``<contact>+62811…</contact>``."""
    typed = user.need("contact").data
    number = typed.decode().lstrip("+").partition("@")[0]
    if not number.isdigit():
        raise MalformedStanzaError(f"not a phone number: {typed!r}")
    number = network.listed_as.get(number, number)
    exists = number not in network.not_on_whatsapp
    attributes: Attributes = {"jid": lid_jid(number) if exists else number_jid(number)}
    attributes["pn_jid"] = number_jid(number)
    return Node("user", attributes, [Node("contact", {"type": "in" if exists else "out"}, typed)])


def _device_list(network: Network, number: str) -> Node:
    """The phone and its linked devices."""
    linked = network.accounts.account(number).devices
    devices = [Node("device", {"id": 0})]
    devices += [Node("device", {"id": index, "key-index": index}) for index in sorted(linked)]
    return Node("device-list", None, devices)


def prekey_bundle(network: Network, jid: JID) -> Node:
    """Keys for a new session with a device, or an error entry if none are known."""
    if jid.device == 0:
        phone = network.phone(jid.number).signal
        registration = phone.registration_id.to_bytes(4, "big")
        signed = _signed_key(SIGNED_PREKEY_ID, phone.signed_prekey.public, phone.signature)
        one_time = _key("key", ONE_TIME_PREKEY_ID, phone.one_time_prekey.public)
        return _bundle(jid, registration, phone.identity.public, signed, one_time)
    device = network.accounts.account(jid.number).devices.get(jid.device)
    bundle = device.take_bundle() if device else None
    if device is None or device.keys is None or bundle is None:
        return no_keys(jid, 404)
    keys = device.keys
    signed = _signed_key(keys.signed_prekey_id, keys.signed_prekey, keys.signature)
    extra = []
    if bundle.one_time_prekey is not None and bundle.one_time_prekey_id is not None:
        extra.append(_key("key", bundle.one_time_prekey_id, bundle.one_time_prekey))
    return _bundle(jid, keys.registration, keys.identity, signed, *extra)


def no_keys(jid: JID, code: int) -> Node:
    """The error in the place of a device's keys."""
    return Node(
        "user", {"jid": jid}, [Node("error", {"code": code, "text": "item-not-found" if code == 404 else "fault"})]
    )


def _bundle(jid: JID, registration: bytes, identity: bytes, *keys: Node) -> Node:
    parts = [
        Node("registration", None, registration),
        Node("type", None, _CURVE_TYPE),
        Node("identity", None, identity),
    ]
    return Node("user", {"jid": jid, "t": int(time.time())}, [*parts, *keys])


def _key(tag: str, key_id: int, public: bytes, *extra: Node) -> Node:
    return Node(tag, None, [Node("id", None, key_id.to_bytes(3, "big")), Node("value", None, public), *extra])


def _signed_key(key_id: int, public: bytes, signature: bytes) -> Node:
    return _key("skey", key_id, public, Node("signature", None, signature))
