"""Names, paths, secrets, hours, opt-out words and event kinds."""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic_core.core_schema import ValidationInfo

from shardd.config.values.numbers import Choice, Whole
from shardd.config.values.reader import Listed, Reader, RefusedError, Text, closest, matching, refuse_switch
from shardd.event_kinds import EventKind, names_a_kind
from shardd.opt_out_words import MOST, plain
from shardd.pacing import CLASSES, NO_QUIET, QuietHours

MOST_MESSAGE: Final = 4096
"""Characters of the message that confirms an opt-out."""
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how Standard Webhooks marks a secret; not one itself
_ANSWERS: Final = frozenset(map(plain, (
    "yes", "yeah", "y", "no", "n", "ok", "okay", "ja", "nein", "ya", "iya", "tidak", "sí", "oui", "non", "sim", "não",
    "да", "нет", "हाँ", "نعم", "لا", "evet", "是", "不", "はい",
)))  # fmt: skip
"""Said about anything, so neither an opt-out nor its end."""
_NEVER_EXEMPT: Final = "marketing"
_EXEMPTIBLE: Final = Choice(tuple(name for name in CLASSES if name != _NEVER_EXEMPT))


class FilePath(Reader):
    """An absolute path without `..`; a relative one starts at the folder of the config file, `~` is the home folder."""

    def convert(self, text: str) -> Path:
        """With `~` replaced."""
        text = text.strip()
        if not text or any(ord(sign) < 32 for sign in text):
            raise RefusedError("is not a path; write one such as /var/lib/shardd")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
            raise RefusedError("is a URL; write the path of a folder or file on this host, such as /var/lib/shardd")
        refuse_switch(text, "write a path such as /var/lib/shardd")
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


def _check_hours(text: str) -> str:
    hours, fix = re.sub(r"\s", "", text), f"write two times such as 21:00-08:00, or {NO_QUIET}"
    if text.lower() in {"false", "no", "off", "never"}:
        raise RefusedError(f"is not a range of hours; write {NO_QUIET}")
    try:
        QuietHours.read(hours)
    except ValueError:
        start, _, end = hours.partition("-")
        if (meant := _meant_hours(text)) is not None:
            raise RefusedError(f"is not a range of hours; write {meant}") from None
        fault = "starts and ends at the same time" if start and start == end else "is not a range of hours"
        raise RefusedError(f"{fault}; {fix}") from None
    return hours


def _meant_hours(text: str) -> str | None:
    """What `9 pm - 8 am`, `21-8` or `21.00 bis 8.00` means, if it is a range of hours."""
    time = r"([0-9]{1,2})(?:[:.h]([0-9]{2}))?\s*(am|pm)?"
    match = re.fullmatch(rf"{time}\s*(?:[-\u2010-\u2015]|to|until|bis)\s*{time}", text.strip().lower())
    if match is None:
        return None
    ends = (match.groups()[:3], match.groups()[3:])
    if not any(minute or half or int(hour) > 12 for hour, minute, half in ends):
        return None  # 9-5 may be morning or evening
    times = []
    for hour, minute, half in ends:
        if half and not 1 <= int(hour) <= 12:
            return None
        whole = int(hour) % 12 + (12 if half == "pm" else 0) if half else int(hour) % 24 if hour == "24" else int(hour)
        times.append(f"{whole:02}:{minute or '00'}")
    meant = "-".join(times)
    try:
        QuietHours.read(meant)
    except ValueError:
        return None
    return meant


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
    if (
        meant := {"true": "auto", "yes": "auto", "on": "auto", "false": "off", "no": "off"}.get(text.lower())
    ) is not None:
        raise RefusedError(f"is not auto, off or the path of a program; write {meant}")
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


def _phrases(like: str) -> Listed:
    def check(text: str) -> str:
        if not plain(text):
            raise RefusedError(f"has no letter or digit; write words such as {like}")
        if plain(text) in _ANSWERS:
            raise RefusedError(f"answers many questions; write words that mean nothing else, such as {like}")
        if len(text) > MOST:
            raise RefusedError(f"is too long; write at most {MOST} characters")
        return text

    return Listed(Text(check), most=500, like=like)


def _check_exempt(text: str) -> str:
    if text == _NEVER_EXEMPT:
        raise RefusedError(f"an opt-out always stops; write {' or '.join(_EXEMPTIBLE.words)}")
    return str(_EXEMPTIBLE.check(text))


def _check_message(text: str) -> str:
    refuse_switch(text, "write a sentence, or null to send nothing")
    if not text:
        raise RefusedError("is empty; write a sentence, or null to send nothing")
    if len(text) > MOST_MESSAGE or "\0" in text:
        raise RefusedError(f"cannot be sent; write at most {MOST_MESSAGE} characters of text")
    return text


EVENT_KIND: Final = Text(_check_event_kind)
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
Pooler = Annotated[str, Text(_check_pooler)]
"""`auto`, `off`, or the path of PgBouncer."""
Hours = Annotated[str, HOURS]
"""A part of the day such as `21:00-08:00`, or `none`."""
Steps = Annotated[tuple[int, ...], _Steps(Whole(1, 1_000_000), most=60, like="50, 100, 200")]
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
EventKinds = Annotated[tuple[str, ...], Listed(EVENT_KIND, most=len(EventKind), like="job.*, message.received")]
"""Such as `job.*, message.received`."""
OptOutPhrases = Annotated[tuple[str, ...], _phrases("stop, opt out")]
"""Words and short phrases by which people opt out."""
TakeBackPhrases = Annotated[tuple[str, ...], _phrases("start, unstop")]
"""Those by which they take it back."""
ExemptClasses = Annotated[tuple[str, ...], Listed(Text(_check_exempt), most=len(CLASSES), like="service, reply")]
"""Classes of jobs that an opt-out does not stop."""
InboxExtras = Annotated[
    tuple[str, ...], Listed(Choice(("groups", "own", "status", "history")), most=4, like="groups, own")
]
"""What the inbox keeps besides messages to a device."""
Message = Annotated[str, Text(_check_message)]
"""The text of a message."""
