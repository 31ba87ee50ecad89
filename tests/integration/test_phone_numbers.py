"""Python (phonenumbers) and SQL (a table that is generated from it) read every recipient alike."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import phonenumbers
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardd.errors import PermanentError
from shardd.persons import OTHER_FORMS, address_of_number, recipient_at
from shardd.phone_numbers import parse_recipient
from tests.support.queue_rows import connect

ROOT = Path(__file__).parents[2]
REGIONS = (None, "ID", "DE", "BR", "AR", "MX", "US", "RU", "IT", "IN", "HU")
CODES = {None: "", **{region: str(phonenumbers.country_code_for_region(region)) for region in REGIONS if region}}
READ = """
CREATE FUNCTION pg_temp.read_one(recipient text, code text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    one record;
BEGIN
    one := shardd.resolve(recipient, array[code], 'jobs');
    RETURN concat_ws(' ', one.address, one.number);
EXCEPTION WHEN check_violation THEN
    RETURN NULL;
END $$
"""


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(dsn) as connection:
        connection.execute(READ)
        yield connection


def in_sql(connection: psycopg.Connection[Any], texts: list[tuple[str, str | None]]) -> list[str | None]:
    recipients, codes = [text for text, _ in texts], [CODES[region] for _, region in texts]
    statement = """
        SELECT pg_temp.read_one(recipient, code)
          FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS e(recipient, code, n) ORDER BY n"""
    return [row[0] for row in connection.execute(statement, [recipients, codes])]


def in_python(text: str, region: str | None) -> str | None:
    """The address, and the number if there is one; None: refused."""
    try:
        recipient = parse_recipient(text, region)
    except PermanentError:
        return None
    return " ".join(filter(None, (recipient.address, recipient.number)))


def compare(connection: psycopg.Connection[Any], texts: list[tuple[str, str | None]]) -> None:
    found = dict(zip(texts, in_sql(connection, texts), strict=True))
    assert found == {(text, region): in_python(text, region) for text, region in texts}


COUNTRIES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)
PREFIXES = ("", "0", "00", "1", "8", "06", "9", "15", "0 15", "90", "(0)")
GAPS = ("", " ", "-", "\u00a0", "\u2011", "\u200e", "\u202f", ".", "/", " (", ") ", "\u2060", "\ufeff")
STARTS = ("+", "00", "", "(+", " +", "\u202a+", "+\u200e", "++", "tel:")
ENDS = (
    "",
    "",
    "",
    "@s.whatsapp.net",
    "@c.us",
    ":12@s.whatsapp.net",
    ".1:7@lid",
    "@lid",
    "@g.us",
    "-1400000000@g.us",
    "\u202c",
    " ",
)


@st.composite
def numbers(draw: st.DrawFn) -> str:
    """Digits: a country code, perhaps a prefix, and the begin of a real number with more, fewer or other digits behind it."""
    code = draw(st.sampled_from(COUNTRIES))
    region = draw(st.sampled_from(phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]))
    kind = draw(st.sampled_from([phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE]))
    example = phonenumbers.example_number_for_type(region, kind) if region != "001" else None
    example = example or phonenumbers.example_number_for_non_geo_entity(code) or phonenumbers.example_number(region)
    national = phonenumbers.national_significant_number(example) if example else "123456789"
    keep = draw(st.integers(0, len(national)))
    rest = draw(st.text("0123456789", max_size=9))
    tail = draw(st.sampled_from([national[keep:], rest]))
    return draw(st.sampled_from([str(code), str(code), ""])) + draw(st.sampled_from(PREFIXES)) + national[:keep] + tail


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str | None]:
    digits = draw(numbers())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(digits)))
        digits = digits[:at] + draw(st.sampled_from(GAPS)) + digits[at:]
    return draw(st.sampled_from(STARTS)) + digits + draw(st.sampled_from(ENDS)), draw(st.sampled_from(REGIONS))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            spellings(), st.tuples(st.text(max_size=30).filter(lambda t: "\0" not in t), st.sampled_from(REGIONS))
        ),
        max_size=200,
    )
)
def test_both_read_any_spelling_alike(connection: psycopg.Connection[Any], texts: list[tuple[str, str | None]]) -> None:
    compare(connection, [(text.encode("utf-8", "ignore").decode(), region) for text, region in texts])


def test_both_read_the_numbers_of_all_countries_alike(connection: psycopg.Connection[Any]) -> None:
    """With each prefix that is dialled within the country, in each region; and each of the ten digits after the code."""
    texts = []
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        for region in regions:
            example = phonenumbers.example_number(region) if region != "001" else None
            example = example or phonenumbers.example_number_for_non_geo_entity(code)
            if example is None:
                continue
            national = phonenumbers.national_significant_number(example)
            texts += [f"+{code}{prefix}{national}" for prefix in PREFIXES]
            texts += [f"{code}{digit}{national[1:]}" for digit in range(10)]
            texts += [f"+{code}{national[:length]}" for length in range(len(national))]
    assert len(texts) > 5000
    compare(connection, list(itertools.product(texts, (None, "ID"))))


def test_the_table_is_that_of_the_installed_phonenumbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts/lib"))
    monkeypatch.delitem(sys.modules, "numbering_table", raising=False)
    made = import_module("numbering_table")
    assert made.FILE.read_text(encoding="utf-8") == made.table(), "run: python scripts/lib/numbering_table.py"


@pytest.mark.parametrize(
    ("texts", "address"),
    [
        (["+5491123456789", "+54 11 15 2345 6789", "+54111523456789", "+54 9 11 2345-6789", "+541123456789"], "5491123456789"),
        (["+5215512345678", "+525512345678", "+52 1 55 1234 5678", "5215512345678@s.whatsapp.net"], "525512345678"),
        (["+5511987654321", "+551187654321", "+55 011 98765-4321", "551187654321@c.us"], "5511987654321"),
        (["+22997123456", "+2290197123456"], "2290197123456"),
        (["+6281234567890", "+62 (0)812-3456-7890", "006281234567890", "+62\u00a0812\u20113456\u20117890"], "6281234567890"),
        (["\u200e+6281234567890\u202c", "6281234567890:2@s.whatsapp.net", "6281234567890@c.us"], "6281234567890"),
        (["6281234567890", "0812 3456 7890", "081234567890@s.whatsapp.net", "81234567890"], "6281234567890"),
        (["US.13491208655302741918@bsuid", " US.13491208655302741918@bsuid\u200e"], "US.13491208655302741918@bsuid"),
        (["123456789012@lid", "123456789012:2@lid", "123456789012.0:2@lid", " 123456789012@lid\u200e"], "123456789012@lid"),
        (["120363041234567890@g.us"], "120363041234567890@g.us"),
        (["+39 06 12345678"], "390612345678"),
    ],
)  # fmt: skip
def test_a_person_has_one_address(connection: psycopg.Connection[Any], texts: list[str], address: str) -> None:
    assert {in_python(text, "ID").split()[0] for text in texts} == {address}  # type: ignore[union-attr]  # none is refused
    compare(connection, [(text, "ID") for text in texts])


@pytest.mark.parametrize(
    "text",
    [
        *(
            "08123456789",
            "+999123456789",
            "123456",
            "00000000000",
            "+628123",
            "+62 812345678901234567",
            "somebody",
            "",
            "+",
        ),
        *(
            "628111000001.0",
            "+491511234567.0",
            " +491511234567.00\u00a0",
            "0811000001.0",
            "6.28111e+11",
            "628111000001,0",
        ),
    ],
)
def test_what_can_never_be_a_number_is_refused(connection: psycopg.Connection[Any], text: str) -> None:
    assert in_python(text, None) is None
    compare(connection, [(text, None)])


@pytest.mark.parametrize("text", ["+62500000000", "+4901000", "+551100000000"])
def test_no_range_is_ever_missed(connection: psycopg.Connection[Any], text: str) -> None:
    """Countries open new ranges before a release of phonenumbers knows them."""
    assert not phonenumbers.is_valid_number(phonenumbers.parse(text))
    assert in_python(text, None) is not None
    compare(connection, [(text, None)])


def test_the_rules_of_other_forms_name_each_country_once() -> None:
    codes = [one.code for one in OTHER_FORMS]
    assert len(set(codes)) == len(codes)
    assert {int(code) for code in codes} <= set(COUNTRIES)


@given(numbers())
def test_an_address_is_its_own(digits: str) -> None:
    """What the database hands to a worker leads to the same address again."""
    try:
        recipient = parse_recipient(f"+{digits}", None)
    except PermanentError:
        return
    address = recipient.address
    assert address_of_number(address) == address
    assert recipient_at(f"+{recipient.number}").address == address
    assert parse_recipient(f"+{address}", None).address == address


def test_what_is_not_looked_up_in_the_table_would_be_read_alike(connection: psycopg.Connection[Any]) -> None:
    """Each country, with every number of digits and every first two of them."""
    ((looks,),) = connection.execute("SELECT pg_get_functiondef('shardd.read_number'::regproc)").fetchall()
    always = looks.replace("shardd.read_number(digits text", "pg_temp.looked_up(digits text")
    assert "shardd.plain_number(digits)" in always
    connection.execute(always.replace("shardd.plain_number(digits)", "false"))
    connection.execute(
        "CREATE TEMPORARY TABLE given AS SELECT c.code || left(lpad(first::text, 2, '0') || '3456789012345', length) AS digits "
        "FROM shardd.country_codes c, generate_series(0, 99) first, generate_series(1, 16) length"
    )
    counts = connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE shardd.plain_number(digits)), "
        "count(*) FILTER (WHERE shardd.read_number(digits) IS DISTINCT FROM pg_temp.looked_up(digits)) FROM given"
    ).fetchone()
    assert counts is not None
    total, plain, different = counts
    assert (total, different) == (215 * 100 * 16, 0)
    assert plain > total / 20
