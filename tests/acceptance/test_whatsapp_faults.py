"""Everything that WhatsApp can do to a device or a message, and what the rows say about it afterwards.

One daemon lives through all faults at the same time, each on a device of its own: so each case shows also that the others do
not disturb it. The cases begin with the first test; each test waits for its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from tests.command import Command
from tests.fix_postgres import Cluster
from tests.whatsapp_fleet import Fleet, Phone
from tests.whatsapp_server.launch import ServerProcess

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

Running = tuple["Faults", dict[str, asyncio.Task[None]]]
Case = Callable[["Faults", Phone], Awaitable[None]]
CASES: dict[str, Case] = {}

PROBE_AFTER = 1.0
RESTRICTED_FOR = 12.0
BANNED_FOR = 10.0
ABSENT = "6281999999999"


class Faults:
    """The fleet, and what every case does with it."""

    def __init__(self, fleet: Fleet, witness: Phone) -> None:
        self.fleet = fleet
        self.control = fleet.server.control
        self.witness = witness
        self.expected: dict[str, tuple[str, str]] = {}
        """Device → its state in the end, and what `shardd device show` says that a person does about it."""

    def strike(self, phone: Phone, kind: str, at: str, **details: object) -> None:
        self.control.fault(kind, at, device=phone.name, **details)  # type: ignore[arg-type] # passed on as they are

    def send(self, phone: Phone, to: str | None = None, *, on_doubt: str = "hold") -> tuple[int, str]:
        """A job's id and its body, which no other job has."""
        (row,) = self.fleet.rows("SELECT count(*) AS jobs FROM shardd.outcomes")
        body = f"{phone.id} after {row['jobs']}"
        return self.fleet.send(phone, body, to, on_doubt=on_doubt), body

    async def works(self, phone: Phone, to: str | None = None) -> None:
        """The device sends, and is called ready."""
        job, body = self.send(phone, to)
        await self.fleet.job_is(job, "sent")
        assert len(self.fleet.seen(body)) == 1
        assert self.fleet.device(phone)["state"] == "ready"

    def arrivals(self, body: str) -> list[str]:
        """What the server did each time that something with this text came in."""
        return [a.outcome for m in self.fleet.seen(body, accepted_only=False) for a in m.arrivals]

    async def waits(self, phone: Phone, job: int, why: str) -> None:
        """The job waits with an error that names the reason, costs no attempt, and others are sent meanwhile."""
        await self.fleet.until(lambda: why in (self.fleet.job(job)["error"] or ""))
        row = self.fleet.job(job)
        assert (row["state"], row["failures"]) == ("queued", 0), row
        before = len(self.fleet.logins(phone)), len(self.control.messages(sender=phone.number, accepted_only=False))
        second, _ = self.send(phone)
        await self.works(self.witness)
        assert self.fleet.job(second)["state"] == "queued"
        assert before == (
            len(self.fleet.logins(phone)),
            len(self.control.messages(sender=phone.number, accepted_only=False)),
        )


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


# ---- answers to a message


@case
async def error_479_is_tried_again(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "message", code=479)
    job, body = f.send(phone)
    row = await f.fleet.job_is(job, "sent")
    assert row["failures"] == 1
    assert f.arrivals(body) == ["error 479", "ack"]


@case
async def error_479_for_ever_fails_the_job_and_not_the_device(f: Faults, phone: Phone) -> None:
    stranger = f.fleet.stranger()
    f.strike(phone, "error", "message", code=479, recipient=stranger, times=None)
    job, body = f.send(phone, stranger)
    row = await f.fleet.job_is(job, "failed")
    assert (row["failures"], row["max_attempts"]) == (5, 5)
    assert "479" in row["error"]
    assert f.arrivals(body) == ["error 479"] * 5
    await f.works(phone)


@case
async def error_429_rests_the_device(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "message", code=429)
    job, _ = f.send(phone)
    await f.waits(phone, job, "429")
    assert f.fleet.device(phone)["state"] == "ready"


@case
async def error_403_fails_the_job(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "message", code=403)
    job, _ = f.send(phone)
    assert "403" in (await f.fleet.job_is(job, "failed"))["error"]
    await f.works(phone)


@case
async def a_late_ack_is_waited_for_and_receipts_before_it_are_kept(f: Faults, phone: Phone) -> None:
    f.strike(phone, "delay", "message", seconds=8)
    job, body = f.send(phone)
    row = await f.fleet.job_is(job, "sent")
    (message,) = f.fleet.seen(body)
    assert row["message_id"] == message.id
    await f.fleet.until(lambda: f.fleet.job(job)["delivered_at"])
    assert f.fleet.job(job)["delivered_at"] < row["settled_at"]


