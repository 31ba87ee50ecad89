"""The day on which WhatsApp refuses the version of the library: real clients, two shards, and what an operator sees of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shardd.hashing import shard_of
from shardd.states import LIBRARY_PROOF
from shardd.transports.whatsapp.version import installed_library
from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.support.command import Command
from tests.support.daemon import Daemon

DEVICES = 30
CONNECTING = 2
IDLE = 4.0
"""Seconds until a client is closed; the version is proven to be refused before that, on a slow machine, too."""
SHARDS = 2
MOST_LOGINS = DEVICES // 2
"""In each of two workers those that prove it, and those that are under way at that moment: 8, and more while logins are slow."""
OLD = "neonize 0.0.1"

pytestmark = pytest.mark.timeout(300)


def refuse(fleet: Fleet, phone: Phone | None = None) -> int:
    """WhatsApp refuses the version: of all devices, or of one."""
    return fleet.server.control.fault("failure", "login", device=phone.name if phone else "", code=405, times=None)


def refusals(fleet: Fleet) -> int:
    """Logins that were refused."""
    return len(fleet.server.control.events("fault"))


def states(fleet: Fleet) -> dict[str, int]:
    rows = fleet.rows("SELECT state, count(*) AS devices FROM shardd.devices GROUP BY state")
    return {row["state"]: row["devices"] for row in rows}


def events(fleet: Fleet, after: int = 0) -> list[dict[str, Any]]:
    """Those that are about no job."""
    return fleet.rows(
        "SELECT id, kind, device_id, detail FROM shardd.outbox WHERE job_id IS NULL AND id > %s ORDER BY id", after
    )


def probe_now(fleet: Fleet) -> None:
    """The pause between two probes is over."""
    fleet.rows("UPDATE shardd.library_refusals SET probed_at = now() - interval '1 day' RETURNING library")


async def answer_of(daemon: Daemon, path: str) -> int:
    connector = aiohttp.UnixConnector(str(daemon.socket))
    async with aiohttp.ClientSession("http://shardd", connector=connector) as session, session.get(path) as answer:
        return answer.status


async def test_one_problem_with_one_remedy_and_no_storm(fleet: Fleet) -> None:
    connected, *phones = fleet.add(DEVICES + 1)
    whatsapp = {"max_connecting": CONNECTING, "idle_close": f"{IDLE:.0f}s", "probe_after": "1h"}
    daemon = fleet.daemon(shards=SHARDS, transports={"whatsapp": whatsapp})
    await daemon.start()
    await fleet.job_is(fleet.send(connected, "before"), "sent")
    used_at = time.monotonic()
    before = max(event["id"] for event in events(fleet))

    refuse(fleet)
    jobs = fleet.send_many(phones, 2)
    await fleet.until(lambda: states(fleet) == {"ready": 1, "client_outdated": DEVICES})
    assert LIBRARY_PROOF <= refusals(fleet) <= MOST_LOGINS

    # One problem, one event.
    status = await daemon.until(lambda s: s["device_states"]["client_outdated"] == DEVICES)
    assert {kind: number for kind, number in status["problem_kinds"].items() if number} == {"library": 1}
    (problem,) = status["problems"]
    assert f"({installed_library()}, failure 405)" in problem
    assert f"{DEVICES} of {DEVICES + 1} WhatsApp devices cannot log in" in problem
    assert "shardd guide library" in problem
    assert (status["library"], status["library_refused"]) == (installed_library(), True)
    assert status["notes"] == []
    await fleet.until(lambda: len(events(fleet, before)) > 0)
    (event,) = events(fleet, before)
    assert (event["kind"], event["device_id"]) == ("library.state", None)
    assert (event["detail"]["library"], event["detail"]["state"]) == (installed_library(), "refused")
    assert (await answer_of(daemon, "/ready"), await answer_of(daemon, "/health")) == (200, 200)

    # The jobs wait.
    rows = fleet.rows("SELECT state, failures, waits_for FROM shardd.outcomes WHERE state <> 'sent'")
    assert len(rows) == jobs
    assert {(row["state"], row["failures"]) for row in rows} == {("queued", 0)}
    assert {row["waits_for"] for row in rows} == {
        f"its device: client_outdated, WhatsApp refuses this version of the library ({installed_library()}, failure 405)"
    }
    command = Command(daemon.config_file)
    listed = (await command("device", "list", "--state=client_outdated", "--json")).json
    assert len(listed) == DEVICES
    assert {one["to_do"] for one in listed} == {"upgrade the library, once for all devices: shardd guide library"}
    shown = await command("device", "show", phones[0].id)
    assert "not now: it is client_outdated" in shown.out

    # Who is still connected goes on, and is not closed as idle.
    await fleet.until(lambda: time.monotonic() > used_at + 2 * IDLE)
    await fleet.job_is(fleet.send(connected, "meanwhile"), "sent")
    assert len(fleet.logins(connected)) == 1

    # A restart asks once, and so does each probe.
    logins = refusals(fleet)
    assert await daemon.stop() == 0
    await daemon.start()
    await fleet.until(lambda: refusals(fleet) > logins)
    probe_now(fleet)
    await fleet.until(lambda: refusals(fleet) > logins + 1)
    assert refusals(fleet) == logins + 2
    assert states(fleet) == {"ready": 1, "client_outdated": DEVICES}
    assert len(events(fleet, before)) == 1

    # A probe that succeeds lets all go on.
    fleet.server.control.clear_faults()
    probe_now(fleet)
    await fleet.finished(jobs + 2)
    assert fleet.check_deliveries() == {"sent": jobs + 2}
    await daemon.until(lambda s: not s["problems"] and not s["library_refused"])
    assert states(fleet) == {"ready": DEVICES + 1}
    await fleet.until(lambda: len(events(fleet, before)) == 2)
    assert events(fleet, before)[-1]["detail"]["state"] == "over"
    assert fleet.rows("SELECT max(failures) AS most FROM shardd.archive") == [{"most": 0}]
    fleet.check_one_client_each()
    assert await daemon.stop() == 0


async def test_after_an_upgrade_all_go_on_by_themselves(fleet: Fleet) -> None:
    phones = fleet.add(DEVICES)
    daemon = fleet.daemon(shards=SHARDS, transports={"whatsapp": {"max_connecting": CONNECTING}})
    refuse(fleet)
    await daemon.start()
    jobs = fleet.send_many(phones, 1)
    await fleet.until(lambda: states(fleet) == {"client_outdated": DEVICES})
    assert await daemon.stop() == 0
    # What an upgrade changes: the version that was refused is not the one that is installed.
    fleet.rows("UPDATE shardd.library_refusals SET library = 'neonize 0.0.1' RETURNING library")
    fleet.server.control.clear_faults()
    before = max(event["id"] for event in events(fleet))
    await daemon.start()
    assert (await fleet.finished(jobs))["sent"] == jobs
    assert states(fleet) == {"ready": DEVICES}
    await fleet.until(lambda: len(events(fleet, before)) > 0)
    (event,) = events(fleet, before)
    assert (event["detail"]["library"], event["detail"]["state"]) == ("neonize 0.0.1", "over")
    assert (await daemon.status())["problems"] == []
    assert await daemon.stop() == 0


async def test_of_two_hosts_only_the_one_whose_version_is_refused_waits(fleet: Fleet, tmp_path: Path) -> None:
    """Between the upgrades of two hosts. The old one gives its shard away, and comes back with the version of the other one."""
    waiting, sending = phones_of_each_shard(fleet)
    old, new = fleet.daemon(node="old", shards=SHARDS), fleet.daemon(node="new", shards=SHARDS)
    for place, daemon in enumerate((old, new)):
        daemon.take_place(place)
    present = dict(old.environ)
    old.environ["PYTHONPATH"] = f"{pretend_installed(tmp_path, OLD)}:{present['PYTHONPATH']}"
    await old.start()
    await new.start()
    for daemon in (old, new):
        await daemon.until(lambda s: len(shards_of(s)) == 1)
    if shards_of(await old.status()) == {1}:
        waiting, sending = sending, waiting
    assert ((await old.status())["library"], (await new.status())["library"]) == (OLD, installed_library())
    for phone in waiting:
        refuse(fleet, phone)

    jobs = fleet.send_many([*waiting, *sending], 1)
    await old.until(lambda s: s["library_refused"])
    await fleet.until(lambda: states(fleet) == {"ready": len(sending), "client_outdated": len(waiting)})
    await fleet.until(lambda: fleet.states() == {"queued": len(waiting), "sent": len(sending)})
    status = await new.status()
    assert (status["library_refused"], status["problems"]) == (False, [])

    # WhatsApp accepts the version of the new host.
    fleet.server.control.clear_faults()
    assert await old.stop() == 0
    assert (await fleet.finished(jobs))["sent"] == jobs
    assert states(fleet) == {"ready": jobs}

    old.environ = present
    await old.start()
    for daemon in (old, new):
        await daemon.until(lambda s: len(shards_of(s)) == 1 and not s["problems"] and not s["library_refused"])
    more = fleet.send_many([*waiting, *sending], 1)
    assert (await fleet.finished(jobs + more))["sent"] == jobs + more
    fleet.check_one_client_each()
    assert await old.stop() == await new.stop() == 0


def phones_of_each_shard(fleet: Fleet) -> tuple[list[Phone], list[Phone]]:
    """Of each of two shards, enough to prove that the version is refused."""
    phones: list[Phone] = []
    while True:
        phones += fleet.add(LIBRARY_PROOF)
        first = [phone for phone in phones if shard_of(phone.id, SHARDS) == 0]
        second = [phone for phone in phones if phone not in first]
        if min(len(first), len(second)) >= LIBRARY_PROOF:
            return first, second


def shards_of(status: dict[str, Any]) -> set[int]:
    return {shard["shard"] for shard in status["shards"] if shard["state"] == "running"}


def pretend_installed(folder: Path, library: str) -> Path:
    """A folder for PYTHONPATH: the library says there that it has this version. Its code is the installed one."""
    name, version = library.split()
    metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


async def test_one_odd_answer_stops_one_device(fleet: Fleet) -> None:
    odd, *others = fleet.add(LIBRARY_PROOF + 3)
    daemon = fleet.daemon(shards=SHARDS)
    refuse(fleet, odd)
    await daemon.start()
    job = fleet.send(odd, "refused")
    await fleet.until(lambda: refusals(fleet))
    # No other device has work: one of them is asked.
    row = await fleet.device_is(odd, "client_outdated")
    assert row["state_until"] is not None
    assert len(fleet.logins()) == 1
    jobs = fleet.send_many(others, 1)
    assert (await fleet.finished(jobs))["sent"] == jobs
    assert fleet.job(job)["state"] == "queued"
    status = await daemon.status()
    assert (status["problems"], status["library_refused"]) == ([], False)
    assert refusals(fleet) == 1
    assert events(fleet)[-1]["detail"]["to"] == "client_outdated"
    assert await daemon.stop() == 0
