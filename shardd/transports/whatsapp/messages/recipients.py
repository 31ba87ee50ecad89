"""Who a message goes to: a phone number in any usual spelling, a JID, or a group; and who is known not to be on WhatsApp.

A number is normalised by phonenumbers. WhatsApp may list an account under another number than people dial (mobile numbers in
Brazil, Mexico and Argentina), so what it says about a number is kept: the address to write to, or that there is none.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Container
from dataclasses import dataclass
from typing import Final

import phonenumbers

from shardd.errors import ErrorClass, PermanentError

USER_SERVER: Final = "s.whatsapp.net"
GROUP_SERVER: Final = "g.us"
HIDDEN_SERVER: Final = "lid"
"""JIDs that hide the number."""

ABSENT_FOR: Final = 24 * 3600.0
PRESENT_FOR: Final = 7 * 24 * 3600.0
"""Seconds that knowledge about a number is trusted: people join more often than numbers move."""
MAX_KNOWN: Final = 100_000

_JID: Final = re.compile(r"(?P<user>[0-9]+(-[0-9]+)?)@(?P<server>s\.whatsapp\.net|c\.us|lid|g\.us)", re.ASCII)
_SPELLING: Final = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]")


@dataclass(frozen=True, slots=True)
class Recipient:
    """An address. `number`: digits only, of a person reached by number; None for groups and hidden ids."""

    jid: str
    number: str | None = None


def parse_recipient(text: str, default_region: str | None, *, transport: str = "whatsapp") -> Recipient:
    """Read a recipient as a producer wrote it. Raises PermanentError that says how to write it.

    `transport`: whose section of the config has `default_region`.
    """
    text = text.strip()
    if "@" in text:
        match = _JID.fullmatch(text)
        if match is None:
            raise _no_address(
                f"recipient {text!r} is no address of WhatsApp: write a phone number such as +6281234567890, "
                "or NUMBER@s.whatsapp.net, or ID@g.us for a group"
            )
        user, server = match["user"], match["server"]
        if server in {USER_SERVER, "c.us"}:
            return Recipient(f"{user}@{USER_SERVER}", user)
        return Recipient(f"{user}@{server}")
    number = _parse_number(text, default_region, transport)
    return Recipient(f"{number}@{USER_SERVER}", number)


def _parse_number(text: str, region: str | None, transport: str) -> str:
    digits = _SPELLING.sub("", text)
    if digits.startswith("00"):
        digits = "+" + digits[2:]
    if not re.fullmatch(r"\+?[0-9]+", digits, re.ASCII):
        raise _no_address(f"recipient {text!r} is no phone number: write it as +6281234567890")
    if digits.startswith("+"):
        number = _try(digits, None)
        if number is not None and phonenumbers.is_possible_number(number):
            return _digits(number)
        raise _no_address(f"recipient {text!r} cannot be a phone number: it has too few or too many digits")
    # Without a plus it may be a number of the default region, or one with its country code: only a sure reading counts.
    for number in (_try(digits, region), _try("+" + digits, None)):
        if number is not None and phonenumbers.is_valid_number(number):
            return _digits(number)
    mend = "write it with + and country code" + ("" if region else f", or set transports.{transport}.default_region")
    raise _no_address(f"recipient {text!r} is no phone number that can be told without its country: {mend}")


def _no_address(text: str) -> PermanentError:
    return PermanentError(text, error_class=ErrorClass.RECIPIENT)


def _try(digits: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return None


def _digits(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).removeprefix("+")


class Directory:
    """What WhatsApp said about numbers; a number is as much there for one device as for another."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[str | None, float]] = OrderedDict()

    def lookup(self, number: str) -> tuple[bool, str | None]:
        """(known, JID to write to): (True, None) is a number without an account, (False, None) one nobody asked about."""
        found = self._known.get(number)
        if found is None or found[1] < time.monotonic():
            return False, None
        return True, found[0]

    def numbers_of(self, jids: Container[str]) -> list[str]:
        """The numbers under which these JIDs were found. Looks at all that is known."""
        return [number for number, (jid, _) in self._known.items() if jid is not None and jid in jids]

    def learn(self, number: str, jid: str | None) -> None:
        """`jid` None: there is no account."""
        self._known[number] = (jid, time.monotonic() + (ABSENT_FOR if jid is None else PRESENT_FOR))
        self._known.move_to_end(number)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
