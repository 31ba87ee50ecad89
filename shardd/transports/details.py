"""A job's `details`, read where they are used, so that unreadable ones fail that one job."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from shardd.errors import ErrorClass, PermanentError
from shardd.ipc import JobSpec
from shardd.json_values import UnreadableError, read_object

MOST: Final = 8192
"""Bytes, as the gate has it (check_sizes in 0004_admission.sql)."""
_NUMBER: Final = re.compile(r"\+[1-9][0-9]{4,14}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Location:
    """In degrees. `labels`: `name` and `address`, where given."""

    latitude: float
    longitude: float
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Contact:
    """`phone`: digits only, with the country code."""

    name: str
    phone: str


def read_details(job: JobSpec) -> dict[str, Any]:
    """The job's details; empty when it has none. Raises PermanentError, like the others."""
    if job.details is None:
        return {}
    try:
        return read_object(job.details, MOST)
    except UnreadableError as error:
        raise content_error(f"details {error}") from None


def read_location(job: JobSpec) -> Location:
    """The details of a job of kind `location`."""
    details = read_details(job)
    labels = {field: str(details[field]) for field in ("name", "address") if details.get(field)}
    return Location(_degrees(details, "latitude", 90), _degrees(details, "longitude", 180), labels)


def read_contact(job: JobSpec) -> Contact:
    """The details of a job of kind `contact`, whose number the gate has read (contact_details in 0012_persons.sql)."""
    details = read_details(job)
    name, phone = str(details.get("name") or "").strip(), details.get("phone")
    if not name:
        raise content_error("a contact needs details.name")
    if not isinstance(phone, str) or _NUMBER.fullmatch(phone) is None:
        raise content_error(
            f"details.phone is {phone!r}; write a number with + and country code, such as +4915112345678"
        )
    return Contact(name, phone.removeprefix("+"))


def read_link_preview(job: JobSpec) -> bool | None:
    """Whether a text shall show a preview of its link, as the job's details choose; None: they do not."""
    wanted = read_details(job).get("link_preview")
    if wanted is not None and not isinstance(wanted, bool):
        raise content_error(f"details.link_preview is {wanted!r}; write true or false, or leave it out")
    return wanted


@dataclass(frozen=True, slots=True)
class Quote:
    """The message that a job answers. `sender`: a number with +, or a JID."""

    id: str
    sender: str
    text: str
    kind: str


def read_quote(job: JobSpec) -> Quote | None:
    """What the job quotes, if anything. Raises PermanentError."""
    if job.quote is None:
        return None
    try:
        quote = read_object(job.quote, MOST)
    except UnreadableError as error:
        raise content_error(f"quote {error}") from None
    return Quote(**{name: str(quote[name]) for name in ("id", "sender", "text", "kind")}) if quote else None


def read_target(job: JobSpec) -> str:
    """The id of the message that a job of kind `revoke` deletes, which was read when it was claimed. Raises PermanentError."""
    if job.revokes is None:
        raise content_error(
            "the message cannot be deleted any more: the job that sent it was erased or retried, its device has another account "
            "now, or it was deleted after retention.finished"
        )
    return job.revokes


def _degrees(details: Mapping[str, Any], field: str, limit: int) -> float:
    value = details.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -limit <= value <= limit:
        raise content_error(f"details.{field} is {value!r}; write a number between -{limit} and {limit}")
    return float(value)


def content_error(text: str) -> PermanentError:
    """The error of a job whose content cannot be sent."""
    return PermanentError(text, error_class=ErrorClass.CONTENT)
