"""Revocations, with a real database: what is accepted and refused, that there is one at most, and which device has it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import errors

from shardd.ipc import Receipt
from shardd.queue.campaign_counts import CampaignCounts
from shardd.queue.cycle import Settlement
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin, Traits, Unmovable
from shardd.queue.jobs import Jobs
from shardd.queue.records import ClaimedJob, ClaimRequest
from shardd.states import JobState
from shardd.supervisor.scheduling.device_queue import FIRST_POSITION
from tests.fixtures.producers import Tenants
from tests.support.queue_rows import (
    Connection,
    add_campaigns,
    add_devices,
    claim,
    connect,
    finish,
    insert_jobs,
    row_of,
    run_blocked,
    take_epoch,
)

TO = "+6281234567"
NUMBERS = "62811111111:1@s.whatsapp.net", "62822222222:1@s.whatsapp.net"


class Sender:
    """Sends jobs in a database, and revokes them."""

    def __init__(self, dsn: str, jobs: Jobs, epoch: int, owner: Connection) -> None:
        self.dsn, self.jobs, self.epoch, self.owner = dsn, jobs, epoch, owner

    async def sent(
        self, message_id: str | None = "M1", device: str = "a", lane: str = "/marketing", **fields: Any
    ) -> int:
        (job,) = insert_jobs(self.owner, device, **fields)
        await self.end(JobState.SENT, message_id, device, lane)
        return job

    async def end(
        self, state: JobState, message_id: str | None = None, device: str = "a", lane: str = "/marketing"
    ) -> int:
        """End the next job."""
        (its_claim,) = await claim(self.jobs, self.epoch, device, lane=lane)
        await self.jobs.cycle(finish(its_claim, state, message_id), [])
        return its_claim.id

    async def claimed(self, device: str = "a", lane: str = "/marketing") -> ClaimedJob:
        cycle = await self.jobs.cycle(Settlement(), [ClaimRequest(device, lane, self.epoch, FIRST_POSITION, 1)])
        return cycle.claimed[0]

    def revoke(self, job: int | None, **fields: Any) -> int:
        """Insert a revocation."""
        columns = {"kind": "revoke", "revokes": job, **fields}
        names, places = ", ".join(columns), ", ".join(["%s"] * len(columns))
        row = self.owner.execute(
            f"INSERT INTO shardd.jobs ({names}) VALUES ({places}) RETURNING id", list(columns.values())
        ).fetchone()
        assert row is not None
        return int(row[0])

    def refusal(self, job: int | None, **fields: Any) -> psycopg.errors.Diagnostic:
        with pytest.raises(psycopg.Error) as refused:
            self.revoke(job, **fields)
        return refused.value.diag

    def row(self, job: int) -> dict[str, Any]:
        return row_of(self.dsn, job)


@pytest.fixture
async def sender(dsn: str, database: Database) -> Any:
    add_devices(dsn, "a", "b")
    add_campaigns(dsn, "spring")
    with connect(dsn) as owner:
        yield Sender(dsn, Jobs(database), await take_epoch(database), owner)


@pytest.fixture
def admin(database: Database) -> JobAdmin:
    return JobAdmin(database)


# ---- what is accepted


async def test_a_revocation_takes_device_recipient_and_class_from_the_job_and_the_message_when_it_is_claimed(
    sender: Sender,
) -> None:
    job = await sender.sent(lane="spring/service", recipient="+62 812-34567", campaign="spring", **{"class": "service"})
    revocation = sender.revoke(job)
    row = sender.row(revocation)
    assert (row["state"], row["kind"], row["device_id"], row["recipient"]) == ("queued", "revoke", "a", TO)
    assert (row["class"], row["campaign"], row["revokes"]) == ("service", None, job)
    assert sender.row(job)["revoked_by"] == revocation
    claimed = await sender.claimed(lane="/service")
    assert (claimed.spec.id, claimed.spec.kind, claimed.spec.recipient, claimed.spec.revokes) == (
        revocation,
        "revoke",
        TO,
        "M1",
    )
    await sender.jobs.cycle(finish(claimed.claim, message_id="M2"), [])
    assert sender.row(revocation)["state"] == "sent"
    assert (sender.row(job)["state"], sender.row(job)["revoked_by"]) == ("sent", revocation)
    told = sender.owner.execute(
        "SELECT data ->> 'revokes' FROM shardd.events WHERE job_id = %s AND kind = 'job.sent'", [revocation]
    ).fetchall()
    assert told == [(str(job),)]


async def test_what_is_repeated_of_the_job_is_accepted(sender: Sender) -> None:
    job = await sender.sent(recipient="+62 812-34567")
    sender.revoke(job, device_id="a", recipient="+62 812-34567", priority=3, expires_at="2090-01-01 00:00:00+00")
    assert (await sender.claimed()).spec.revokes == "M1"


async def test_a_job_in_doubt_is_revoked_if_the_id_of_its_message_is_known(sender: Sender) -> None:
    (job,) = insert_jobs(sender.owner, "a")
    await sender.end(JobState.IN_DOUBT, "M1")
    sender.revoke(job)
    assert (await sender.claimed()).spec.revokes == "M1"


async def test_a_message_to_a_group_is_revoked_there(sender: Sender) -> None:
    job = await sender.sent(recipient="120363041234567890@g.us")
    sender.revoke(job)
    assert (await sender.claimed()).spec.recipient == "120363041234567890@g.us"


# ---- what is refused


@pytest.mark.parametrize(
    ("state", "message", "fix"),
    [
        (JobState.FAILED, "job {id} is failed: there is nothing to delete", "job that is sent"),
        (JobState.EXPIRED, "job {id} is expired: there is nothing to delete", "job that is sent"),
        (JobState.OPTED_OUT, "job {id} is opted_out: there is nothing to delete", "job that is sent"),
        (JobState.CANCELLED, "job {id} is cancelled: there is nothing to delete", "job that is sent"),
        (JobState.IN_DOUBT, "job {id} is in doubt, and the id of its message is not known", "nothing can be deleted"),
        (JobState.SENT, "job {id} is sent, but the id of its message is not known", "nothing can be deleted"),
    ],
)
async def test_a_job_whose_message_is_not_there_is_refused(
    sender: Sender, state: JobState, message: str, fix: str
) -> None:
    (job,) = insert_jobs(sender.owner, "a")
    await sender.end(state)
    refused = sender.refusal(job)
    assert (refused.column_name, refused.message_primary) == ("revokes", message.format(id=job))
    assert fix in str(refused.message_hint)


async def test_a_job_that_is_not_sent_yet_is_refused(sender: Sender) -> None:
    (queued,) = insert_jobs(sender.owner, "a")
    (scheduled,) = insert_jobs(sender.owner, "b", run_at="2090-01-01 00:00:00+00")
    for job, state in ((queued, "queued"), (scheduled, "scheduled")):
        refused = sender.refusal(job)
        assert refused.message_primary == f"job {job} is {state}: its message was not sent"
        assert refused.message_hint == f"Cancel it instead: shardd job cancel {job}."
    await sender.claimed()
    assert sender.refusal(queued).message_primary == f"job {queued} is being sent"


async def test_what_a_revocation_cannot_have_is_refused(sender: Sender) -> None:
    job = await sender.sent()
    for fields, column, message in (
        ({"device_id": "b"}, "device_id", f"job {job} was sent by device 'a', and only that device can revoke it"),
        (
            {"device_group": "g"},
            "device_group",
            f"job {job} was sent by device 'a', and only that device can revoke it",
        ),
        ({"recipient": "+6281111111"}, "recipient", f"job {job} is not for recipient '+6281111111'"),
        ({"class": "service"}, "class", f"class is 'service', but job {job} is of class 'marketing'"),
        ({"campaign": "spring"}, "campaign", "campaign is 'spring', but a revocation is in no campaign"),
        ({"body": "x"}, "body", "body is given, but kind 'revoke' has no place for it: it would not be sent"),
        (
            {"file_name": "x"},
            "file_name",
            "file_name is given, but kind 'revoke' has no place for it: it would not be sent",
        ),
    ):
        refused = sender.refusal(job, **fields)
        assert (refused.column_name, refused.message_primary) == (column, message)
    missing = sender.refusal(None)
    assert (missing.column_name, missing.message_primary) == ("revokes", "revokes is empty, but kind is 'revoke'")
    assert sender.refusal(4711).message_primary == "revokes 4711 is not a job that shardd can see"
    with pytest.raises(psycopg.errors.CheckViolation, match="revokes is given, but kind 'text' has no place for it"):
        insert_jobs(sender.owner, "a", revokes=job)
    revocation = sender.revoke(job)
    await sender.end(JobState.SENT, "M2")
    assert sender.refusal(revocation).message_primary == f"job {revocation} is itself a revocation"


@pytest.mark.parametrize("transport", ["wablas", "whacenter", "cloud_api"])
async def test_platforms_are_refused_by_name(sender: Sender, transport: str) -> None:
    add_devices(sender.dsn, "p", transport=transport)
    job = await sender.sent(device="p")
    refused = sender.refusal(job)
    assert refused.message_primary == f"job {job} was sent by device 'p' ({transport}), which cannot revoke messages"
    assert refused.message_hint == "Only devices of these transports can: sandbox, whatsapp."


async def test_a_removed_device_is_refused(sender: Sender) -> None:
    job = await sender.sent()
    sender.owner.execute("UPDATE shardd.devices SET removed_at = now() WHERE id = 'a'")
    assert sender.refusal(job).message_primary == f"device 'a', which sent job {job}, was removed"


# ---- the account


async def test_another_account_cannot_revoke_and_the_same_one_can_however_often_it_is_paired(sender: Sender) -> None:
    owner = sender.owner
    add_devices(sender.dsn, "w", transport="whatsapp", session=NUMBERS[0])

    def pair(session: str | None) -> None:
        owner.execute("UPDATE shardd.devices SET session = %s WHERE id = 'w'", [session])

    first = await sender.sent("M1", "w")
    pair(None)
    pair(NUMBERS[0].replace(":1@", ":2@"))
    revocation = sender.revoke(first)
    pair(NUMBERS[1])
    refused = sender.refusal(first)
    assert (
        refused.message_primary
        == f"job {first} was sent by another account than the one that device 'w' (whatsapp) has now"
    )
    assert "pair the device with its number again" in str(refused.message_hint)
    # The one that was added before: its device would send it from the wrong account.
    claimed = await sender.claimed("w")
    assert (claimed.spec.id, claimed.spec.revokes) == (revocation, None)
    await sender.jobs.cycle(finish(claimed.claim, JobState.FAILED), [])
    second = await sender.sent("M2", "w", recipient="+6281234568")
    pair(NUMBERS[0])
    sender.revoke(first)
    assert (await sender.claimed("w")).spec.revokes == "M1"
    assert "another account" in str(sender.refusal(second).message_primary)


async def test_what_was_erased_since_is_not_claimed_with_a_message(sender: Sender) -> None:
    job = await sender.sent()
    sender.revoke(job)
    sender.owner.execute("SELECT shardd.erase_jobs(array['6281234567'], array[%s::bigint])", [job])
    assert (await sender.claimed()).spec.revokes is None


# ---- one at most


async def test_a_job_is_revoked_once(sender: Sender) -> None:
    job = await sender.sent()
    first = sender.revoke(job)
    refused = sender.refusal(job)
    assert (refused.sqlstate, refused.column_name) == (errors.UniqueViolation.sqlstate, "revokes")
    assert refused.message_primary == f"job {job} is revoked by job {first} already"
    assert await sender.end(JobState.IN_DOUBT) == first
    assert sender.refusal(job).message_primary == f"job {job} is revoked by job {first} already"
    sender.owner.execute("UPDATE shardd.archive SET state = 'sent' WHERE id = %s", [first])
    assert sender.refusal(job).message_primary == f"job {job} is revoked by job {first} already"


async def test_another_one_takes_the_place_of_one_that_failed(sender: Sender, admin: JobAdmin) -> None:
    job = await sender.sent()
    first = sender.revoke(job)
    await sender.end(JobState.FAILED)
    second = sender.revoke(job)
    assert sender.row(job)["revoked_by"] == second
    ((result,),) = [chunk async for chunk in admin.retry(Traits(), [first])]
    assert (result.done, result.refusal) == (False, f"job {job} is revoked by job {second} already")
    await sender.end(JobState.FAILED)
    ((result,),) = [chunk async for chunk in admin.retry(Traits(), [first])]
    assert result.done
    assert sender.row(job)["revoked_by"] == first
    assert (await sender.claimed()).spec.revokes == "M1"


@pytest.mark.parametrize("commits", [True, False])
async def test_of_two_at_once_one_is_inserted(sender: Sender, *, commits: bool) -> None:
    job = await sender.sent()
    statement = "INSERT INTO shardd.jobs (kind, revokes) VALUES ('revoke', %s)"
    failed: list[psycopg.Error] = []
    with psycopg.connect(sender.dsn) as first, psycopg.connect(sender.dsn) as second:
        first.execute(statement, [job])

        def work() -> None:
            try:
                second.execute(statement, [job])
            except psycopg.Error as error:
                failed.append(error)
                second.rollback()

        run_blocked(sender.dsn, first, second, work, commits=commits)
    assert [type(error) for error in failed] == ([errors.UniqueViolation] if commits else [])
    assert sender.owner.execute("SELECT count(*) FROM shardd.jobs").fetchone() == (1,)


async def test_a_repeated_dedupe_key_does_nothing(sender: Sender) -> None:
    job = await sender.sent()
    statement = "INSERT INTO shardd.jobs (kind, revokes, dedupe_key) VALUES ('revoke', %s, 'k') RETURNING id"
    (first,) = sender.owner.execute(statement, [job]).fetchall()
    assert sender.owner.execute(statement, [job]).fetchall() == []
    assert sender.row(job)["revoked_by"] == first[0]


async def test_a_revocation_that_the_phone_cannot_decrypt_is_sent_again(sender: Sender) -> None:
    job = await sender.sent()
    first = sender.revoke(job)
    await sender.end(JobState.SENT, "M2")
    await sender.jobs.save_receipt(Receipt("a", ["M2"], "unreadable", 100.0))
    sender.owner.execute("UPDATE shardd.archive SET resend_at = now() WHERE resend_at IS NOT NULL")
    (resend,) = await sender.jobs.resend_unreadable("resend", 2, 100)
    assert (resend.id, sender.row(job)["revoked_by"]) == (first, resend.resent_as)
    assert (await sender.claimed()).spec.revokes == "M1"


async def test_what_is_known_of_it_goes_with_the_job(sender: Sender, database: Database) -> None:
    job = await sender.sent()
    sender.revoke(job)
    await sender.end(JobState.SENT, "M2")
    assert await database.value("forget_revocations", {"most": 10}) == 0
    sender.owner.execute("DELETE FROM shardd.archive WHERE id = %s", [job])
    assert await database.value("forget_revocations", {"most": 10}) == 1


async def test_accounts_are_remembered_as_long_as_a_job_may_be_of_them(sender: Sender, database: Database) -> None:
    sender.owner.execute("DELETE FROM shardd.device_accounts")
    sender.owner.execute(
        "INSERT INTO shardd.device_accounts (device_id, since, account) SELECT 'a', now() - days * interval '1 day', days::text "
        "FROM unnest(array[400, 300, 60, 5]) days"
    )
    assert await database.value("forget_accounts", {"finished": 90 * 24 * 3600}) == 1
    left = sender.owner.execute("SELECT account FROM shardd.device_accounts ORDER BY since").fetchall()
    assert left == [("300",), ("60",), ("5",)]


# ---- opt-outs


async def test_nothing_is_sent_to_who_opted_out(sender: Sender, admin: JobAdmin) -> None:
    before, after = await sender.sent("M1"), await sender.sent("M2")
    waiting = sender.revoke(before)
    sender.owner.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", [TO])
    claimed = await sender.claimed()
    assert (claimed.spec.id, claimed.opted_out, claimed.spec.heeds_opt_outs) == (waiting, True, True)
    late = sender.revoke(after)
    assert (sender.row(late)["state"], sender.row(late)["error"]) == ("opted_out", "the recipient opted out")
    (counted,) = await admin.count_revocations(Traits(), [after])
    assert counted.obstacle == "opted_out"


async def test_a_class_that_is_exempt_from_opt_outs_is_revoked_as_it_was_sent(sender: Sender) -> None:
    sender.owner.execute("INSERT INTO shardd.settings VALUES ('opt_outs.exempt', '[\"service\"]')")
    sender.owner.execute("INSERT INTO shardd.opt_outs (recipient) VALUES (%s)", [TO])
    job = await sender.sent(lane="/service", **{"class": "service"})
    sender.revoke(job)
    claimed = await sender.claimed(lane="/service")
    assert (claimed.spec.revokes, claimed.opted_out) == ("M1", False)


# ---- the device


async def test_it_stays_with_its_device(sender: Sender, admin: JobAdmin) -> None:
    revocation = sender.revoke(await sender.sent())
    (other,) = insert_jobs(sender.owner, "a")
    assert await admin.move(old="a", new="b") == 1
    assert (sender.row(revocation)["device_id"], sender.row(other)["device_id"]) == ("a", "b")
    assert await admin.count_unmovable("a") == Unmovable(answers=0, revocations=1)
    for change in ("device_id = 'b'", "revokes = 4711"):
        with pytest.raises(psycopg.errors.CheckViolation, match="which only device 'a' can do"):
            sender.owner.execute(f"UPDATE shardd.jobs SET {change} WHERE id = %s", [revocation])  # type: ignore[call-overload]
    with pytest.raises(psycopg.errors.CheckViolation, match="which only device 'b' can do"):
        sender.owner.execute("UPDATE shardd.jobs SET revokes = 4711 WHERE id = %s", [other])


# ---- many


@pytest.mark.parametrize("window", [1, 3, 20_000])
async def test_the_messages_of_a_campaign_are_revoked_and_a_second_time_adds_nothing(
    sender: Sender, admin: JobAdmin, database: Database, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr("shardd.queue.job_admin.CHUNK", 2)
    monkeypatch.setattr("shardd.queue.job_admin.FIRST_WINDOW", window)
    lane, campaign = "spring/marketing", {"campaign": "spring"}
    sent = [await sender.sent(f"M{n}", lane=lane, recipient=f"+628123456{n}", **campaign) for n in range(5)]
    other = await sender.sent("M9")
    insert_jobs(sender.owner, "a", campaign="spring", recipient="+6281999999")
    await sender.end(JobState.FAILED, lane=lane)
    (waits,) = insert_jobs(sender.owner, "a", campaign="spring")
    sender.owner.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281234564')")
    sender.owner.execute("UPDATE shardd.campaigns SET state = 'cancelled'")

    async def revoke() -> list[tuple[int, str | None, bool]]:
        chunks = [chunk async for chunk in admin.revoke(Traits(campaign="spring"))]
        assert max(map(len, chunks)) <= 2
        return [(one.id, one.obstacle, one.done) for chunk in chunks for one in chunk]

    counts = {one.obstacle: one.jobs for one in await admin.count_revocations(Traits(campaign="spring"))}
    assert counts == {None: 4, "opted_out": 1}
    assert await revoke() == [*((job, None, True) for job in sent[:4]), (sent[4], "opted_out", False)]
    assert await revoke() == [*((job, "revoked", False) for job in sent[:4]), (sent[4], "opted_out", False)]
    rows = sender.owner.execute(
        "SELECT revokes, priority FROM shardd.jobs WHERE kind = 'revoke' ORDER BY id"
    ).fetchall()
    assert rows == [(job, 100) for job in sent[:4]]
    assert (sender.row(other)["revoked_by"], sender.row(waits)["state"]) == (None, "queued")
    assert [(await sender.claimed()).spec.revokes for _ in range(4)] == ["M0", "M1", "M2", "M3"]
    monkeypatch.setattr("shardd.queue.campaign_counts.REVOCATIONS", window)
    details = await CampaignCounts(database).details("spring", "UTC")
    assert details is not None
    assert sum(details.revocations.values()) == 4
    revocations = sender.owner.execute("SELECT array_agg(id) FROM shardd.jobs WHERE kind = 'revoke'").fetchone()
    sender.owner.execute("UPDATE shardd.jobs SET claimed_epoch = NULL")
    sender.owner.execute("SELECT shardd.end_jobs(%s, 'sent', NULL, NULL)", revocations)
    handled = [one.id async for chunk in admin.revoke(Traits(device_ids=["a"])) for one in chunk]
    assert handled == sorted([*sent, other])


async def test_one_that_is_refused_does_not_keep_the_others_back(sender: Sender) -> None:
    first, second = await sender.sent("M1"), await sender.sent("M2")
    sender.revoke(first)
    told = sender.owner.execute("SELECT job, refusal FROM shardd.revoke_jobs(%s)", [[first, second]]).fetchall()
    assert [job for job, _ in told] == [first, second]
    assert (str(told[0][1]).partition(" by")[0], told[1][1]) == (f"job {first} is revoked", None)


# ---- producers


def sent(owner: Connection, device: str, **fields: Any) -> int:
    """A job that ended as sent by a device, without a daemon."""
    (job,) = insert_jobs(owner, device, **fields)
    owner.execute("SELECT shardd.end_jobs(array[%s::bigint], 'sent', NULL, NULL)", [job])
    owner.execute("UPDATE shardd.archive SET message_id = 'M1' WHERE id = %s", [job])
    return job


def test_a_bound_producer_revokes_what_its_devices_sent_and_learns_of_nothing_else(
    tenants: Tenants, alpha: str
) -> None:
    statement = "INSERT INTO shardd.jobs (kind, revokes) VALUES ('revoke', %s) RETURNING id"
    tenants.bind(tenants.role("clerk"), campaigns=("ca",))
    with connect(tenants.dsn) as owner:
        own, foreign = sent(owner, "a1"), sent(owner, "b1")
        of_group, of_campaign = sent(owner, "a2"), sent(owner, "b2", campaign="ca")
        owner.execute("UPDATE shardd.archive SET device_group = 'ga' WHERE id = %s", [of_group])
    with tenants.session(alpha) as session:
        revocation = session.execute(statement, [own]).fetchone()
        assert revocation is not None
        seen = session.execute("SELECT revoked_by FROM shardd.outcomes WHERE id = %s", [own]).fetchone()
        assert seen == revocation
        for job, device in ((of_group, "a2"), (of_campaign, "b2")):
            with pytest.raises(
                errors.InsufficientPrivilege,
                match=f"job {job} was sent by device '{device}', which is not bound to alpha",
            ):
                session.execute(statement, [job])
        told = []
        for job in (foreign, 4711):
            with pytest.raises(errors.ForeignKeyViolation) as refused:
                session.execute(statement, [job])
            told.append(str(refused.value).replace(str(job), "N"))
        assert told[0] == told[1]
    with tenants.session("clerk") as session, pytest.raises(errors.InsufficientPrivilege, match="not bound to clerk"):
        session.execute(statement, [of_campaign])
