"""The transport `cloud_api`: the official WhatsApp Business Cloud API.

POST {base}/{version}/{phone_number_id}/messages with JSON; the token is in the header Authorization as Bearer. Success is 200
and an id in `messages[0]`. What becomes of a message afterwards arrives at the webhook
(`shardd.supervisor.inbound.cloud_webhook`).

The error codes are those of Meta's list (`cloud_codes`). One that is not in it fails the message when the request is to blame
(4xx), and proves nothing when the server is (5xx).

`to` has its +: without it, Meta may take the number for one without a country code, and put that of the business number before
it (its page on phone numbers). A business-scoped id is in `recipient` instead, over which `to` would take precedence
(developers.facebook.com/documentation/business-messaging/whatsapp/business-scoped-user-ids, of March 2026). In `to`, Meta would
accept it, take its digits for a number, and deliver nothing (chatwoot/chatwoot, pull request 15150).

`biz_opaque_callback_data` names the claim; Meta repeats it in every status of the message, so that a status settles a message
whose answer was lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from shardd.config.transports.cloud_api import CLOUD_API, CloudApiConfig
from shardd.errors import ErrorClass, PermanentError
from shardd.ipc import JobSpec
from shardd.persons import BUSINESS_SERVER
from shardd.transports.details import (
    content_error,
    read_contact,
    read_details,
    read_link_preview,
    read_location,
    read_quote,
)
from shardd.transports.platforms.answers import Accepted, Context, Reading, Refused, Unclear
from shardd.transports.platforms.callback_data import callback_data
from shardd.transports.platforms.cloud_codes import error_of, meaning_of, unknown
from shardd.transports.platforms.http_exchange import Request
from shardd.transports.platforms.http_platform import HttpPlatform


class CloudApiTransport(HttpPlatform):
    """Device settings: phone_number_id, token; optional: version, base."""

    definition: ClassVar = CLOUD_API
    business_ids: ClassVar = True
    _config: CloudApiConfig

    def request(self, own: Mapping[str, str], job: JobSpec, number: str) -> Request:
        """JSON."""
        version = own.get("version", self._config.version)
        return Request(
            url=f"{self.base_of(own)}/{version}/{own['phone_number_id']}/messages",
            body=msgspec.json.encode(message_of(job, number)),
            headers={"Authorization": f"Bearer {own['token']}", "Content-Type": "application/json"},
        )

    def read(self, body: Mapping[str, Any], status: int, context: Context) -> Reading:
        """An error, or the id of the message."""
        error, messages = body.get("error"), body.get("messages")
        first = messages[0] if isinstance(messages, list) and messages else None
        message_id = first.get("id") if isinstance(first, dict) else None
        if isinstance(message_id, str) and message_id:
            if status == 200 and error is None:
                return Accepted(message_id)
            return Unclear(f"a message id together with status {status} or an error", mixed=True)
        if isinstance(error, dict):
            return read_error(error, status, context)
        return Unclear("JSON with neither an error nor a message id")


def message_of(job: JobSpec, number: str) -> dict[str, Any]:
    """What is posted for a job. `number`: digits only, or `ID@bsuid`.

    Raises PermanentError when the job's details lack something.
    """
    kind, content = _content(job)
    quote = read_quote(job)
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **({} if quote is None else {"context": {"message_id": quote.id}}),
        **_address(number),
        "biz_opaque_callback_data": callback_data(job.key),
        "type": kind,
        kind: content,
    }


def _address(number: str) -> dict[str, str]:
    user, _, server = number.partition("@")
    return {"recipient": user} if server == BUSINESS_SERVER else {"to": f"+{number}"}


def _content(job: JobSpec) -> tuple[str, Any]:  # noqa: PLR0911  # one return for each shape
    caption = {"caption": job.body} if job.body else {}
    match job.kind:
        case "text":
            preview = read_link_preview(job)
            return "text", {"body": job.body} | ({} if preview is None else {"preview_url": preview})
        case "image" | "video":
            return job.kind, {"link": job.media} | caption
        case "audio":
            return "audio", {"link": job.media}
        case "voice":
            return "audio", {"link": job.media, "voice": True}
        case "document":
            return "document", {"link": job.media} | caption | ({"filename": job.file_name} if job.file_name else {})
        case "location":
            place = read_location(job)
            return "location", {"latitude": place.latitude, "longitude": place.longitude, **place.labels}
        case "contact":
            contact = read_contact(job)
            phone = {"phone": f"+{contact.phone}", "wa_id": contact.phone, "type": "CELL"}
            name = {"formatted_name": contact.name, "first_name": contact.name}
            return "contacts", [{"name": name, "phones": [phone]}]
        case _:
            return "template", _template(read_details(job))


def _template(details: Mapping[str, Any]) -> dict[str, Any]:
    name, language, components = details.get("name"), details.get("language"), details.get("components")
    if not isinstance(name, str) or not name or not isinstance(language, str) or not language:
        raise content_error(
            'a template needs details.name and details.language, such as {"name": "hello", "language": "id"}'
        )
    if components is not None and not isinstance(components, list):
        raise content_error("details.components of a template is not a list; write it as the Cloud API documents it")
    return {"name": name, "language": {"code": language}} | ({"components": components} if components else {})


def read_error(error: Mapping[str, Any], status: int, context: Context) -> Reading:
    """The verdict in the object `error` of an answer."""
    code = error.get("code")
    if not isinstance(code, int) or isinstance(code, bool):
        return Unclear("JSON with an error without a code")
    text = f"the Cloud API refused the message ({describe(error, context)})"
    if (meaning := meaning_of(code, error.get("error_subcode"))) is not None:
        return Refused(error_of(meaning, text, context.retry_after), exact=True)
    if status >= 500:
        return Unclear(unknown(f"error {describe(error, context)}"))
    return Refused(PermanentError(unknown(text), error_class=ErrorClass.UNKNOWN))


def describe(error: Mapping[str, Any], context: Context) -> str:
    """An error object in one line: code, message, details."""
    data = error.get("error_data")
    details = data.get("details") if isinstance(data, dict) else None
    words = [error.get("message") or error.get("title"), details]
    return context.tidy(
        ": ".join([str(error.get("code")), *(word for word in words if isinstance(word, str) and word)])
    )
