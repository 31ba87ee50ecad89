"""The requests and answers of each platform; a malformed request is refused, so that a test notices.

What they look like is taken from:

- Wablas: its reference of POST /api/send-message and /api/send-image (wablas.com/documentation/api), and its published clients.
- Whacenter: it publishes no answers; its clients record `{"status":true,"message":"message sent","data":{"id":110864596}}`.
- Cloud API: Meta's reference of the messages endpoint (developers.facebook.com/documentation/business-messaging/whatsapp), and
  its page on phone numbers, which asks for a + in `to`.
"""

from __future__ import annotations

import email.parser
import email.policy
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs

from tests.platform_server.wire import Request

Reply = tuple[int, Mapping[str, Any]]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Received:
    """A parsed request. `key`: its secret; `content`: its fields."""

    platform: str
    key: str
    recipient: str
    content: Mapping[str, Any]
    headers: Mapping[str, str]
    at: float
    number: int = field(default_factory=lambda: next(_numbers))


class WrongShapeError(Exception):
    """A request that no platform understands."""


def understand(request: Request, at: float) -> Received:
    """Raises WrongShapeError."""
    if request.method != "POST":
        raise WrongShapeError(f"{request.method} {request.path}")
    if request.path in {"/api/send-message", "/api/send-image"}:
        return _wablas(request, at)
    if request.path == "/api/send":
        return _whacenter(request, at)
    if match := re.fullmatch(r"/(v\d+\.\d+)/(\d+)/messages", request.path):
        return _cloud_api(request, at, *match.groups())
    raise WrongShapeError(f"there is no {request.path}")


def accept(received: Received) -> Reply:
    """The answer to an accepted message."""
    message_id = f"{received.platform}.{received.number}"
    match received.platform:
        case "wablas":
            data = {"messages": [{"id": message_id, "phone": received.recipient, "status": "pending"}]}
            return 200, {"status": True, "message": "Success", "data": data}
        case "whacenter":
            return 200, {"status": True, "message": "message sent", "data": {"id": 110_000_000 + received.number}}
        case _:
            number = received.content.get("to")
            known = {"user_id": received.recipient} if number is None else {"wa_id": received.recipient}
            contacts = [{"input": number or received.recipient, **known}]
            return 200, {"messaging_product": "whatsapp", "contacts": contacts, "messages": [{"id": message_id}]}


def _wablas(request: Request, at: float) -> Received:
    _want_type(request, "application/x-www-form-urlencoded")
    form = {name: values[0] for name, values in parse_qs(request.body.decode(), keep_blank_values=True).items()}
    image = request.path == "/api/send-image"
    _want_fields(form, {"phone", "image", "caption"} if image else {"phone", "message"})
    token = request.headers.get("authorization", "")
    if not token or " " in token:
        raise WrongShapeError(f"authorization {token!r}")
    return Received("wablas", token, form["phone"], form, request.headers, at)


def _whacenter(request: Request, at: float) -> Received:
    _want_type(request, "multipart/form-data")
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    whole = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    form = {
        str(part.get_param("name", header="content-disposition")): (part.get_payload(decode=True) or b"").decode()
        for part in whole.iter_parts()
    }
    _want_fields(form, {"device_id", "number", "message"} | ({"file"} & form.keys()))
    return Received("whacenter", form["device_id"], form["number"], form, request.headers, at)


# developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids (March 2026): `to` is a phone
# number, and the new field `recipient` a business-scoped id, of the same recipient_type; the answer then has user_id, no wa_id.
_USER_ID: Final = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}")


def _cloud_api(request: Request, at: float, version: str, phone_number_id: str) -> Received:
    _want_type(request, "application/json")
    said = json.loads(request.body)
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme != "Bearer" or not token:
        raise WrongShapeError(f"authorization {scheme!r}")
    kind = said.get("type")
    if (
        said.get("messaging_product") != "whatsapp"
        or said.get("recipient_type") != "individual"
        or not (re.fullmatch(r"\+[0-9]+", said.get("to", "")) or _USER_ID.fullmatch(said.get("recipient", "")))
        or kind not in said
    ):
        raise WrongShapeError(f"message {said}")
    where = {"version": version, "phone_number_id": phone_number_id}
    recipient = said["to"].lstrip("+") if "to" in said else said["recipient"]
    return Received("cloud_api", token, recipient, said | where, request.headers, at)


def _want_type(request: Request, kind: str) -> None:
    if request.headers.get("content-type", "").split(";")[0] != kind:
        raise WrongShapeError(f"content-type {request.headers.get('content-type')!r}")


def _want_fields(form: Mapping[str, str], names: set[str]) -> None:
    if form.keys() != names:
        raise WrongShapeError(f"fields {sorted(form)}")
