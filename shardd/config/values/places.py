"""Time zones and countries.

Which zones and names a country has is read from the tables of the time zone database (zone.tab and iso3166.tab), only when a
value is refused.
"""

from __future__ import annotations

import datetime as dt
import importlib.resources
import re
import zoneinfo
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import phonenumbers

from shardd.config.values.reader import RefusedError, Text, closest, refuse_switch
from shardd.phone_numbers import is_region

_SHOWN: Final = 3
"""Zones in an error; a country can have dozens."""
_OFFSET: Final = re.compile(r"(?:utc|gmt)?\s*([+-])\s*([0-9]{1,2})(?::?([0-9]{2}))?", re.IGNORECASE)


def _check_time_zone(text: str) -> str:
    """`UTC` is always known, even where no time zone database is installed."""
    if text == "UTC":
        return text
    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):  # outside the database; a folder of it; unknown
        known = zoneinfo.available_timezones()
    else:
        return text
    if not known:
        raise RefusedError("cannot be looked up: this machine has no time zone database; install tzdata, or write UTC")
    fix = _meant_zone(text, known)
    raise RefusedError(f"is not a known time zone; write {fix or 'the zone of a large city, such as Asia/Jakarta'}")


def _meant_zone(text: str, known: set[str]) -> str | None:
    by_last_part = {name.lower().split("/")[-1]: name for name in sorted(known)}
    by_lower_case = by_last_part | {name.lower(): name for name in known}
    word = text.lower().replace(" ", "_")
    if match := _OFFSET.fullmatch(text):  # before names: Etc/GMT-3 is not what people call GMT-3
        return _zone_at(match[1], int(match[2]), int(match[3] or 0), known)
    if word in by_lower_case:
        return by_lower_case[word]
    if zones := _zones_of_country(text) or _zones_called(text):
        return " or ".join(zones[:_SHOWN])
    near = closest(word, by_lower_case, likeness=0.8)
    return by_lower_case[near] if near else None


def _zone_at(sign: str, hours: int, minutes: int, known: set[str]) -> str:
    """An offset says nothing of summer time. The zones with a fixed one have the opposite sign, as POSIX counts."""
    city = "the zone of a large city there, such as Asia/Jakarta"
    fixed = f"Etc/GMT{'-' if sign == '+' else '+'}{hours}"
    return city if minutes or fixed not in known else f"{city}, or {fixed} for this offset all year"


def _zones_of_country(text: str) -> list[str]:
    code = _code_of(text)
    return [row[2] for row in _table("zone.tab") if row[0] == code]


def _code_of(country: str) -> str:
    """The two letters of a country, from its name or other letters for it; in capitals also what is none."""
    countries = {name.lower(): code for code, name in _table("iso3166.tab")}
    return countries.get(country.lower(), {"UK": "GB"}.get(country.upper(), country.upper()))


def _zones_called(text: str) -> list[str]:
    """Those with this abbreviation, such as WIB, in summer or in winter."""
    if not re.fullmatch(r"[A-Za-z]{3,4}", text):
        return []
    year = dt.datetime.now(dt.UTC).year
    days = [dt.datetime(year, month, 1, tzinfo=dt.UTC) for month in (1, 7)]
    return [
        row[2]
        for row in _table("zone.tab")
        if text.upper() in {day.astimezone(zoneinfo.ZoneInfo(row[2])).tzname() for day in days}
    ]


def _table(name: str) -> Iterator[list[str]]:
    """The rows of a table of the time zone database; none if it is not installed."""
    for folder in zoneinfo.TZPATH:
        if (path := Path(folder, name)).is_file():
            text = path.read_text(encoding="utf-8")
            break
    else:
        try:
            text = importlib.resources.files("tzdata.zoneinfo").joinpath(name).read_text(encoding="utf-8")
        except (ModuleNotFoundError, FileNotFoundError):
            return
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def _check_region(text: str) -> str:
    if is_region(text):
        return text
    if text == "no":
        raise RefusedError("is a switch, but also a country; write NO for Norway, or null for none")
    refuse_switch(text, "write two capital letters such as ID, DE or US, or null for none")
    raise RefusedError(
        f"is not a country code; write {_meant_region(text) or 'two capital letters such as ID, DE or US'}"
    )


def _meant_region(text: str) -> str | None:
    meant = "GB" if text.upper() == "EN" else _code_of(text)
    if match := re.fullmatch(r"(?:\+|00)?([1-9][0-9]{0,2})", text):
        meant = phonenumbers.region_code_for_country_code(int(match[1]))
    return meant if is_region(meant) else None


TIME_ZONE: Final = Text(_check_time_zone)

TimeZone = Annotated[str, TIME_ZONE]
"""A name of the time zone database, such as `Asia/Jakarta`."""
Region = Annotated[str, Text(_check_region)]
"""A country by its two letters, as phone numbers know it (ISO 3166)."""
