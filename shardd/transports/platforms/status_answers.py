"""The answers of platforms that say `status: true` or `status: false`, with a sentence for people beside it.

Only a `status` that is JSON's own true is a message taken over, and only its own false is one refused; a missing one, or one of
another type, says nothing. What the sentence of a refusal says only decides how patient we are: the message was not sent either
way. A sentence that is not known fails the message, because a platform that refuses once mostly refuses for good.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from shardd.errors import DeviceUnavailableError, ErrorClass, PermanentError, SendError
from shardd.states import DeviceState
from shardd.transports.platforms.http_answers import SETUP_RETRY, Accepted, Context, Refused, Said, Silent, rate_limited

PHONE_RETRY: Final = 60.0
"""Seconds before a device is tried again whose phone the platform cannot reach."""


def read_status(said: Mapping[str, Any], words: str, context: Context, message_id: str | None) -> Said:
    """`words`: the name of the field with the sentence; `message_id`: what stands in the answer, if it does."""
    match said.get("status"):
        case True:
            return Accepted(message_id)
        case False:
            sentence = said.get(words)
            return Refused(_refusal(sentence if isinstance(sentence, str) else "", context))
    return Silent("JSON without a status that is true or false")


def _refusal(sentence: str, context: Context) -> SendError:
    shown = context.tidy(sentence) or "without saying why"
    text = f"{context.platform} refused the message: {shown}"
    # A sentence that repeats the message must not be read for the message's own words.
    own = sentence.replace(context.job_body, "") if len(context.job_body) > 3 else sentence
    for pattern, reader in _REFUSALS:
        if re.search(pattern, own, re.IGNORECASE):
            return reader(text, context)
    return PermanentError(text, error_class=ErrorClass.UNKNOWN)


def _dead_key(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(text, state=DeviceState.LOGGED_OUT, error_class=ErrorClass.ACCOUNT)


def _too_fast(text: str, context: Context) -> SendError:
    return rate_limited(text, context.retry_after)


def _phone_away(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(text, retry_after=PHONE_RETRY, error_class=ErrorClass.DEVICE)


def _unpaid(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(text, retry_after=SETUP_RETRY, whole_account=True, error_class=ErrorClass.ACCOUNT)


def _nobody_there(text: str, _: Context) -> SendError:
    return PermanentError(text, error_class=ErrorClass.RECIPIENT)


def _bad_content(text: str, _: Context) -> SendError:
    return PermanentError(text, error_class=ErrorClass.CONTENT)


# Read from top to bottom; the first that matches decides. English and Indonesian, in which these platforms speak.
_REFUSALS: Final[tuple[tuple[str, Callable[[str, Context], SendError]], ...]] = (
    (r"\b(token|api.?key|device.?id)\b.*\b(invalid|wrong|unknown|expired|not found|salah|tidak)", _dead_key),
    (r"\b(invalid|wrong|unknown|expired)\b.*\b(token|api.?key|device.?id)\b|unauthori[sz]ed", _dead_key),
    (r"too many|rate.?limit|too fast|throttl|terlalu (banyak|cepat)", _too_fast),
    (r"\b(quota|kuota|balance|saldo|subscription|package|paket|expired)\b", _unpaid),
    (
        r"\b(device|phone|whatsapp|perangkat)\b.*\b(disconnect|not connected|offline|terputus|tidak terhubung)",
        _phone_away,
    ),
    (r"disconnected|not connected|scan (the )?qr", _phone_away),
    (r"\b(number|phone|recipient|nomor)\b.*\b(invalid|not|wrong|tidak|salah)", _nobody_there),
    (r"\b(invalid|wrong|unknown)\b.*\b(number|phone|recipient|nomor)", _nobody_there),
    (r"\b(image|file|media|caption|message|url|gambar|pesan)\b", _bad_content),
)
