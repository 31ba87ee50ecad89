"""Recipients as people write them. Numbers are parsed by phonenumbers.

The database reads them the same way when a job or an opt-out is inserted (`shardd.resolve`), from a table that is generated from
phonenumbers (`scripts/lib/numbering_table.py`); `tests/integration/test_phone_numbers.py` holds both against each other. This
module is for what is not inserted: the arguments of commands, and the import from another system.

A number is refused if it can never be one: no country has the code, or no number of the country has so many digits. Ranges change
too often for that. They decide only between several possible readings of a number that is written without + and country code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import phonenumbers

from shardd.errors import ErrorClass, PermanentError
from shardd.persons import Recipient, address_in, of_number

INVISIBLE: Final = "\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
"""Marks without width that come along when a number is copied, as a class of a regular expression."""
BLANK: Final = "\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
SEPARATORS: Final = BLANK + "()./\u2010-\u2015\u2212-"
MOST: Final = 15
"""Digits of a number with its country code (ITU-T E.164)."""
LONGEST: Final = 200
"""Characters of a recipient."""

_INVISIBLE: Final = re.compile(f"[{INVISIBLE}]")
_SEPARATORS: Final = re.compile(f"[{SEPARATORS}]")
_USER: Final = re.compile(
    r"(?P<user>[0-9]{5,20})(\.[0-9]{1,5})?(:[0-9]{1,5})?@(?P<server>s\.whatsapp\.net|c\.us|lid)", re.ASCII
)
_BUSINESS: Final = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}@bsuid", re.ASCII)
"""Meta's page on business-scoped user ids: a country, and up to 128 letters and digits."""
_GROUP: Final = re.compile(r"[0-9]{5,25}(-[0-9]{5,15})?@g\.us", re.ASCII)
_DECIMAL: Final = re.compile(rf"[{BLANK}]*\+?[0-9]{{7,}}\.[0-9]{{1,2}}[{BLANK}]*", re.ASCII)
"""What a spreadsheet or pandas makes of a column with gaps. Read as a number, its decimals would make it somebody else's."""
_NUMBER: Final = re.compile(r"\+?[0-9]+", re.ASCII)


def parse_recipient(text: str, default_region: str | None, *, transport: str = "whatsapp") -> Recipient:
    """Read a recipient as a producer wrote it. Raises PermanentError that says how to write it.

    `transport`: whose section of the config has `default_region`.
    """
    clean = _INVISIBLE.sub("", text[: LONGEST + 1])
    if "@" in clean:
        address = clean.strip()
        if _GROUP.fullmatch(address) or _BUSINESS.fullmatch(address):
            return Recipient(address)
        if (match := _USER.fullmatch(address)) is None:
            raise _refused(
                f"recipient {text!r} is not a WhatsApp address: write a phone number such as +4915112345678, "
                "or NUMBER@s.whatsapp.net, or ID@g.us for a group"
            )
        if match["server"] == "lid":
            return Recipient(f"{match['user']}@lid")
        digits = match["user"] if match["user"].startswith("0") else f"+{match['user']}"
    elif _DECIMAL.fullmatch(clean):
        raise _refused(
            f"recipient {text!r} is a decimal number, as a spreadsheet writes it: write its digits as text, such as "
            "+4915112345678"
        )
    else:
        digits = _SEPARATORS.sub("", clean)
    if _NUMBER.fullmatch(digits) is None or len(text) > LONGEST:
        raise _refused(f"recipient {text!r} is not a phone number: write it as +4915112345678")
    return of_number(_number(digits, text, default_region, transport))


def _number(digits: str, text: str, region: str | None, transport: str) -> str:
    """The number that the digits of a text mean, with or without +. Raises PermanentError."""
    if digits.startswith("00"):
        digits = f"+{digits[2:]}"
    if digits.startswith("+"):
        if (number := _read(digits[1:])) is None:
            raise _refused(
                f"recipient {text!r} cannot be a phone number: no country has the code, or it has too few or too many digits"
            )
    elif (number := _resolve(digits, region)) is None:
        fix = "write it with + and country code"
        fix += "" if region else f", or set transports.{transport}.default_region"
        raise _refused(f"recipient {text!r} cannot be resolved to a phone number without its country: {fix}")
    return number


def _resolve(digits: str, region: str | None) -> str | None:
    """A number without +: the only possible reading, or the first of several that is in a range of its country."""
    readings = {of_number(number).address: number for number in _readings(digits, region)}
    if len(readings) == 1:
        return next(iter(readings.values()))
    return next((number for address, number in readings.items() if _is_assigned(address)), None)


def _readings(digits: str, region: str | None) -> Iterator[str]:
    """The possible readings, the likeliest first: with the region's country code, within the region, with another code."""
    code = "" if region is None else str(phonenumbers.country_code_for_region(region))
    has_code = _read(digits) if not digits.startswith("0") else None
    if code and has_code is not None and digits.startswith(code):
        yield has_code
    if code and (within := _read(code + digits)) is not None:
        yield within
    if has_code is not None:
        yield has_code


def _read(digits: str) -> str | None:
    """The number that these digits, which begin with a country code, mean; None: they cannot be one."""
    try:
        number = phonenumbers.parse(f"+{digits}", None)
    except phonenumbers.NumberParseException:
        return None
    national = phonenumbers.national_significant_number(number)
    full = f"{number.country_code}{national}"
    if full != digits:
        # One prefix was removed. Without it, the number must mean the same wherever it is read again.
        return _read(full)
    if address_in(str(number.country_code), national) is not None:
        return full
    possible = phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    return full if possible and len(full) <= MOST else None


def _is_assigned(address: str) -> bool:
    """Whether a number is in a range of its country, as far as this release of phonenumbers knows."""
    number = phonenumbers.parse(f"+{address}", None)
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(number.country_code or 0, ())
    return any(phonenumbers.is_valid_number_for_region(number, region) for region in regions)


def _refused(text: str) -> PermanentError:
    return PermanentError(text, error_class=ErrorClass.RECIPIENT)


def is_region(code: str) -> bool:
    """Whether a country code of two letters (ISO 3166) has phone numbers."""
    return code in phonenumbers.SUPPORTED_REGIONS


def calling_codes(regions: Mapping[str, str]) -> dict[str, str]:
    """The calling code of each of these regions, under its key."""
    return {name: str(phonenumbers.country_code_for_region(region)) for name, region in regions.items()}
