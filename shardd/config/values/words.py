"""Names, paths, secrets, hours, time zones, countries, opt-out words and event kinds."""

from __future__ import annotations

import base64
import binascii
import os
import re
import zoneinfo
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic_core.core_schema import ValidationInfo

from shardd.config.values.numbers import Choice, Whole
from shardd.config.values.reader import Listed, Reader, RefusedError, Text, closest, matching
from shardd.event_kinds import EventKind, names_a_kind
from shardd.opt_out_words import MOST, plain
from shardd.pacing import CLASSES, NO_QUIET, QuietHours
from shardd.phone_numbers import is_region

MOST_MESSAGE: Final = 4096
"""Characters of the message that confirms an opt-out."""
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how Standard Webhooks marks a secret; not one itself
_NEVER_EXEMPT: Final = "marketing"
_EXEMPTIBLE: Final = Choice(tuple(name for name in CLASSES if name != _NEVER_EXEMPT))


class FilePath(Reader):
    """An absolute path without `..`; a relative one starts at the folder of the config file, `~` is the home folder."""

    def convert(self, text: str) -> Path:
        """With `~` replaced."""
        if not text.strip() or "\0" in text:
            raise RefusedError("is not a path; write one such as /var/lib/shardd")
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise RefusedError("has a home folder that is not known; write the whole path") from None

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        path = super()._validate(value, info)
        base = info.context["base"] if info.context else Path.cwd()
        return path if path is None else Path(os.path.normpath(base / path))


def node_name_from(host_name: str) -> str:
    """The node name that is nearest to a host name."""
    return re.sub(r"[^a-z0-9.-]+", "-", host_name.lower()).strip("-.")[:63] or "node"


def _check_node_name(text: str) -> str:
    """A name that fits into log lines, lease rows and metrics as it is."""
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,62}", text):
        return text
    raise RefusedError(f"is not a node name (a-z, 0-9, '.', '-', at most 63 characters); write {node_name_from(text)}")


def _check_time_zone(text: str) -> str:
    """`UTC` is always known, even where no time zone database is installed."""
    if text == "UTC":
        return text
    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):  # outside the database; a folder of it; unknown
        known = zoneinfo.available_timezones()
    else:
        return text
    if not known:
        raise RefusedError("cannot be looked up: this machine has no time zone database; install tzdata, or write UTC")
    by_lower_case = {name.lower(): name for name in known} | {name.lower().split("/")[-1]: name for name in known}
    near = closest(text.lower().replace(" ", "_"), by_lower_case)
    raise RefusedError(
        f"is not a known time zone; write {by_lower_case[near] if near else 'a name such as Asia/Jakarta'}"
    )


def _check_region(text: str) -> str:
    if is_region(text):
        return text
    meant = {"UK": "GB", "EN": "GB"}.get(text.upper(), text.upper())
    fix = meant if is_region(meant) else "two capital letters such as ID, DE or US"
    raise RefusedError(f"is not a country code; write {fix}")


def _check_hours(text: str) -> str:
    hours, fix = re.sub(r"\s", "", text), f"write two times such as 21:00-08:00, or {NO_QUIET}"
    try:
        QuietHours.read(hours)
    except ValueError:
        start, _, end = hours.partition("-")
        fault = "starts and ends at the same time" if start and start == end else "is not a range of hours"
        raise RefusedError(f"{fault}; {fix}") from None
    return hours


@dataclass(frozen=True)
class _Steps(Listed):
    def check(self, value: Any) -> Any:
        steps = super().check(value)
        if fall := next(((high, low) for high, low in pairwise(steps) if low < high), None):
            raise RefusedError(f"falls from {fall[0]} to {fall[1]}; write numbers that grow, such as 50, 100, 200")
        return steps


def _check_pooler(text: str) -> str:
    if text.lower() in {"auto", "off"}:
        return text.lower()
    if text.startswith("/") and "\0" not in text:
        return text
    raise RefusedError("is not auto, off or the path of a program; write auto, or a path such as /usr/sbin/pgbouncer")


