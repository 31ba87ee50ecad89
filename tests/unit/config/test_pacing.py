"""The section `pacing`: its readers, its defaults, and the rules between its options."""

from __future__ import annotations

from typing import Any

import pytest

from shardd.config import parse_config
from shardd.config.values import RefusedError
from shardd.config.values.words import Hours, Steps
from shardd.errors import ConfigError

HOME = {"HOME": "/home/x"}


def read(kind: Any, text: str) -> Any:
    (reader,) = kind.__metadata__
    return reader.read(text)


def issue(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "x.yaml", HOME)
    (said,) = str(caught.value).splitlines()
    return said


def test_hours_are_two_times_or_none() -> None:
    assert read(Hours, "21:00-08:00") == "21:00-08:00"
    assert read(Hours, " 09:30 - 17:00 ") == "09:30-17:00"
    assert read(Hours, "none") == "none"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("21-8", "is not a range of hours; write 21:00-08:00"),
        ("9pm - 8 am", "write 21:00-08:00"),
        ("21.00 bis 8.00", "write 21:00-08:00"),
        ("9-5", "is not a range of hours; write two times such as 21:00-08:00, or none"),
        ("off", "write none"),
        ("21:00-24:00", "is not a range of hours"),
        ("night", "is not a range of hours"),
        ("", "is not a range of hours"),
        ("08:00-08:00", "starts and ends at the same time"),
    ],
)
def test_refused_hours(text: str, fix: str) -> None:
    with pytest.raises(RefusedError, match=fix):
        read(Hours, text)


def test_steps_are_numbers_that_grow() -> None:
    assert read(Steps, "50, 100,200 , 200") == (50, 100, 200, 200)
    assert read(Steps, "7") == (7,)
    assert Steps.__metadata__[0].show((50, 100)) == "50, 100"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("50, 1e2", "has a part 1e2 that is not a whole number in plain digits; write 100"),
        ("50,,100", "has an empty part; write values with one comma between them, such as 50, 100, 200"),
        ("0, 50", "has a part 0 that is too small; write a value from 1 to 1000000"),
        ("50, 100, 20", "falls from 100 to 20; write numbers that grow, such as 50, 100, 200"),
        (", ".join("5" * 61), "has 61 parts; write at most 60"),
    ],
)
def test_refused_steps(text: str, fix: str) -> None:
    with pytest.raises(RefusedError, match=fix):
        read(Steps, text)


def test_defaults_and_nulls() -> None:
    pacing = parse_config("pacing:\n  classes:\n    service:\n", "x.yaml", HOME).pacing
    assert (pacing.hourly_limit, pacing.daily_limit, pacing.quiet_hours) == (200, 1000, None)
    assert pacing.warm_up == (50, 100, 200, 400, 700)
    assert pacing.classes.marketing.model_dump() == {
        "gap_min": None, "gap_max": None, "burst": 0, "hourly_limit": None, "daily_limit": None, "quiet_hours": None,
    }  # fmt: skip
    reply = pacing.classes.reply
    assert (reply.gap_min, reply.gap_max, reply.burst, reply.quiet_hours) == (1.0, 3.0, 3, "none")
    assert parse_config("pacing: {warm_up: [50, 100]}", "x.yaml", HOME).pacing.warm_up == (50, 100)
    assert parse_config("pacing: {warm_up: null}", "x.yaml", HOME).pacing.warm_up is None
    as_above = parse_config("pacing: {classes: {reply: {gap_min: null, gap_max: null}}}", "x.yaml", HOME).pacing
    assert (as_above.classes.reply.gap_min, as_above.classes.reply.gap_max) == (None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pacing: {quiet_hours: 9pm}", "pacing.quiet_hours: 9pm is not a range of hours; write two times"),
        (
            "pacing: {warm_up: [50, [100]]}",
            "has a part that is not a single value; write values such as 50, 100, 200",
        ),
        ("pacing: {classes: {reply: {gap: 5s}}}", "pacing.classes.reply.gap: is not an option of pacing.classes.reply"),
        (
            "pacing: {classes: {replies: {}}}",
            "pacing.classes.replies: is not an option of pacing.classes; did you mean reply?",
        ),
        ("pacing: {classes: {service: {burst: -1}}}", "pacing.classes.service.burst: -1 is too small"),
        (
            "pacing: {classes: {service: {gap_min: 20s}}}",
            "classes.service.gap_min: 20s is longer than pacing.gap_max (15s); write 15s or less, or a longer gap_max beside it",
        ),
        (
            "pacing: {classes: {reply: {gap_min: 4s}}}",
            "classes.reply.gap_min: 4s is longer than gap_max beside it (3s); write 3s or less",
        ),
        (
            "pacing: {classes: {service: {gap_max: 2s}}}",
            "classes.service.gap_max: 2s is shorter than pacing.gap_min (5s); write gap_min: 2s or less beside it, or 5s or more",
        ),
    ],
)
def test_errors_name_the_option_the_value_and_the_fix(text: str, words: str) -> None:
    assert words in issue(text)


def test_a_broken_pause_of_all_classes_is_reported_once() -> None:
    assert issue("pacing: {gap_min: 20s}").startswith("x.yaml:1: pacing.gap_min: 20s is longer than pacing.gap_max")
