"""What the database refuses of a device's pace, in words; and whatever it takes makes a pace."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors, sql

from shardd.config import PacingConfig
from shardd.pacing import CLASSES
from shardd.queue.database import Database
from shardd.queue.devices import Devices
from shardd.supervisor.scheduling.current_config import device_pace, known_zone
from tests.support.queue_rows import add_devices, connect


def set_field(connection: psycopg.Connection[Any], name: str, value: Any) -> None:
    statement = sql.SQL("UPDATE shardd.devices SET {} = %s WHERE id = 'a'").format(sql.Identifier(name))
    connection.execute(statement, [value])


@pytest.mark.parametrize(
    ("name", "value", "message", "hint"),
    [
        ("timezone", "Jakarta", "timezone 'Jakarta' is unknown", "such as Asia/Jakarta"),
        ("timezone", "WIB", "timezone 'WIB' is unknown", "tz database"),
        ("classes", '{"replies": {}}', "classes has 'replies': {}", "The classes are marketing, service and reply"),
        ("classes", '{"reply": 5}', "classes has 'reply': 5", "Example:"),
        ("classes", '{"reply": {"gap": 5}}', "classes has 'gap': 5 for reply", "Allowed: gap_min and gap_max"),
        ("classes", '{"reply": {"gap_min": "5s"}}', "classes has 'gap_min': \"5s\" for reply", "in seconds"),
        ("classes", '{"reply": {"gap_min": -1}}', "classes has 'gap_min': -1 for reply", "in seconds"),
        ("classes", '{"reply": {"gap_max": 1e9}}', "for reply", "in seconds"),
        ("classes", "[]", "classes is a JSON array, not an object", "Give a JSON object such as"),
        ("label", "x" * 201, "label has 201 characters", "At most 200"),
        ("classes", '{"service": {"burst": 1.5}}', "classes has 'burst': 1.5 for service", "burst up to 1000"),
        ("classes", '{"service": {"daily_limit": 1000001}}', "'daily_limit': 1000001", "up to 1000000"),
        ("classes", '{"reply": {"quiet_hours": "9-5"}}', "'quiet_hours': \"9-5\" for reply", '"21:00-08:00" or "none"'),
        ("classes", '{"reply": {"gap_min": 3, "gap_max": 2}}', "gap_min above its gap_max for reply", "random between"),
    ],
)
def test_a_bad_value_is_refused_in_words(dsn: str, name: str, value: str, message: str, hint: str) -> None:
    add_devices(dsn, "a")
    with connect(dsn) as connection, pytest.raises(errors.CheckViolation) as caught:
        set_field(connection, name, value)
    diag = caught.value.diag
    assert (diag.schema_name, diag.table_name, diag.column_name) == ("shardd", "devices", name)
    assert message in (diag.message_primary or "")
    assert hint in (diag.message_hint or "")


@pytest.mark.parametrize(
    ("name", "value", "constraint"),
    [
        ("quiet_hours", "08:00-08:00", "quiet_hours_are_two_times"),
        ("quiet_hours", "21:00-24:00", "quiet_hours_are_two_times"),
        ("quiet_hours", "", "quiet_hours_are_two_times"),
        ("hourly_limit", -1, "hourly_limit_is_not_negative"),
        *(
            (name, value, "gap_is_a_range")
            for name in ("gap_min", "gap_max")
            for value in (-1, 86401, "NaN", "Infinity")
        ),
    ],
)
def test_a_bad_value_breaks_a_named_rule(dsn: str, name: str, value: Any, constraint: str) -> None:
    add_devices(dsn, "a")
    with connect(dsn) as connection, pytest.raises(errors.CheckViolation) as caught:
        set_field(connection, name, value)
    assert caught.value.diag.constraint_name == constraint


def test_a_good_value_is_taken_and_a_zone_is_looked_up_once(dsn: str) -> None:
    with connect(dsn) as connection:
        connection.execute("SET statement_timeout = '20s'")  # looking each one up would take minutes
        connection.execute(
            "INSERT INTO shardd.devices (id, transport, timezone, quiet_hours) "
            "SELECT 'd' || g, 'sandbox', 'Asia/Jakarta', 'none' FROM generate_series(1, 3000) g"
        )
        with pytest.raises(errors.CheckViolation):
            connection.execute("UPDATE shardd.devices SET timezone = 'Mars/Base' WHERE id = 'd1'")


texts = st.sampled_from(["none", "21:00-08:00", "08:00-08:00", "9-5", "", "5s"])
values = st.none() | st.booleans() | st.integers(-2, 2_000_000) | st.floats(-1, 10) | texts | st.just([])
fields = st.sampled_from(["gap_min", "gap_max", "hourly_limit", "daily_limit", "burst", "quiet_hours", "gap"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(CLASSES), st.dictionaries(fields, values, max_size=2)))
async def test_what_the_database_takes_makes_a_pace(
    dsn: str, database: Database, classes: dict[str, dict[str, Any]]
) -> None:
    with connect(dsn) as connection:
        connection.execute("INSERT INTO shardd.devices (id, transport) VALUES ('a', 'sandbox') ON CONFLICT DO NOTHING")
        try:
            set_field(connection, "classes", json.dumps(classes))
        except errors.CheckViolation:
            return
    (device,) = await Devices(database).all(0)
    pace = device_pace(PacingConfig(), device)
    assert all(0 <= pace.of(name).gap_min <= pace.of(name).gap_max for name in CLASSES)


async def test_this_machine_knows_the_databases_time_zones(dsn: str) -> None:
    with connect(dsn) as connection:
        names = [row[0] for row in connection.execute("SELECT name FROM pg_timezone_names WHERE name ~ '^[A-Z].*/'")]
    assert len(names) > 300
    assert [name for name in names if known_zone(name) is None] == []
