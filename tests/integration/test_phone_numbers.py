"""SQL and Python read phone numbers alike wherever both are certain."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import phonenumbers
import psycopg
import pytest
from phonenumbers import PhoneNumberType

from shardd.errors import PermanentError
from shardd.phone_numbers import address_of, is_ambiguous, parse_recipient
from tests.support.queue_rows import connect

TO = "+6281234567890"
NUMBERS = ("6281234567890", "4915112345678", "5511987654321", "12125551234", "390612345678", "79161234567")
SPELLINGS = (
    "+{}",
    "00{}",
    "{}",
    "(+{0[0]}{0[1]}) {0[2]}",
    "+{0[0]}{0[1]}-{0[2]}",
    "{}@s.whatsapp.net",
    "{}@lid",
    "+{0[0]}{0[1]} (0){0[2]}",
)
ODD = (
    "6281234567890-1400000000@g.us",
    "6281234:7@s.whatsapp.net",
    "(+62) 0812 3456",
    "٣" + TO,
    "0812 3456 7890",
    "0062 812-34",
)
REGIONS = (None, "ID", "DE")


def spellings() -> list[str]:
    parts = [(number[:1], number[1:2], number[2:]) for number in NUMBERS]
    return [
        form.format(pieces if "[" in form else number)
        for (number, pieces), form in itertools.product(zip(NUMBERS, parts, strict=True), SPELLINGS)
    ] + list(ODD)


async def test_a_python_address_is_the_databases(dsn: str) -> None:
    with connect(dsn) as connection:
        found = connection.execute("SELECT shardd.address_of(r) FROM unnest(%s::text[]) r", [spellings()]).fetchall()
    assert [(address_of(recipient),) for recipient in spellings()] == found


@pytest.mark.parametrize("region", REGIONS)
def test_unambiguous_spellings_are_parsed_to_the_address_that_the_database_derives(region: str | None) -> None:
    sure = [spelling for spelling in spellings() if not is_ambiguous(spelling, region)]
    for spelling in sure:
        try:
            parsed = parse_recipient(spelling, region)
        except PermanentError:
            continue  # nothing is sent to it
        assert parsed.address == address_of(spelling), spelling
    assert len(sure) > len(spellings()) / 2


@pytest.mark.parametrize(
    ("recipient", "region", "ambiguous"),
    [
        ("+6281234567890", "ID", False),
        ("+6281234567890", None, False),
        ("006281234567890", "ID", False),
        ("6281234567890", None, False),
        ("6281234567890", "ID", True),
        ("0812 3456 7890", "ID", True),
        ("+49 (0)151 2345678", None, True),
        ("0049 (0)151 2345678", None, True),
        ("(+62) 0812 3456 7890", None, True),
        ("6281234567890@s.whatsapp.net", "ID", False),
        ("12345678@lid", "ID", False),
    ],
)
def test_only_ambiguous_numbers_are_looked_up_again(recipient: str, region: str | None, ambiguous: bool) -> None:
    assert is_ambiguous(recipient, region) is ambiguous


async def test_the_gate_admits_whatever_can_be_sent_to(dsn: str) -> None:
    """But for a + in parentheses, which only Python reads: the list of opt-outs may hold it."""
    sendable = []
    for spelling in spellings():
        try:
            parse_recipient(spelling, "ID")
        except PermanentError:
            continue
        sendable += [] if spelling.startswith("(+") else [spelling]
    with connect(dsn) as connection:
        connection.execute("SELECT shardd.check_recipient(r, 'jobs') FROM unnest(%s::text[]) r", [sendable])


async def test_the_database_knows_which_countries_have_numbers_that_begin_with_zero(dsn: str) -> None:
    """check_spelling refuses a 0 after every country code of phonenumbers but those where it is part of the number."""
    zeros = {39, 225, 226, 229, 241, 242, 378, 881, 992}
    examples = (
        (code, phonenumbers.example_number_for_type(region, kind))
        for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items()
        for region, kind in itertools.product(regions, (PhoneNumberType.FIXED_LINE, PhoneNumberType.MOBILE))
    )
    shown = {code for code, one in examples if one and phonenumbers.national_significant_number(one).startswith("0")}
    assert set() < shown <= zeros
    with connect(dsn) as connection:
        for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            refused: AbstractContextManager[Any] = (
                nullcontext() if code in zeros else pytest.raises(psycopg.Error, match="has a 0 after its country")
            )
            with refused:
                connection.execute("SELECT shardd.check_spelling(%s)", [f"+{code}0123456"])
