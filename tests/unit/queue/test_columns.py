"""The lists of columns against the types that are made from rows, and placeholders against their values."""

from __future__ import annotations

import dataclasses
import re
from importlib.resources import files

import pytest

from shardd.ipc import JobSpec
from shardd.queue import cycle
from shardd.queue.columns import ARCHIVED, CLAIM, CONTENT, DEVICE, GIVEN, QUERIES, RETRIED, SHOWN, fill_in
from shardd.queue.devices import DeviceRow


def fields(of: type) -> list[str]:
    return [field.name for field in dataclasses.fields(of)]


def test_a_claimed_job_is_sent_with_the_columns_in_the_order_of_its_message() -> None:
    of_the_worker = "heard"
    sent = [
        "expires_in" if name == "expires_at" else name for name in JobSpec.__struct_fields__ if name != of_the_worker
    ]
    assert sent == ["id", "epoch", "attempt", "token", "device_id", *cycle._SPEC]


def test_the_statement_that_claims_returns_what_is_read() -> None:
    returned = QUERIES["claim_jobs"].decode().partition("RETURNING")[2]
    for name in {*CLAIM, *cycle._SPEC, "opted_out", "next"}:
        assert re.search(rf"(j\.|AS ){name}\b", returned), name


def test_what_a_producer_gives_is_kept() -> None:
    assert set(GIVEN) <= set(ARCHIVED)
    assert set(RETRIED) < set(ARCHIVED)
    for columns in (GIVEN, RETRIED, ARCHIVED, SHOWN, CONTENT, CLAIM, DEVICE):
        assert len(columns) == len(set(columns))


def test_a_device_of_a_list_is_a_device() -> None:
    assert set(DEVICE) <= set(fields(DeviceRow))


def test_every_placeholder_has_a_value() -> None:
    for name, query in QUERIES.items():
        assert b"${" not in query, name
    for name in ("definitions.sql", "grants.sql"):
        text = files("shardd.queue").joinpath("migrations", name).read_text()
        assert "${" not in fill_in(text, {"transports": "'sandbox'"})


def test_an_unknown_placeholder_is_a_defect() -> None:
    with pytest.raises(KeyError, match="nothing"):
        fill_in("SELECT ${nothing}")
