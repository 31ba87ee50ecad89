"""What the error codes of the Cloud API oblige us to. All of them say that the message was not taken, save where noted.

The codes and their meaning are those of Meta's list of error codes; one that is not in this table fails the message when the
request is to blame (4xx), and proves nothing when the server is (5xx).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from shardd.errors import DeviceUnavailableError, ErrorClass, OptedOutError, PermanentError, SendError, TransientError
from shardd.states import DeviceState
from shardd.transports.platforms.http_answers import SETUP_RETRY, Context, Refused, Said, Silent, rate_limited

PAIR_REST: Final = 60.0
"""Seconds before the same recipient is written to again, after the limit of one pair of numbers."""
SPAM_REST: Final = 3600.0
"""Seconds that a number rests after Meta held it back for what it sends."""
SERVICE_RETRY: Final = 30.0

Reader = Callable[[str, Context], SendError]


def _account_rests(text: str, context: Context) -> SendError:
    return rate_limited(text, context.retry_after)


def _pair_rests(text: str, context: Context) -> SendError:
    wait = PAIR_REST if context.retry_after is None else context.retry_after
    return TransientError(text, retry_after=wait, error_class=ErrorClass.RATE_LIMIT)


def _held_back(text: str, context: Context) -> SendError:
    wait = SPAM_REST if context.retry_after is None else context.retry_after
    return DeviceUnavailableError(text, retry_after=wait, error_class=ErrorClass.RATE_LIMIT)


def _dead_token(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(
        f"{text}: its token is not valid any more", state=DeviceState.LOGGED_OUT, error_class=ErrorClass.ACCOUNT
    )


def _account(text: str, _: Context) -> SendError:
    return DeviceUnavailableError(text, retry_after=SETUP_RETRY, error_class=ErrorClass.ACCOUNT)


def _service(text: str, context: Context) -> SendError:
    wait = SERVICE_RETRY if context.retry_after is None else context.retry_after
    return TransientError(text, retry_after=wait, error_class=ErrorClass.SERVER)


def _recipient(text: str, _: Context) -> SendError:
    return PermanentError(text, error_class=ErrorClass.RECIPIENT)


def _content(text: str, _: Context) -> SendError:
    return PermanentError(text, error_class=ErrorClass.CONTENT)


def _opted_out(text: str, _: Context) -> SendError:
    return OptedOutError(text)


CODES: Final[Mapping[int, Reader]] = MappingProxyType(
    {
        # calls of the app, of the business account, of the number; the same for every device of the token
        **dict.fromkeys((4, 80007, 130429), _account_rests),
        131056: _pair_rests,
        131048: _held_back,
        190: _dead_token,
        # permissions, blocks, payment, a number that is not registered, maintenance: a person mends the account
        **dict.fromkeys((3, 10, 33, 368, 130497, 131005, 131031, 131037, 131042, 131045, 131057, 133010), _account),
        **dict.fromkeys(range(200, 300), _account),
        # "service unavailable" and its kin: refused at the door
        **dict.fromkeys((2, 131016, 133004), _service),
        # no WhatsApp there, the sender itself, not on the list of a test number, an experiment, too much marketing
        **dict.fromkeys((130472, 131021, 131026, 131030, 131049), _recipient),
        131050: _opted_out,
        # parameters, kinds, media, templates, a text after the 24 hours in which the recipient wrote
        **dict.fromkeys((100, 131008, 131009, 131047, 131051, 131052, 131053, 135000), _content),
        **dict.fromkeys((132000, 132001, 132005, 132007, 132012, 132015, 132016, 132068, 132069), _content),
    }
)
NO_SUCH_NUMBER: Final = 33
"""As the subcode of 100: there is no such phone_number_id, or the token may not use it."""


def read_error(error: Mapping[str, Any], status: int, context: Context) -> Said:
    """What the object `error` of an answer says."""
    code = error.get("code")
    if not isinstance(code, int) or isinstance(code, bool):
        return Silent("JSON with an error that has no code")
    text = f"the Cloud API refused the message ({describe(error, context)})"
    if code == 100 and error.get("error_subcode") == NO_SUCH_NUMBER:
        return Refused(_account(text, context))
    if (reader := CODES.get(code)) is not None:
        return Refused(reader(text, context))
    if status >= 500:
        return Silent(f"error {describe(error, context)}")
    return Refused(PermanentError(text, error_class=ErrorClass.UNKNOWN))


def error_class_of(code: object) -> ErrorClass:
    """What kind of error a code is, for messages that Meta says later it could not deliver."""
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
