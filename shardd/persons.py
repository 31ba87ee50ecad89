"""The address that identifies a person: one for each, however the number was written.

An address is the digits of a phone number with its country code, `ID@lid` or `ID@bsuid` (WhatsApp or Meta hides the number), or
`ID@g.us` (a group). The database derives it when a job or an opt-out is inserted (`shardd.resolve`), and everything else uses
that: workers get the recipient of a job as it spells it (`recipient_at`), and know nothing about numbering plans.

In a few countries, WhatsApp lists accounts under an older form of their numbers. The number is kept as it was written, because
some platforms find an account under one form only; the address is the same for both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

USER_SERVER: Final = "s.whatsapp.net"
HIDDEN_SERVER: Final = "lid"
"""JIDs that hide the number."""
GROUP_SERVER: Final = "g.us"
BUSINESS_SERVER: Final = "bsuid"
"""Of business-scoped ids, by which Meta's Cloud API names people whose number it hides, in our own spelling: `US.1349…@bsuid`."""


@dataclass(frozen=True, slots=True)
class OtherForm:
    """Another form of a country's numbers, and how the address is made of it."""

    code: str
    """Calling code."""
    form: str
    """A regular expression that the digits after the code match as a whole; Python and PostgreSQL read it alike."""
    at: int
    """Where, in the digits after the code,"""
    cut: int
    """so many digits are removed"""
    add: str
    """and these inserted."""


OTHER_FORMS: Final = (
    OtherForm("52", r"1[0-9]{10}", 0, 1, ""),
    OtherForm("54", r"[1-8][0-9]{9}", 0, 0, "9"),
    OtherForm("55", r"[1-9][0-9][6-9][0-9]{7}", 2, 0, "9"),
    OtherForm("229", r"[0-9]{8}", 0, 0, "01"),
)
"""Mexico until 2019: 1 before mobile numbers; WhatsApp still lists +52 1 …. Argentina: 9 before mobile numbers from abroad, while
mobile and fixed lines share one numbering plan, so the number without 9 is the same line. Brazil until 2016: mobile numbers
without their ninth digit; WhatsApp lists many old accounts so. Benin until 2024: eight digits, now 01 before them."""
_FORMS: Final = {one.code: (re.compile(one.form, re.ASCII), one) for one in OTHER_FORMS}


def address_in(code: str, national: str) -> str | None:
    """The address of a number in another form; None: it is not in one. `national`: the digits after the calling code."""
    compiled, one = _FORMS.get(code, (None, None))
    if compiled is None or one is None or compiled.fullmatch(national) is None:
        return None
    return f"{code}{national[: one.at]}{one.add}{national[one.at + one.cut :]}"


def address_of_number(number: str) -> str:
    """The address of the person with this number. `number`: digits with country code."""
    # No calling code begins with another one, so at most one matches.
    found = (address_in(code, number.removeprefix(code)) for code in _FORMS if number.startswith(code))
    return next(found, None) or number


@dataclass(frozen=True, slots=True)
class Recipient:
    """`jid`: as WhatsApp addresses it. `number`: digits only, as it was written; None for groups and hidden ids."""

    jid: str
    number: str | None = None

    @property
    def address(self) -> str:
        """As the database knows the person."""
        return self.jid if self.number is None else address_of_number(self.number)


def of_number(number: str) -> Recipient:
    """The recipient with this number. `number`: digits with country code."""
    return Recipient(f"{number}@{USER_SERVER}", number)


def recipient_at(written: str) -> Recipient:
    """A recipient as the database or WhatsApp writes it: `+628…`, `628…:1@s.whatsapp.net`, `ID@lid`, `ID@g.us`, `ID@bsuid`."""
    user, _, server = written.removeprefix("+").partition("@")
    if server == BUSINESS_SERVER:
        return Recipient(written)
    user = user.partition(":")[0].partition(".")[0]
    return of_number(user) if server in {"", USER_SERVER} else Recipient(f"{user}@{server}")


def digits_of(text: str) -> str:
    """The digits in a text, as they are."""
    return re.sub("[^0-9]", "", text)