@case
async def no_ack_is_in_doubt(f: Faults, phone: Phone) -> None:
    f.strike(phone, "ignore", "message", accepted=True)
    job, body = f.send(phone)
    row = await f.fleet.job_is(job, "in_doubt")
    assert row["waits_for"].startswith("a person")
    await f.works(phone)
    assert f.arrivals(body) == ["ignore"]


@case
async def no_ack_is_retried_if_the_producer_said_so(f: Faults, phone: Phone) -> None:
    f.strike(phone, "ignore", "message", accepted=False)
    job, body = f.send(phone, on_doubt="retry")
    assert (await f.fleet.job_is(job, "sent"))["failures"] == 1
    assert f.arrivals(body) == ["ignore", "ack"]


@case
async def a_connection_that_dies_with_the_message_taken_is_in_doubt(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    f.strike(phone, "drop", "message", accepted=True)
    job, body = f.send(phone)
    await f.fleet.job_is(job, "in_doubt")
    await f.works(phone)
    assert f.arrivals(body) == ["drop"]


@case
async def a_connection_that_dies_with_the_message_lost_is_in_doubt(f: Faults, phone: Phone) -> None:
    f.strike(phone, "drop", "message", accepted=False)
    job, body = f.send(phone)
    await f.fleet.job_is(job, "in_doubt")
    await f.works(phone)
    assert f.arrivals(body) == ["drop"]


@case
async def a_connection_that_goes_mute_with_the_message_is_in_doubt(f: Faults, phone: Phone) -> None:
    f.strike(phone, "mute", "message", accepted=True)
    job, body = f.send(phone)
    await f.fleet.job_is(job, "in_doubt")
    await f.works(phone)
    assert f.arrivals(body) == ["mute"]


@case
async def error_515_at_the_message_is_in_doubt(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "message", code=515)
    job, body = f.send(phone)
    await f.fleet.job_is(job, "in_doubt")
    await f.works(phone)
    assert f.arrivals(body) == ["stream_error"]


@case
async def a_number_without_whatsapp_fails_its_job(f: Faults, phone: Phone) -> None:
    job, body = f.send(phone, ABSENT)
    row = await f.fleet.job_is(job, "failed")
    assert row["error"] == f"+{ABSENT} is not on WhatsApp"
    await f.works(phone)
    assert f.arrivals(body) == []


@case
async def usync_429_rests_the_device(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "usync", code=429)
    job, body = f.send(phone)
    await f.waits(phone, job, "429")
    assert f.fleet.device(phone)["state"] == "ready"
    assert f.arrivals(body) == []


@case
async def a_usync_that_fails_is_tried_again(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "usync", code=500)
    job, body = f.send(phone)
    assert (await f.fleet.job_is(job, "sent"))["failures"] == 1
    assert f.arrivals(body) == ["ack"]


@case
async def a_prekey_error_reaches_nobody_and_no_receipt_is_claimed(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "prekeys", code=500, times=None)
    job, _ = f.send(phone)
    row = await f.fleet.job_is(job, "sent")
    (message,) = f.control.messages(message_id=row["message_id"])
    assert message.copies == 0
    assert f.fleet.job(job)["delivered_at"] is None


# ---- new contacts


@case
async def error_463_holds_jobs_to_new_contacts_until_it_ends(f: Faults, phone: Phone) -> None:
    known = f.fleet.stranger()
    await f.works(phone, known)
    f.control.restrict(phone.number, RESTRICTED_FOR - 2)
    first, body = f.send(phone)
    row = await f.fleet.device_is(phone, "restricted")
    assert "463" in row["reason"]
    assert 0 < (row["state_until"] - datetime.now(UTC)).total_seconds() <= RESTRICTED_FOR
    second, other = f.send(phone)
    third, _ = f.send(phone, known)
    await f.fleet.job_is(third, "sent")
    assert f.fleet.device(phone)["state"] == "restricted"
    held = [f.fleet.job(job) for job in (first, second)]
    assert [(job["state"], job["failures"]) for job in held] == [("scheduled", 0)] * 2
    assert all("463" in job["waits_for"] for job in held)
    assert f.arrivals(body) + f.arrivals(other) == ["error 463"], "another stranger was tried in vain"
    for job in (first, second):
        await f.fleet.job_is(job, "sent")
    assert (await f.fleet.device_is(phone, "ready"))["reason"] is None
    assert f.arrivals(body)[-1] == f.arrivals(other)[-1] == "ack"


# ---- the login


def refused_login(
    code: int, state: str, why: str, to_do: str, **details: object
) -> Callable[[Faults, Phone], Awaitable[None]]:
    async def refused(f: Faults, phone: Phone) -> None:
        f.strike(phone, "failure", "login", code=code, times=None, **details)
        job, body = f.send(phone)
        await f.waits(phone, job, why)
        row = await f.fleet.device_is(phone, state)
        if state != "ready":
            assert why in row["reason"]
        f.expected[phone.id] = state, to_do
        assert f.arrivals(body) == []

    return refused


CASES["failure_401_needs_a_pairing"] = refused_login(401, "logged_out", "401", "device pair")
CASES["failure_403_needs_a_pairing"] = refused_login(403, "logged_out", "403", "device pair")
CASES["failure_405_needs_an_upgrade"] = refused_login(405, "client_outdated", "405", "upgrade")
CASES["failure_400_rests_the_device"] = refused_login(400, "ready", "400", "nothing")
CASES["failure_402_bans_for_a_time"] = refused_login(402, "banned", "banned", "wait", expire=3600)


@case
async def a_ban_ends_by_itself(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    await f.fleet.control.ban(phone.number, BANNED_FOR)
    job, body = f.send(phone)
    row = await f.fleet.device_is(phone, "banned")
    assert 0 < (row["state_until"] - row["state_since"]).total_seconds() <= BANNED_FOR + 2
    assert f.fleet.job(job)["waits_for"].startswith("its device: banned")
    await f.fleet.job_is(job, "sent")
    assert f.fleet.job(job)["failures"] == 0
    row = await f.fleet.device_is(phone, "ready")
    assert (row["reason"], row["state_until"]) == (None, None)
    assert f.arrivals(body) == ["ack"]


@case
async def failure_503_is_over_soon(f: Faults, phone: Phone) -> None:
    f.strike(phone, "failure", "login", code=503)
    await f.works(phone)


@case
async def error_503_after_the_login_is_over_soon(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "online", code=503)
    await f.works(phone)


@case
async def error_515_after_the_login_is_another_login(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "online", code=515)
    await f.works(phone)
    assert len(f.fleet.logins(phone)) == 2


@case
async def a_login_that_is_dropped_is_tried_again(f: Faults, phone: Phone) -> None:
    f.strike(phone, "drop", "login")
    await f.works(phone)


@case
async def a_login_that_is_not_answered_is_tried_again(f: Faults, phone: Phone) -> None:
    f.strike(phone, "mute", "login")
    await f.works(phone)


@case
async def a_server_out_of_reach_is_told_and_tried_again(f: Faults, phone: Phone) -> None:
    f.strike(phone, "error", "connect", times=2)
    job, _ = f.send(phone)
    await f.fleet.until(lambda: "cannot be reached" in (f.fleet.job(job)["error"] or ""))
    await f.fleet.job_is(job, "sent")


@case
async def an_upgrade_that_is_never_answered_is_given_up(f: Faults, phone: Phone) -> None:
    f.strike(phone, "mute", "upgrade")
    job, _ = f.send(phone)
    await f.fleet.until(lambda: "8 seconds" in (f.fleet.job(job)["error"] or ""))
    await f.fleet.job_is(job, "sent")
    assert len(f.fleet.logins(phone)) == 1


@case
async def slow_tls_is_waited_for(f: Faults, phone: Phone) -> None:
    f.strike(phone, "delay", "tls", seconds=2)
    await f.works(phone)
    assert len(f.fleet.logins(phone)) == 1


# ---- an open client


@case
async def replaced_at_the_login_needs_a_person(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "online", conflict="replaced")
    await _needs_a_person(f, phone, f.send(phone), "replaced")


@case
async def replaced_while_open_is_known_without_any_job(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    await f.fleet.control.replace(phone.name)
    await f.fleet.device_is(phone, "replaced")
    await _needs_a_person(f, phone, f.send(phone), "replaced")


@case
async def removed_at_the_login_needs_a_pairing(f: Faults, phone: Phone) -> None:
    f.strike(phone, "stream_error", "online", code=401, conflict="device_removed")
    await _needs_a_person(f, phone, f.send(phone), "logged_out")


@case
async def removed_while_open_is_known_without_any_job(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    await f.fleet.control.remove_device(phone.name)
    await f.fleet.device_is(phone, "logged_out")
    await _needs_a_person(f, phone, f.send(phone), "logged_out")


@case
async def a_mute_connection_is_found_out_and_rebuilt(f: Faults, phone: Phone) -> None:
    await f.works(phone)
    f.control.mute(phone.name)
    await asyncio.sleep(PROBE_AFTER * 1.5)  # silence has to last before anybody doubts
    job, body = f.send(phone)
    assert (await f.fleet.job_is(job, "sent"))["failures"] == 0
    assert f.arrivals(body) == ["ack"]
    assert len(f.fleet.logins(phone)) == 2


@case
async def a_session_that_is_not_stored_is_called_unpaired(f: Faults, phone: Phone) -> None:
    lost = Phone(f"{phone.id}-lost", f"{phone.number}0")
    f.fleet.rows(
        "INSERT INTO shardd.devices (id, transport, session) VALUES (%s, 'whatsapp', %s)",
        *(lost.id, f"{lost.name}@s.whatsapp.net"),
    )
    await _needs_a_person(f, lost, f.send(lost), "unpaired")


async def _needs_a_person(f: Faults, phone: Phone, sent: tuple[int, str], state: str) -> None:
    job, body = sent
    row = await f.fleet.device_is(phone, state)
    assert row["reason"]
    assert row["state_until"] is None
    before = len(f.fleet.logins(phone))
    assert before <= 1
    await f.works(f.witness)
    assert len(f.fleet.logins(phone)) == before, "it came back by itself"
    waiting = f.fleet.job(job)
    assert (waiting["state"], waiting["failures"]) == ("queued", 0)
    assert waiting["waits_for"] == f"its device: {state}, {row['reason']}"
    assert f.arrivals(body) == []
    f.expected[phone.id] = state, "device pair"
    if state == "replaced":
        ran = await Command(f.fleet.daemons[0].config_file)("device", "take-over", phone.id, "--yes")
        assert ran.code == 0, ran.err
        f.expected[phone.id] = "ready", "nothing"
        await f.fleet.job_is(job, "sent")
        assert f.arrivals(body) == ["ack"]


# ---- all of them at once


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    whatsapp_process: ServerProcess, fleet_cluster: tuple[Cluster, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    """Every case, under way."""
    whatsapp_process.control.start_over()
    cluster, prepared = fleet_cluster
    name = cluster.create_database(prepared)
    fleet = Fleet(whatsapp_process, cluster.dsn(name), lambda: tmp_path_factory.mktemp("faults"))
    fleet.server.control.not_on_whatsapp(ABSENT)
    daemon = fleet.daemon(
        transports={
            "whatsapp": {
                "connect_timeout": "8s",
                "answer_timeout": "14s",
                "probe_after": f"{PROBE_AFTER:g}s",
                "restricted_for": f"{RESTRICTED_FOR:g}s",
            }
        }
    )
    phones = fleet.add(len(CASES) + 1)
    await daemon.start()
    faults = Faults(fleet, phones[0])
    tasks = {
        name: asyncio.ensure_future(act(faults, phone))
        for (name, act), phone in zip(CASES.items(), phones[1:], strict=True)
    }
    yield faults, tasks
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    await fleet.close()
    cluster.drop_database(name)


@pytest.mark.parametrize("name", CASES)
async def test_fault(running: Running, name: str) -> None:
    await running[1][name]


async def test_people_are_told_what_to_do(running: Running) -> None:
    faults, tasks = running
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    ran = await Command(faults.fleet.daemons[0].config_file)("device", "list", "--json")
    shown = {row["id"]: row for row in ran.json}
    for device, (state, to_do) in faults.expected.items():
        assert shown[device]["state"] == state
        assert to_do in shown[device]["to_do"]


async def test_nothing_was_sent_twice_and_no_worker_died(running: Running) -> None:
    faults, tasks = running
    fleet = faults.fleet
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    daemon = fleet.daemons[0]
    status = await daemon.status()
    assert [shard["restarts"] for shard in status["shards"]] == [0, 0]
    assert faults.control.doubled() == []
    assert faults.control.resent() == []
    fleet.check_one_client_each()
    assert await daemon.stop() == 0
    assert faults.control.stats()["online"] == 0
    assert not faults.control.events("server_error") + faults.control.events("protocol_error")
    for line in daemon.log_file.read_text().splitlines():
        json.loads(line)
