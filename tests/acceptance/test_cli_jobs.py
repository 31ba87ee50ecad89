"""`shardd job` with jobs that a real daemon has finished."""

from __future__ import annotations

import getpass
import re
from collections.abc import Callable

import pytest

from tests.support.command import Command
from tests.support.daemon import Daemon, Producer


def ids(producer: Producer, state: str) -> list[int]:
    return [row[0] for row in producer.execute("SELECT id FROM shardd.outcomes WHERE state = %s ORDER BY id", state)]


async def test_failed_jobs_are_retried_and_sent_ones_stay_sent(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(transports={"sandbox": {"permanent_rate": 1.0}})
    shardd = Command(daemon.config_file)
    producer.add_devices(2)
    producer.add_jobs(4, 2)
    await daemon.start()
    await producer.until_finished(daemon, 4)
    await daemon.stop()

    assert producer.states() == {"failed": 4}
    rows = (await shardd("job", "list", "--state", "failed", "--limit", "3", "--json")).json
    assert [row["id"] for row in rows] == ids(producer, "failed")[:0:-1]
    assert all("as configured" in row["error"] and row["transport"] == "sandbox" for row in rows)
    assert {row["error_class"] for row in rows} == {"recipient"}
    assert len((await shardd("job", "list", "--error-class", "recipient", "--class", "marketing", "--json")).json) == 4
    assert (await shardd("job", "list", "--error-class", "timeout", "--json")).json == []

    unasked = await shardd("job", "retry", "--state", "failed")
    assert (unasked.code, unasked.out) == (64, "")
    assert "add --yes (Retry 4 failed jobs?)" in unasked.err
    one = ids(producer, "failed")[0]
    assert (await shardd("job", "retry", one)).out == "retried 1 job\n"
    assert (await shardd("job", "retry", "--state", "failed", "--device", "d2", "--yes")).out == "retried 2 jobs\n"
    assert producer.states() == {"queued": 3, "failed": 1}

    daemon.write_config(transports={"sandbox": {"permanent_rate": 0.0}})
    await daemon.start()
    await producer.until_finished(daemon, 4)
    await daemon.stop()
    assert producer.states() == {"sent": 3, "failed": 1}

    refused = await shardd("job", "retry", one, 10**6, *ids(producer, "failed"))
    assert (refused.code, refused.out) == (64, "retried 1 job\n")
    assert refused.err.splitlines() == [
        f"job {one}: sent already, and a sent message stays sent; insert a new job to send it again",
        "job 1000000: unknown",
    ]
    assert len([m for m in daemon.messages() if m["job"] == one]) == 1

    shown = await shardd("job", "show", one)
    words = " ".join(shown.out.split())
    assert f"job {one} state sent" in words
    assert "(sandbox: its messages reach nobody)" in words
    assert f"message id sandbox-{one}-2" in words
    assert "on test" in words
    assert "tries 1 of 5, 0 failed; claimed 2 times" in words
    assert (await shardd("job", "show", one, "--json")).json["claims"] == 2


async def test_a_job_in_doubt_is_retried_only_knowingly(make_daemon: Callable[..., Daemon], producer: Producer) -> None:
    daemon = make_daemon(transports={"sandbox": {"in_doubt_rate": 1.0}})
    shardd = Command(daemon.config_file)
    producer.add_devices(1)
    producer.add_jobs(2, 1)
    await daemon.start()
    await producer.until_finished(daemon, 2)
    await daemon.stop()
    first, second = ids(producer, "in_doubt")

    unasked = await shardd("job", "retry", first)
    assert (unasked.code, unasked.out) == (64, "")
    assert "1 job in doubt may have reached the recipient; retrying may send the message twice" in unasked.err
    assert producer.states() == {"in_doubt": 2}
    known = await shardd("job", "retry", "-", "--yes", stdin=f"{first}\n{second}\n")
    assert (known.code, known.out) == (0, "retried 2 jobs\n")
    assert "2 jobs in doubt may have reached the recipient" in known.err
    assert producer.states() == {"queued": 2}


async def test_a_person_resolves_jobs_in_doubt(make_daemon: Callable[..., Daemon], producer: Producer) -> None:
    """The order group goes on, the count of doubts falls, and the job keeps who decided, and its error."""
    daemon = make_daemon(transports={"sandbox": {"in_doubt_rate": 1.0}})
    shardd = Command(daemon.config_file)
    producer.add_devices(1)
    insert = """INSERT INTO shardd.jobs (device_id, recipient, body, order_group)
                VALUES ('d1', '+6281234567', 'x', %s) RETURNING id"""
    (first, behind, alone) = (producer.execute(insert, group)[0][0] for group in ("o", "o", None))
    await daemon.start()
    await daemon.until(lambda status: (status["queue"] or {}).get("in_doubt") == 2)
    shown = await shardd("job", "list", "--state", "in_doubt", "--json")
    assert {row["waits_for"] for row in shown.json} == {"a person: shardd job resolve or retry"}

    for arguments, why in (
        (("resolve", first), "say what became of the message: --sent or --not-sent"),
        (("resolve", "--sent"), "say which jobs: their ids, or --state"),
        (("resolve", first, "--sent"), "add --yes (Resolve 1 job in doubt?)"),
    ):
        refused = await shardd("job", *arguments)
        assert (refused.code, refused.out) == (64, "")
        assert why in refused.err
    assert "1 job in doubt will be recorded as sent, as you decide" in refused.err
    assert len(ids(producer, "in_doubt")) == 2

    done = await shardd("job", "resolve", first, "--sent", "--yes")
    assert (done.code, done.out) == (0, "resolved 1 job\n"), done.err
    assert (await shardd("job", "resolve", alone, "--not-sent", "--yes")).out == "resolved 1 job\n"
    assert (await shardd("job", "resolve", first, "--sent")).out == "resolved 0 jobs; 1 job was already done\n"
    other = await shardd("job", "resolve", first, behind + 100, "--not-sent")
    assert (other.code, other.err) == (64, f"job {first}: not in doubt, but sent\njob {behind + 100}: unknown\n")
    # The job behind is sent now, and is in doubt itself.
    await daemon.until(lambda status: (status["queue"] or {}).get("in_doubt") == 1)
    assert (ids(producer, "sent"), ids(producer, "failed")) == ([first], [alone])

    by = getpass.getuser()
    for job, state, words in ((first, "sent", "sent"), (alone, "failed", "not sent")):
        shown = (await shardd("job", "show", job, "--json")).json
        assert shown["state"] == state
        assert re.fullmatch(
            rf"{words}: decided by {by} on 20..-..-.. ..:.. UTC; before, in doubt: sandbox: no answer, as configured",
            shown["error"],
        )
        ((event, data),) = producer.execute(
            "SELECT kind, data FROM shardd.events WHERE job_id = %s AND kind <> 'job.in_doubt'", job
        )
        assert (event, data["state"], data["error"]) == (f"job.{state}", state, shown["error"])
    assert (await shardd("job", "retry", alone)).out == "retried 1 job\n"
    await daemon.stop()


async def test_what_a_worker_has_in_hand_is_not_cancelled(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(transports={"sandbox": {"hang_rate": 1.0}})
    shardd = Command(daemon.config_file)
    await daemon.start()
    # A daemon that runs hears of new devices at once.
    assert (await shardd("device", "add", "d1", "d2", "--transport", "sandbox")).code == 0
    await daemon.until(lambda status: status["totals"]["devices"] == 2)
    producer.add_jobs(6, 2)
    await daemon.until(lambda status: status["totals"]["in_flight"] == 2)
    first, second = ids(producer, "sending")

    waiting = ids(producer, "queued")
    refused = await shardd("job", "cancel", first, waiting[0])
    assert (refused.code, refused.out) == (64, "cancelled 1 job\n")
    assert refused.err == f"job {first}: a worker has it in flight, and a message on its way cannot be stopped\n"
    of_device = await shardd("job", "cancel", "--device", "d2", "--yes")
    assert of_device.code == 64
    assert f"job {second}: a worker has it in flight" in of_device.err
    assert len(ids(producer, "sending")) == 2

    listed = await shardd("job", "list")
    assert "6 of 6 jobs are sandbox: their messages reach nobody" in listed.out
    assert (await shardd("device", "show", "d1", "--json")).json["in_flight"] == 1


async def test_jobs_are_cancelled_by_reference_and_come_back(shardd: Command, producer: Producer) -> None:
    producer.add_devices(2)
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, reference) SELECT 'd' || g, '+4915112345', 'hi', 'order-7' "
        "FROM generate_series(1, 2) g"
    )
    producer.add_jobs(2, 2)
    unasked = await shardd("job", "cancel", "--reference", "order-7")
    assert (unasked.code, unasked.out) == (64, "")
    assert "add --yes (Cancel 2 queued jobs?)" in unasked.err
    cancelled = await shardd("job", "cancel", "--reference", "order-7", "--yes")
    assert (cancelled.code, cancelled.out) == (0, "cancelled 2 jobs\n")
    rows = (await shardd("job", "list", "--reference", "order-7", "--json")).json
    assert [(row["state"], row["error"]) for row in rows] == [("cancelled", "cancelled by an operator")] * 2

    again = await shardd("job", "cancel", rows[0]["id"])
    assert (again.code, again.out, again.err) == (0, "cancelled 0 jobs; 1 job was already done\n", "")
    none = await shardd("job", "retry", "--reference", "order-7", "--yes")
    assert (none.code, none.out) == (
        0,
        "retried 0 jobs\nno job of these failed; 2 jobs cancelled: name the state, such as --state=cancelled\n",
    )
    await shardd("device", "remove", "d2", "--cancel-jobs")
    back = await shardd("job", "retry", "--state", "cancelled", "--yes")
    assert (back.code, back.out) == (64, "retried 1 job\n")
    assert "the device was removed; bring it back with: shardd device add" in back.err
    assert producer.states() == {"queued": 2, "cancelled": 2}