def webhook_key(secret: str) -> bytes:
    """The key in the secret of a webhook. Raises binascii.Error."""
    return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)


def _check_webhook_secret(text: str) -> str:
    try:
        key = webhook_key(text) if text.startswith(_SECRET_PREFIX) else b""
    except binascii.Error:
        key = b""
    if not 24 <= len(key) <= 64:
        raise RefusedError(
            f"is not {_SECRET_PREFIX} and 24 to 64 random bytes in base64; make one with: "
            f'echo "{_SECRET_PREFIX}$(openssl rand -base64 32)", and write it as ${{NAME}}'
        )
    return text


def _check_event_kind(text: str) -> str:
    if names_a_kind(text):
        return text
    fix = closest(text.lower(), list(EventKind)) or f"job.*, or one of {', '.join(EventKind)}"
    raise RefusedError(f"is not a kind of event; write {fix}")


def _check_phrase(text: str) -> str:
    if not plain(text):
        raise RefusedError("has no letter or digit; write words such as stop, opt out")
    if len(text) > MOST:
        raise RefusedError(f"is too long; write at most {MOST} characters")
    return text


def _check_exempt(text: str) -> str:
    if text == _NEVER_EXEMPT:
        raise RefusedError(f"an opt-out always stops; write {' or '.join(_EXEMPTIBLE.words)}")
    return str(_EXEMPTIBLE.check(text))


def _check_message(text: str) -> str:
    if not text:
        raise RefusedError("is empty; write a sentence, or null to send nothing")
    if len(text) > MOST_MESSAGE or "\0" in text:
        raise RefusedError(f"cannot be sent; write at most {MOST_MESSAGE} characters of text")
    return text


EVENT_KIND: Final = Text(_check_event_kind)
TIME_ZONE: Final = Text(_check_time_zone)
HOURS: Final = Text(_check_hours)

NodeName = Annotated[str, Text(_check_node_name)]
WebhookName = Annotated[
    str,
    Text(
        matching(
            r"[a-z0-9][a-z0-9_-]{0,39}",
            "is not a name (a-z, 0-9, '_', '-', at most 40 characters); write one such as crm",
        )
    ),
]
TimeZone = Annotated[str, TIME_ZONE]
"""A name of the time zone database, such as `Asia/Jakarta`."""
Region = Annotated[str, Text(_check_region)]
"""A country by its two letters, as phone numbers know it (ISO 3166)."""
Pooler = Annotated[str, Text(_check_pooler)]
"""`auto`, `off`, or the path of PgBouncer."""
Hours = Annotated[str, HOURS]
"""A part of the day such as `21:00-08:00`, or `none`."""
Steps = Annotated[tuple[int, ...], _Steps(Whole(1, 1_000_000), most=60)]
"""Whole numbers that do not fall, such as `50, 100, 200`: the days of a warm-up."""
Secret = Annotated[
    str,
    Text(
        matching(
            r"[!-~]{8,500}",
            "is not a secret of 8 to 500 letters, digits and signs, without spaces; write it as ${NAME}",
        ),
        secret=True,
    ),
]
WebhookSecret = Annotated[str, Text(_check_webhook_secret, secret=True)]
"""`whsec_` and the key in base64, as Standard Webhooks writes it."""
EventKinds = Annotated[tuple[str, ...], Listed(EVENT_KIND, most=len(EventKind))]
"""Such as `job.*, message.received`."""
OptOutPhrases = Annotated[tuple[str, ...], Listed(Text(_check_phrase), most=500)]
"""Words and short phrases such as `stop, opt out`."""
ExemptClasses = Annotated[tuple[str, ...], Listed(Text(_check_exempt), most=len(CLASSES))]
"""Classes of jobs that an opt-out does not stop."""
InboxExtras = Annotated[tuple[str, ...], Listed(Choice(("groups", "own", "status", "history")), most=4)]
"""What the inbox keeps besides messages to a device."""
Message = Annotated[str, Text(_check_message)]
"""The text of a message."""
