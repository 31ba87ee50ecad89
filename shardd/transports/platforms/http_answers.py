"""What the answer of an HTTP platform proves about a message.

A platform's own words count first: `Accepted` with a status of success is sent, `Refused` is not sent. Where it says neither
(`Silent`: no JSON, no verdict in it, a body that was cut off), the status of the answer decides, and only one that means by
HTTP that the request was not carried out counts as not sent. Whatever contradicts itself is in doubt.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import msgspec

from shardd.errors import (
    DeviceUnavailableError,
    ErrorClass,
    InDoubtError,
    PermanentError,
    SendError,
    TransientError,
)
from shardd.states import DeviceState
from shardd.transports.platforms.device_settings import MASK
from shardd.transports.platforms.http_exchange import Answer
from shardd.urls import scrub_urls

RATE_REST: Final = 60.0
"""Seconds that an account rests after a 429 that does not say how long."""
MAX_SHOWN: Final = 300
"""Characters of what a platform says."""
SETUP_RETRY: Final = 300.0
"""Seconds before a device is tried again whose account or address takes a person to mend."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The platform took the message. `message_id` None: it gave none."""

    message_id: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The platform said that it did not take the message, and what that obliges us to."""

    error: SendError


@dataclass(frozen=True, slots=True)
class Silent:
    """The platform's words say neither; `why`: what they are instead. `mixed`: they say both, so the status does not help."""

    why: str
    mixed: bool = False


Said = Accepted | Refused | Silent


@dataclass(frozen=True, slots=True)
class Context:
    """What the reading of an answer needs to know. `job_body`: a platform may repeat it in what it says."""

    platform: str
    job_body: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    retry_after: float | None = None
    """Seconds that the answer asks to wait."""

    def tidy(self, text: str) -> str:
        """Words of the platform as they may be shown: short, on one line, without a secret of ours or of a URL in them."""
        for secret in self.secrets:
            text = text.replace(secret, MASK).replace(secret.replace("/", "\\/"), MASK)
        text = scrub_urls(text)  # many repeat the link of the media, which may be signed
        text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
        return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _sent_nothing(text: str, _: Context) -> SendError:
    return PermanentError(text, error_class=ErrorClass.CONTENT)


def _dead_key(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(text, state=DeviceState.LOGGED_OUT, error_class=ErrorClass.ACCOUNT)


def _setup(text: str, context: Context) -> SendError:
    return DeviceUnavailableError(
        text, retry_after=max(SETUP_RETRY, context.retry_after or 0.0), error_class=ErrorClass.ACCOUNT
    )


def _moved(text: str, context: Context) -> SendError:
    return _setup(f"{text}: the platform has moved, or `base` names the wrong place", context)


def _too_fast(text: str, context: Context) -> SendError:
    return rate_limited(text, context.retry_after)


def _doubtful(text: str, _: Context) -> SendError:
    return InDoubtError(text, error_class=ErrorClass.SERVER)


SILENT_STATUSES: Final = MappingProxyType(
    {
        # Not carried out, by the meaning of the status (RFC 9110), and the same request will always end so.
        **dict.fromkeys((400, 406, 411, 413, 414, 415, 422, 431), _sent_nothing),
        # Not carried out; what is wrong is the address or the account, not this message.
        401: _dead_key,
        **dict.fromkeys((402, 403, 404, 405, 407, 410, 421, 426, 451), _setup),
        # Not carried out here, but to be repeated elsewhere, which would hand a token to whoever answers there.
        **dict.fromkeys((301, 307, 308), _moved),
        429: _too_fast,
        # In doubt: 302 and 303 may come after the work was done (post, redirect, get); 408, 409, 425 and 499 may come from
        # something between us and a platform that is at work; 5xx may come after it; 2xx without a verdict says nothing.
    }
)


def read_object(answer: Answer, context: Context) -> dict[str, Any] | Silent:
    """The JSON object in an answer, or why there is none."""
    if answer.body is None:
        return Silent(answer.lost)
    try:
        # Some PHP servers begin with a byte order mark.
        said = msgspec.json.decode(answer.body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        shown = context.tidy(answer.body[: 4 * MAX_SHOWN].decode("utf-8", "replace"))
        return Silent(f"no JSON, but {shown!r}" if shown else "nothing")
    if not isinstance(said, dict):
        return Silent("JSON, but no object")
    return said


def verdict(  # noqa: PLR0911  # one return for each row of the table that it is
    answer: Answer, said: Said, context: Context
) -> Accepted | SendError:
    """What the answer proves: that the message was accepted, or the error to raise."""
    match said:
        case Accepted() if 200 <= answer.status < 300:
            return said
        case Accepted():
            text = f"{context.platform} answered {answer.status}, but also that it took the message"
            return _doubtful(text, context)
        case Refused(error) if isinstance(error, DeviceUnavailableError | InDoubtError):
            return error
        case Refused(error) if answer.status in {401, 429}:
            return SILENT_STATUSES[answer.status](str(error), context)
        case Refused(PermanentError(error_class=ErrorClass.UNKNOWN) as error) if answer.status >= 500:
            return TransientError(str(error), retry_after=answer.retry_after, error_class=ErrorClass.SERVER)
        case Refused(error):
            return error
    reader: Callable[[str, Context], SendError] = _doubtful
    if not said.mixed:
        reader = SILENT_STATUSES.get(answer.status, _doubtful)
    text = f"{context.platform} answered {answer.status}"
    if reader is _doubtful:
        text += f" without saying whether it took the message: {answer.lost or said.why}"
    return reader(text, context)


def rate_limited(text: str, retry_after: float | None) -> DeviceUnavailableError:
    """The account sends too fast; it rests as long as the platform says."""
    return DeviceUnavailableError(
        text,
        retry_after=RATE_REST if retry_after is None else retry_after,
        whole_account=True,
        error_class=ErrorClass.RATE_LIMIT,
    )
