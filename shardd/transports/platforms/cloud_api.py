"""The transport `cloud_api`: the official WhatsApp Business Cloud API.

POST {base}/{version}/{phone_number_id}/messages with JSON; the token is in the header Authorization as Bearer. Success is 200
and an id in `messages[0]`. What becomes of a message afterwards arrives at the webhook
(`shardd.supervisor.inbound.cloud_webhook`).

The error codes are those of Meta's list, and all of them mean that the message was not taken, except where noted. One that is
not in the table fails the message when the request is to blame (4xx), and proves nothing when the server is (5xx).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

import msgspec

from shardd.config.transports.cloud_api import CLOUD_API, CloudApiConfig
from shardd.errors import DeviceUnavailableError, ErrorClass, OptedOutError, PermanentError, SendError, TransientError
from shardd.ipc import JobSpec
from shardd.states import DeviceState
from shardd.transports.details import content_error, read_contact, read_details, read_location
from shardd.transports.platforms.answers import (
    Accepted,
    Context,
    Reader,
    Reading,
    Refused,
    Unclear,
    account_setup,
    bad_content,
    bad_recipient,
    too_fast,
)
from shardd.transports.platforms.http_exchange import Request
from shardd.transports.platforms.http_platform import HttpPlatform

PAIR_BACKOFF: Final = 60.0
"""Seconds before the same recipient is written to again, after the limit of one pair of numbers."""
SPAM_BACKOFF: Final = 3600.0
"""Seconds that a number backs off after Meta restricted it for spam."""
SERVICE_RETRY: Final = 30.0
NO_SUCH_NUMBER: Final = 33
"""As the subcode of 100: the phone_number_id does not exist, or the token may not use it."""


class CloudApiTransport(HttpPlatform):
    """Device settings: phone_number_id, token; optional: version, base."""

    definition: ClassVar = CLOUD_API
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
    """What is posted for a job. `number`: digits only. Raises PermanentError when the job's details lack something."""
    kind, content = _content(job)
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": number,
        "type": kind,
        kind: content,
    }


def _content(job: JobSpec) -> tuple[str, Any]:  # noqa: PLR0911  # one return for each shape
    caption = {"caption": job.body} if job.body else {}
    match job.kind:
        case "text":
            return "text", {"body": job.body}
        case "image" | "video":
            return job.kind, {"link": job.media} | caption
        case "audio" | "voice":
            return "audio", {"link": job.media}
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


def _pair_rate(text: str, context: Context) -> SendError:
    return TransientError(text, retry_after=context.wait(PAIR_BACKOFF), error_class=ErrorClass.RATE_LIMIT)


def _spam(text: str, context: Context) -> SendError:
    return DeviceUnavailableError(text, retry_after=context.wait(SPAM_BACKOFF), error_class=ErrorClass.RATE_LIMIT)


def _dead_token(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(
        f"{text}: its token is no longer valid", state=DeviceState.LOGGED_OUT, error_class=ErrorClass.ACCOUNT
    )


def _service(text: str, context: Context) -> SendError:
    return TransientError(text, retry_after=context.wait(SERVICE_RETRY), error_class=ErrorClass.SERVER)


def _opted_out(text: str, _: Context) -> SendError:
    return OptedOutError(text)


CODES: Final[Mapping[int, Reader]] = MappingProxyType(
    {
        # calls of the app, of the business account, of the number; the same for every device of the token
        **dict.fromkeys((4, 80007, 130429), too_fast),
        131056: _pair_rate,
        131048: _spam,
        190: _dead_token,
        # permissions, blocks, payment, an unregistered number, maintenance: a person must fix the account
        **dict.fromkeys(
            (3, 10, 33, 368, 130497, 131005, 131031, 131037, 131042, 131045, 131057, 133010), account_setup
        ),
        **dict.fromkeys(range(200, 300), account_setup),
        # "service unavailable" and the like: nothing was done
        **dict.fromkeys((2, 131016, 133004), _service),
        # not on WhatsApp, the sender itself, not on the list of a test number, an experiment, too much marketing
        **dict.fromkeys((130472, 131021, 131026, 131030, 131049), bad_recipient),
        131050: _opted_out,
        # parameters, kinds, media, templates, a text more than 24 hours after the recipient wrote
        **dict.fromkeys((100, 131008, 131009, 131047, 131051, 131052, 131053, 135000), bad_content),
        **dict.fromkeys((132000, 132001, 132005, 132007, 132012, 132015, 132016, 132068, 132069), bad_content),
    }
)


def read_error(error: Mapping[str, Any], status: int, context: Context) -> Reading:
    """The verdict in the object `error` of an answer."""
    code = error.get("code")
    if not isinstance(code, int) or isinstance(code, bool):
        return Unclear("JSON with an error without a code")
    text = f"the Cloud API refused the message ({describe(error, context)})"
    if code == 100 and error.get("error_subcode") == NO_SUCH_NUMBER:
        return Refused(account_setup(text, context))
    if (reader := CODES.get(code)) is not None:
        return Refused(reader(text, context))
    if status >= 500:
        return Unclear(f"error {describe(error, context)}")
    return Refused(PermanentError(text, error_class=ErrorClass.UNKNOWN))


def error_class_of(code: object) -> ErrorClass:
    """The class of a code, for messages that Meta reports later as not delivered."""
    reader = CODES.get(code) if isinstance(code, int) else None
    return ErrorClass.SERVER if reader is None else reader("", Context("cloud_api", "", ())).error_class


def describe(error: Mapping[str, Any], context: Context) -> str:
    """An error object in one line: code, message, details."""
    data = error.get("error_data")
    details = data.get("details") if isinstance(data, dict) else None
    words = [error.get("message") or error.get("title"), details]
    return context.tidy(
        ": ".join([str(error.get("code")), *(word for word in words if isinstance(word, str) and word)])
    )