async def test_a_message_cannot_move_the_terminal(shardd: Command, producer: Producer) -> None:
    producer.add_devices(1)
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('d1', '+4915112345', %s)", "one\ntwo\x1b[2J"
    )
    shown = (await shardd("job", "show", 1)).out
    assert "\x1b" not in shown
    assert "two\\x1b[2J" in shown


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["retry"], "shardd: say which jobs: their ids, or --state, --device, --campaign"),
        (["retry", "--yes", "--dry-run"], "shardd: say which jobs"),
        (["retry", "--device", "nobody"], "shardd: device nobody is unknown"),
        (["retry", "--campaign", "nothing"], "shardd: campaign nothing is unknown; the others: shardd campaign list"),
        (["cancel", "--campaign", "nothing"], "shardd: campaign nothing is unknown"),
        (["list", "--campaign", "nothing"], "shardd: campaign nothing is unknown"),
        (["retry", "--error-class", "bad luck"], "'bad luck' is not one of 'recipient', 'content'"),
        (["cancel", "--state", "sending"], "'sending' is not one of 'scheduled', 'queued'"),
        (["retry", "--state", "sent"], "'sent' is not one of 'failed', 'cancelled', 'in_doubt'"),
        (["retry", "1e5"], "shardd: 1e5: not a job id; write numbers such as 42"),
        (["retry", "9223372036854775808"], "not a job id"),
        (["cancel"], "shardd: say which jobs: their ids, or --state, --device"),
        (["cancel", "-"], "shardd: no job is named"),
        (["cancel", "--device", "nobody"], "shardd: device nobody is unknown"),
        (["list", "--device", "nobody"], "shardd: device nobody is unknown"),
        (["list", "--limit", "0"], "--limit: 0 is too small; write a value from 1"),
        (["show", "7"], "shardd: job 7 is unknown"),
    ],
)
async def test_bad_input_is_refused_in_one_line(shardd: Command, arguments: list[str], error: str) -> None:
    ran = await shardd("job", *arguments)
    assert (ran.code, ran.out) == (64, "")
    assert error in ran.err
