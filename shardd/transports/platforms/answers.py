"""What the answer of an HTTP platform proves about a message.

The platform's own verdict counts first: `Accepted` with a status of success is sent, `Refused` is not sent. Without one
(`Unclear`: no JSON, no verdict in it, a truncated body) the HTTP status decides, and only a status that by HTTP means that
the request was not carried out counts as not sent. Contradictory answers are in doubt.

Many platforms share one shape, a `status` of true or false beside a sentence for people: `read_status` reads it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, assert_never

import msgspec

from shardd.config.transports.device_settings import MASK
from shardd.errors import (
    DeviceUnavailableError,
    ErrorClass,
    InDoubtError,
    PermanentError,
    SendError,
    TransientError,
)
from shardd.states import DeviceState
from shardd.transports.details import content_error
from shardd.transports.platforms.http_exchange import Answer
from shardd.transports.platforms.waits import PHONE_RETRY, RATE_BACKOFF, SETUP_RETRY
from shardd.urls import scrub_urls

MAX_SHOWN: Final = 300
"""Characters quoted from a platform's answer."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The platform took the message. `message_id` None: it returned none."""

    message_id: str | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The platform did not take the message; `error`: what follows from that.

    `exact`: it is from the platform's own code, so the HTTP status adds nothing.
    """

    error: SendError
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Unclear:
    """No verdict; `why`: what came instead. `mixed`: contradictory verdicts, so the status does not help."""

    why: str
    mixed: bool = False


Reading = Accepted | Refused | Unclear
Reader = Callable[[str, "Context"], SendError]


@dataclass(frozen=True, slots=True)
class Context:
    """What an answer is read with. `job_body`: a platform may repeat it."""

    platform: str
    job_body: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    retry_after: float | None = None
    """Retry-After of the answer, in seconds."""

    def wait(self, default: float) -> float:
        """Seconds until the next attempt: what the answer asks for, otherwise `default`."""
        return default if self.retry_after is None else self.retry_after

    def tidy(self, text: str) -> str:
        """Text of the platform, fit to be shown: short, on one line, without a secret of ours or of a URL."""
        for secret in self.secrets:
            text = text.replace(secret, MASK).replace(secret.replace("/", "\\/"), MASK)
        text = scrub_urls(text)  # many repeat the media URL, which may be signed
        text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
        return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def bad_content(text: str, _: Context) -> SendError:
    """This message can never be sent."""
    return content_error(text)


def bad_recipient(text: str, _: Context) -> SendError:
    """The recipient cannot be reached at all."""
    return PermanentError(text, error_class=ErrorClass.RECIPIENT)


def _dead_key(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(text, state=DeviceState.LOGGED_OUT, error_class=ErrorClass.ACCOUNT)


def account_setup(text: str, context: Context) -> SendError:
    """The account or the address of the platform must be fixed."""
    return DeviceUnavailableError(
        text, retry_after=max(SETUP_RETRY, context.retry_after or 0.0), error_class=ErrorClass.ACCOUNT
    )


def _moved(text: str, context: Context) -> SendError:
    return account_setup(f"{text}: the platform has moved, or `base` is wrong", context)


def too_fast(text: str, context: Context) -> SendError:
    """The account sends too fast; it backs off for as long as the platform asks."""
    return DeviceUnavailableError(
        text, retry_after=context.wait(RATE_BACKOFF), whole_account=True, error_class=ErrorClass.RATE_LIMIT
    )


def _doubtful(text: str, _: Context) -> SendError:
    return InDoubtError(text, error_class=ErrorClass.SERVER)


UNCLEAR_STATUSES: Final[Mapping[int, Reader]] = MappingProxyType(
    {
        # Not carried out, by the meaning of the status (RFC 9110), now and on every retry.
        **dict.fromkeys((400, 406, 411, 413, 414, 415, 422, 431), bad_content),
        # Not carried out; the address or the account is wrong, not this message.
        401: _dead_key,
        **dict.fromkeys((402, 403, 404, 405, 407, 410, 421, 426, 451), account_setup),
        # Not carried out here, but to be repeated elsewhere, which would give the token to whoever answers there.
        **dict.fromkeys((301, 307, 308), _moved),
        429: too_fast,
        # In doubt: 302 and 303 may follow the work (post, redirect, get); 408, 409, 425 and 499 may come from a proxy before a
        # platform that is at work; 5xx may follow the work; 2xx without a verdict proves nothing.
    }
)


def read_object(answer: Answer, context: Context) -> dict[str, Any] | Unclear:
    """The JSON object in an answer, or why there is none."""
    if answer.body is None:
        return Unclear(answer.lost)
    try:
        # Some PHP servers begin with a byte order mark.
        body = msgspec.json.decode(answer.body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        shown = context.tidy(answer.body[: 4 * MAX_SHOWN].decode("utf-8", "replace"))
        return Unclear(f"not JSON: {shown!r}" if shown else "an empty body")
    if not isinstance(body, dict):
        return Unclear("JSON, but not an object")
    return body


def verdict(  # noqa: PLR0911  # one return for each row of the table that it is
    answer: Answer, reading: Reading, context: Context
) -> Accepted | SendError:
    """That the message was accepted, or the error to raise."""
    match reading:
        case Accepted() if 200 <= answer.status < 300:
            return reading
        case Accepted():
            text = f"{context.platform} answered {answer.status}, but also that it accepted the message"
            return _doubtful(text, context)
        case Refused(error, exact) if exact or isinstance(error, DeviceUnavailableError):
            return error
        case Refused(error) if answer.status in {401, 429}:
            return UNCLEAR_STATUSES[answer.status](str(error), context)
        case Refused(PermanentError(error_class=ErrorClass.UNKNOWN) as error) if answer.status >= 500:
            return TransientError(str(error), retry_after=answer.retry_after, error_class=ErrorClass.SERVER)
        case Refused(error):
            return error
        case Unclear(why, mixed):
            reader = _doubtful if mixed else UNCLEAR_STATUSES.get(answer.status, _doubtful)
            text = f"{context.platform} answered {answer.status}"
            if reader is _doubtful:
                text += f" without a verdict on the message: {answer.lost or why}"
            return reader(text, context)
        case _:
            assert_never(reading)


def read_status(body: Mapping[str, Any], context: Context, message_id: str | None) -> Reading:
    """Read an answer with `status` and a sentence; `message_id`: from the answer, if it has one.

    The sentence is in `message`, which is the name that both platforms publish; other servers of their kind, and earlier
    versions, write `msg` or `reason`.

    Only JSON's own true is a message taken over, only its own false one refused. The sentence of a refusal only decides when
    to try again: the message was not sent either way. An unknown sentence fails the message, because most refusals are final.
    """
    match body.get("status"):
        case True:
            return Accepted(message_id)
        case False:
            sentences = (body.get(name) for name in ("message", "msg", "reason"))
            return Refused(_refusal(next((one for one in sentences if isinstance(one, str) and one), ""), context))
    return Unclear("JSON whose status is neither true nor false")


def message_id_of(body: Mapping[str, Any]) -> str | None:
    """The id in such an answer, if any: data.messages[0].id, or data.id; a text or a number."""
    data = body.get("data")
    messages = data.get("messages") if isinstance(data, dict) else None
    for place in (messages[0] if isinstance(messages, list) and messages else None, data):
        found = place.get("id") if isinstance(place, dict) else None
        if isinstance(found, (str, int)) and not isinstance(found, bool) and found:
            return str(found)
    return None


def _refusal(sentence: str, context: Context) -> SendError:
    shown = context.tidy(sentence) or "no reason given"
    text = f"{context.platform} refused the message: {shown}"
    # A sentence that repeats the message must not be matched by the message's own words.
    own = sentence.replace(context.job_body, "") if len(context.job_body) > 3 else sentence
    for pattern, reader in _REFUSALS:
        if re.search(pattern, own, re.IGNORECASE):
            return reader(text, context)
    return PermanentError(text, error_class=ErrorClass.UNKNOWN)


def _phone_unreachable(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(text, retry_after=PHONE_RETRY, error_class=ErrorClass.DEVICE)


def _unpaid(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(text, retry_after=SETUP_RETRY, whole_account=True, error_class=ErrorClass.ACCOUNT)


_KEY: Final = r"(token|(secret|api).?key|device.?id)"
# The first match decides. English and Indonesian, the languages of these platforms.
_REFUSALS: Final[tuple[tuple[str, Reader], ...]] = (
    # Whacenter: "device not connected or not found", of which it does not say which one; so before the dead keys.
    (r"\bnot connected\b|\bdisconnected\b", _phone_unreachable),
    (rf"\b{_KEY}\b.*\b(invalid|wrong|unknown|expired|not found|salah|tidak)", _dead_key),
    (rf"\b(invalid|wrong|unknown|expired)\b.*\b{_KEY}\b|unauthori[sz]ed", _dead_key),
    # Wablas, of a token that belongs to no device.
    (r"\bdevice\b.*\b(not found|tidak ditemukan)", _dead_key),
    (r"too many|rate.?limit|too fast|throttl|terlalu (banyak|cepat)", too_fast),
    (r"\b(quota|kuota|balance|saldo|subscription|package|paket|expired)\b", _unpaid),
    (
        r"\b(device|phone|whatsapp|perangkat)\b.*\b(disconnect|not connected|offline|terputus|tidak terhubung)",
        _phone_unreachable,
    ),
    (r"scan (the )?qr", _phone_unreachable),
    (r"\b(number|phone|recipient|nomor)\b.*\b(invalid|not|wrong|tidak|salah)", bad_recipient),
    (r"\b(invalid|wrong|unknown)\b.*\b(number|phone|recipient|nomor)", bad_recipient),
    (r"\b(image|file|media|caption|message|url|gambar|pesan)\b", bad_content),
)
