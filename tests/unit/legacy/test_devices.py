from __future__ import annotations

import pytest

from shardd.legacy.devices import OldDevice, new_id, plan_devices, read_device
from shardd.legacy.report import Report
from shardd.queue.imports import KnownDevice


@pytest.fixture
def report() -> Report:
    return Report("old", dry_run=True, keep_all=True)


def read(report: Report, **row: str | None) -> OldDevice:
    device = read_device({"id": "1", **row}, report)
    assert device is not None
    return device


def session(number: str, index: int = 1) -> str:
    return f"{number}:{index}@s.whatsapp.net"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("7", "7"),
        ("_7", "legacy-_7"),
        ("a b", None),
        ("", "legacy-"),
        ("x" * 64, "x" * 64),
        ("x" * 65, None),
        ("é", None),
    ],
)
def test_an_id_stays_or_gets_a_prefix(old: str, new: str | None) -> None:
    assert new_id(old) == new


@pytest.mark.parametrize("platform", [None, "", " ", "whatsapp", "WhatsApp"])
def test_no_platform_is_whatsapp(report: Report, platform: str | None) -> None:
    assert read(report, platform=platform, jid=session("628111")).becomes.transport == "whatsapp"
    assert report.refusals == 0


@pytest.mark.parametrize(
    ("row", "gap", "noted"),
    [
        ({}, (None, None), False),
        ({"min_delay_seconds": "5", "max_delay_seconds": "15"}, (5, 15), False),
        ({"min_delay_seconds": "5", "max_delay_seconds": "5"}, (5, 5), False),
        ({"min_delay_seconds": "15", "max_delay_seconds": "5"}, (None, None), True),
        ({"min_delay_seconds": "-1", "max_delay_seconds": "5"}, (None, None), True),
        ({"min_delay_seconds": "5", "max_delay_seconds": None}, (None, None), True),
        ({"min_delay_seconds": "5", "max_delay_seconds": "inf"}, (None, None), True),
        ({"min_delay_seconds": "soon", "max_delay_seconds": "5"}, (None, None), True),
    ],
)
def test_delays_become_the_gap_if_they_are_one(
    report: Report, row: dict[str, str | None], gap: tuple[float | None, float | None], noted: bool
) -> None:
    device = read(report, **row).becomes
    assert ((device.gap_min, device.gap_max), bool(report.noted)) == (gap, noted)


def test_a_token_that_cannot_be_one_is_left_out_and_not_shown(report: Report) -> None:
    device = read(report, platform="Wablas", jid="to ken").becomes
    assert device.settings == {}
    (rows,) = report.noted.values()
    assert "settings.token" in rows.listed[0][1]
    assert "to ken" not in str(report.as_json())


def test_each_device_gets_the_session_that_it_names_else_the_last_of_its_number(report: Report) -> None:
    devices = [
        read(report, id="exact", jid=session("62811", 3)),
        read(report, id="gone", jid=session("62812", 1)),
        read(report, id="phone", phone="+62 813"),
        read(report, id="platform", platform="whacenter", jid=session("62814")),
        read(report, id="none", jid=session("62815")),
    ]
    store = [
        session("62811", 3),
        session("62811", 12),
        session("62812", 9),
        session("62812", 10),
        session("62813"),
        session("62814"),
    ]
    plan = plan_devices(devices, {}, store, report)
    assert plan.sessions == {"exact": session("62811", 3), "gone": session("62812", 10), "phone": session("62813")}
    assert [device.state for device in plan.add] == ["unpaired", "unpaired", "unpaired", "ready", "unpaired"]
    assert (report.devices["with_session"], report.devices["unpaired"]) == (3, 1)


def test_a_number_has_one_device(report: Report) -> None:
    devices = [
        read(report, id="a", phone="62811"),
        read(report, id="b", jid=session("62811")),
        read(report, id="c", phone="62812"),
    ]
    there = {"other": KnownDevice("other", "whatsapp", session("62812", 7), removed=False)}
    plan = plan_devices(devices, there, [session("62811"), session("62812")], report)
    assert plan.sessions == {"a": session("62811")}
    (rows,) = report.noted.values()
    assert rows.listed == [("b", "a"), ("c", "other")]


def test_what_is_there_stays_and_gets_only_the_session_that_it_lacks(report: Report) -> None:
    devices = [
        read(report, id=name, phone=phone) for name, phone in (("has", "62811"), ("lacks", "62812"), ("was", "62813"))
    ]
    there = {
        "has": KnownDevice("has", "whatsapp", session("62811", 2), removed=False),
        "lacks": KnownDevice("lacks", "whatsapp", None, removed=False),
        "was": KnownDevice("was", "whatsapp", session("62812", 4), removed=True),
    }
    plan = plan_devices(devices, there, [session("62811", 3), session("62812"), session("62813")], report)
    assert (plan.add, plan.sessions, set(plan.ids)) == ([], {"lacks": session("62812")}, {"has", "lacks"})
    assert report.refusals == 1


def test_an_id_is_taken_once(report: Report) -> None:
    devices = [read(report, id="legacy-_1"), read(report, id="_1"), read(report, id="legacy-_1")]
    plan = plan_devices(devices, {}, [], report)
    assert plan.ids == {"legacy-_1": "legacy-_1"}
    assert report.refusals == 2
