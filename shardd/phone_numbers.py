"""Recipients as people write them, and as WhatsApp and the database address them.

The one place in Python that reads or spells a phone number. Numbers are parsed by phonenumbers. An address is what identifies a
recipient everywhere: the digits of a phone number, `ID@lid` (WhatsApp hides the number) or `ID@g.us` (a group). SQL has to
derive it without phonenumbers (`shardd.address_of`), so the two can differ for a number whose country only `default_region` gives
(`is_ambiguous`); `tests/integration/test_phone_numbers.py` holds them against each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import phonenumbers

from shardd.errors import ErrorClass, PermanentError

USER_SERVER: Final = "s.whatsapp.net"
HIDDEN_SERVER: Final = "lid"
"""JIDs that hide the number."""
GROUP_SERVER: Final = "g.us"

_JID: Final = re.compile(r"(?P<user>[0-9]+(-[0-9]+)?)@(?P<server>s\.whatsapp\.net|c\.us|lid|g\.us)", re.ASCII)
_SPELLING: Final = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]")
_PLAIN: Final = re.compile(r"\+[1-9][1-9]{3}[0-9]{3,11}")
"""With + and country code, and no 0 where one could be too many."""
_TRUNK_ZERO: Final = re.compile(r"(00)?[1-9][0-9]{0,2}0")
"""A 0 right after what may be a country code: often one that is only dialled within the country."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """`jid`: as WhatsApp addresses it. `number`: digits only; None for groups and hidden ids."""

    jid: str
    number: str | None = None

    @property
    def address(self) -> str:
        """As the database knows it."""
        return self.number or self.jid


def parse_recipient(text: str, default_region: str | None, *, transport: str = "whatsapp") -> Recipient:
    """Read a recipient as a producer wrote it. Raises PermanentError that says how to write it.

    `transport`: whose section of the config has `default_region`.
    """
    text = text.strip()
    if "@" not in text:
        number = _parse_number(text, default_region, transport)
        return Recipient(f"{number}@{USER_SERVER}", number)
    match = _JID.fullmatch(text)
    if match is None:
        raise _refused(
            f"recipient {text!r} is not a WhatsApp address: write a phone number such as +6281234567890, "
            "or NUMBER@s.whatsapp.net, or ID@g.us for a group"
        )
    user, server = match["user"], match["server"]
    return Recipient(f"{user}@{USER_SERVER}", user) if server in {USER_SERVER, "c.us"} else Recipient(text)


def _parse_number(text: str, region: str | None, transport: str) -> str:
    digits = _SPELLING.sub("", text)
    if digits.startswith("00"):
        digits = "+" + digits[2:]
    if not re.fullmatch(r"\+?[0-9]+", digits, re.ASCII):
        raise _refused(f"recipient {text!r} is not a phone number: write it as +6281234567890")
    if digits.startswith("+"):
        number = _try(digits, None)
        if number is not None and phonenumbers.is_possible_number(number):
            return _e164_digits(number)
        raise _refused(f"recipient {text!r} cannot be a phone number: it has too few or too many digits")
    # Without + it may be a number of the default region, or one with its country code: only a valid reading counts.
    for number in (_try(digits, region), _try("+" + digits, None)):
        if number is not None and phonenumbers.is_valid_number(number):
            return _e164_digits(number)
    fix = "write it with + and country code" + ("" if region else f", or set transports.{transport}.default_region")
    raise _refused(f"recipient {text!r} cannot be resolved to a phone number without its country: {fix}")


def _refused(text: str) -> PermanentError:
    return PermanentError(text, error_class=ErrorClass.RECIPIENT)


def _try(digits: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return None


def _e164_digits(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).removeprefix("+")


def digits_of(text: str) -> str:
    """The digits in a text, as they are."""
    return re.sub("[^0-9]", "", text)


def address_of(recipient: str) -> str:
    """`shardd.address_of` in Python: the address that the database derives from the spelling alone."""
    if recipient.endswith((f"@{HIDDEN_SERVER}", "@g.us")):
        return recipient
    if "@" in recipient:
        return recipient.partition("@")[0].partition(":")[0]
    return digits_of(recipient).removeprefix("00")


def is_plain(recipient: str) -> bool:
    """Whether `parse_recipient` finds the address of `address_of` in every region: nearly all recipients."""
    return "@" in recipient or _PLAIN.fullmatch(recipient) is not None


def is_ambiguous(recipient: str, region: str | None) -> bool:
    """Whether `parse_recipient` may find another address than `address_of`. `region`: the device's default region."""
    if is_plain(recipient):
        return False
    digits = digits_of(recipient)
    if recipient.lstrip(" (").startswith("+") or digits.startswith("00"):
        return _TRUNK_ZERO.match(digits) is not None
    return region is not None


def other_spellings(address: str) -> list[str]:
    """Other digits by which a job may name the same phone number: without country code, or with a trunk prefix."""
    number = _try(f"+{address}", None) if address.isdecimal() else None
    if number is None:
        return []
    region = phonenumbers.region_code_for_number(number)
    trunk = phonenumbers.ndd_prefix_for_region(region, True) or "" if region else ""
    code, national = str(number.country_code), phonenumbers.national_significant_number(number)
    return sorted({national, f"{trunk}{national}", f"{code}{trunk}{national}"} - {address})


def is_region(code: str) -> bool:
    """Whether a country code of two letters (ISO 3166) has phone numbers."""
    return code in phonenumbers.SUPPORTED_REGIONS


def country_codes(regions: Iterable[str]) -> list[str]:
    """Calling codes of these regions, without duplicates."""
    return sorted({str(phonenumbers.country_code_for_region(region)) for region in regions})
