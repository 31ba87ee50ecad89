"""What each error code of the Cloud API means for a message, a number and an account: one table of data. Pure.

The list is Meta's: developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes, updated on 18 June
2026 (`LIST`; read in two public transcriptions), with the general codes of the Graph API's page on error handling (17, 102, 104,
341, 613) and, at the end, codes that earlier versions of the list had. Meta returns an error in the answer to the request, later
by webhook, or both; this table serves both ways. A code that is not in it is unknown, and its error says so.

All codes mean that the message was not sent, 1 and 131000 included: Meta's words for them are "failed to send", and to try again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from shardd.errors import (
    DeviceUnavailableError,
    ErrorClass,
    OptedOutError,
    PermanentError,
    SendError,
    TransientError,
)
from shardd.states import DeviceState
from shardd.transports.platforms.waits import ENFORCED_RETRY, PHONE_RETRY, RATE_BACKOFF, SERVICE_RETRY, SETUP_RETRY

LIST: Final = "Meta's list of 18 June 2026"
NO_SUCH_NUMBER: Final = 33
"""Also the subcode of 100: the phone_number_id does not exist, or the token may not use it."""


class Meaning(Enum):
    """What a code is about, and so who waits."""

    DEAD_KEY = "the token is not valid any more: the device stops until it has another one"
    ACCOUNT = "the account or the number must be fixed by a person: the device waits and tries again"
    SETTING = "a setting of the account refuses this kind of message: only such messages wait"
    ENFORCED = "the account is restricted until a date: all devices of its token wait"
    SPAM = "the number is restricted for its quality: the device waits"
    APP_RATE = "too many calls by the app or the business account: all devices of its token wait"
    NUMBER_RATE = "too many messages by the number: the device waits"
    PAIR_RATE = "too many messages to this recipient: only this message waits"
    MAINTENANCE = "the number is in maintenance: the device waits"
    SERVICE = "Meta could not send it now: the message waits"
    RECIPIENT = "this recipient cannot be written to"
    OPTED_OUT = "this recipient stopped marketing messages"
    CONTENT = "this message can never be sent"


def _table(groups: Iterable[tuple[Meaning, Iterable[int]]]) -> Iterator[tuple[int, Meaning]]:
    for meaning, codes in groups:
        yield from ((code, meaning) for code in codes)


CODES: Final[Mapping[int, Meaning]] = MappingProxyType(
    dict(
        _table(
            (
                # Authorization. 102 and 104 are the Graph API's: no session, no valid signature.
                (Meaning.DEAD_KEY, (0, 102, 104, 190)),
                (Meaning.ACCOUNT, (3, 10, *range(200, 300), 131005)),
                # Throttling. 17, 341 and 613 are the Graph API's. 130429 is of one phone number, 131056 of a pair.
                (Meaning.APP_RATE, (4, 17, 341, 613, 80007)),
                (Meaning.NUMBER_RATE, (130429,)),
                (Meaning.PAIR_RATE, (131056,)),
                (Meaning.SPAM, (131048,)),
                # Integrity. 130497: not to users of certain countries. 131064: misclassified templates, until a date.
                (Meaning.ACCOUNT, (368, 131031)),
                (Meaning.ENFORCED, (131064,)),
                (Meaning.RECIPIENT, (130497,)),
                # Other errors of a message. 130403: the business has blocked this user. 130472: an experiment. 131049: too much
                # marketing for this user; Meta asks not to retry within a day.
                (Meaning.SERVICE, (1, 2, 131000, 131016, 133004)),
                (Meaning.MAINTENANCE, (131057, 2494100)),
                (Meaning.RECIPIENT, (130403, 130472, 131021, 131026, 131030, 131049, 131062)),
                (Meaning.OPTED_OUT, (131050,)),
                (Meaning.CONTENT, (100, 131008, 131009, 131047, 131051, 131052, 131053, 131055, 135000)),
                # The number and the account: deleted, without a display name, unpaid, without a certificate, not registered.
                (Meaning.ACCOUNT, (NO_SUCH_NUMBER, 131037, 131042, 131045, 133010)),
                # Settings: marketing templates are off for the Cloud API; the terms of payments are not accepted.
                (Meaning.SETTING, (131063, 134011)),
                # Templates and flows. 134101: a new template is not yet known everywhere.
                (Meaning.CONTENT, (132000, 132001, 132005, 132007, 132012, 132015, 132016, 132018, 132068, 132069)),
                (Meaning.CONTENT, (134100, 134102)),
                (Meaning.SERVICE, (134101,)),
                # Of other endpoints: registration and two-step verification, template management, signup, synchronisation.
                (Meaning.ACCOUNT, (133000, 133005, 133006, 133008, 133009, 133015, 133016, 136024)),
                (Meaning.CONTENT, (2388019, 2388039, 2388040, 2388047, 2388072, 2388073, 2388293, 2388299)),
                (
                    Meaning.ACCOUNT,
                    (1752041, *range(2494164, 2494169), 2494176, 2494177, 2494179, *range(2593107, 2593110)),
                ),
                # On earlier versions of the list.
                (Meaning.CONTENT, (506, 131001, 131002, 131006, 131043)),
                (Meaning.ACCOUNT, (133001, 133002, 133003, 133007, 136025)),
            )
        )
    )
)


_FINAL: Final = MappingProxyType({Meaning.RECIPIENT: ErrorClass.RECIPIENT, Meaning.CONTENT: ErrorClass.CONTENT})
_WAITS: Final[Mapping[Meaning, tuple[float, ErrorClass]]] = MappingProxyType(
    {
        Meaning.ACCOUNT: (SETUP_RETRY, ErrorClass.ACCOUNT),
        Meaning.SETTING: (SETUP_RETRY, ErrorClass.ACCOUNT),
        Meaning.ENFORCED: (ENFORCED_RETRY, ErrorClass.ACCOUNT),
        Meaning.SPAM: (ENFORCED_RETRY, ErrorClass.RATE_LIMIT),
        Meaning.APP_RATE: (RATE_BACKOFF, ErrorClass.RATE_LIMIT),
        Meaning.NUMBER_RATE: (RATE_BACKOFF, ErrorClass.RATE_LIMIT),
        Meaning.PAIR_RATE: (RATE_BACKOFF, ErrorClass.RATE_LIMIT),
        Meaning.MAINTENANCE: (PHONE_RETRY, ErrorClass.SERVER),
        Meaning.SERVICE: (SERVICE_RETRY, ErrorClass.SERVER),
    }
)
"""Seconds, unless Meta asks for others, and the class."""
_OF_MESSAGE: Final = frozenset({Meaning.SETTING, Meaning.PAIR_RATE, Meaning.SERVICE})
"""Only the message waits; otherwise its device does."""
_OF_TOKEN: Final = frozenset({Meaning.APP_RATE, Meaning.ENFORCED})
"""All devices with its token do."""


def error_of(meaning: Meaning, text: str, retry_after: float | None = None) -> SendError:
    """What follows for the message and its device. `retry_after`: seconds that Meta asks for."""
    if meaning is Meaning.DEAD_KEY:
        return DeviceUnavailableError(
            f"{text}: its token is no longer valid", state=DeviceState.LOGGED_OUT, error_class=ErrorClass.ACCOUNT
        )
    if meaning is Meaning.OPTED_OUT:
        return OptedOutError(text)
    if (final := _FINAL.get(meaning)) is not None:
        return PermanentError(text, error_class=final)
    wait, error_class = _WAITS[meaning]
    if retry_after is not None:
        wait = max(wait, retry_after) if meaning is Meaning.ACCOUNT else retry_after
    if meaning in _OF_MESSAGE:
        return TransientError(text, retry_after=wait, error_class=error_class)
    return DeviceUnavailableError(text, retry_after=wait, whole_account=meaning in _OF_TOKEN, error_class=error_class)


def meaning_of(code: object, subcode: object = None) -> Meaning | None:
    """None: the code is unknown."""
    if not isinstance(code, int) or isinstance(code, bool):
        return None
    if code == 100 and subcode == NO_SUCH_NUMBER:
        return Meaning.ACCOUNT
    return CODES.get(code)


def unknown(text: str) -> str:
    """The error text of an unknown code."""
    return f"{text}; this code is not on {LIST}"
