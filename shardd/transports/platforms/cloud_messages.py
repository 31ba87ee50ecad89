"""A job as the Cloud API wants to be told it: the object that is posted to /{phone_number_id}/messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from shardd.errors import ErrorClass, PermanentError
from shardd.ipc import JobSpec
from shardd.transports.details import read_details

_WITH_DETAILS: Final = frozenset({"location", "contact", "template"})


def message_of(job: JobSpec, number: str) -> dict[str, Any]:
    """`number`: digits of the recipient. Raises PermanentError when the job's details lack something."""
    kind, content = _content(job)
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": number,
        "type": kind,
        kind: content,
    }


def _content(job: JobSpec) -> tuple[str, Any]:  # noqa: PLR0911  # one return for each shape
    details = read_details(job) if job.kind in _WITH_DETAILS else {}
    match job.kind:
        case "text":
            return "text", {"body": job.body}
        case "image" | "video":
            return job.kind, {"link": job.media} | _caption(job)
        case "audio" | "voice":
            return "audio", {"link": job.media}
        case "document":
            name = {"filename": job.file_name} if job.file_name else {}
            return "document", {"link": job.media} | _caption(job) | name
        case "location":
            place = {"latitude": _degrees(details, "latitude"), "longitude": _degrees(details, "longitude")}
            return "location", place | {f: str(details[f]) for f in ("name", "address") if details.get(f)}
        case "contact":
            return "contacts", [_contact(details)]
        case _:
            return "template", _template(details)


def _caption(job: JobSpec) -> dict[str, str]:
    return {"caption": job.body} if job.body else {}


def _degrees(details: Mapping[str, Any], field: str) -> float:
    value = details.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _lacking(f"details.{field} is {value!r}; write a number of degrees")
    return float(value)


def _contact(details: Mapping[str, Any]) -> dict[str, Any]:
    name, digits = str(details.get("name") or "").strip(), re.sub(r"[^0-9]", "", str(details.get("phone") or ""))
    if not name or not digits:
        raise _lacking("a contact needs details.name and details.phone, such as +6281234567890")
    return {
        "name": {"formatted_name": name, "first_name": name},
        "phones": [{"phone": f"+{digits}", "wa_id": digits, "type": "CELL"}],
    }


def _template(details: Mapping[str, Any]) -> dict[str, Any]:
    name, language, components = details.get("name"), details.get("language"), details.get("components")
    if not isinstance(name, str) or not name or not isinstance(language, str) or not language:
        raise _lacking(
            'a template needs details.name and details.language, such as {"name": "hello", "language": "id"}'
        )
    if components is not None and not isinstance(components, list):
        raise _lacking("details.components of a template is no list; write it as the Cloud API documents it")
    return {"name": name, "language": {"code": language}} | ({"components": components} if components else {})


def _lacking(text: str) -> PermanentError:
    return PermanentError(text, error_class=ErrorClass.CONTENT)
