"""`shardd send`: one message by hand, by the rules of all, and the truth about what became of it."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import PIPE
from collections.abc import Callable

from tests.fixtures.postgres import Cluster
from tests.support.command import PATIENCE, PROGRAM, Command
from tests.support.daemon import Daemon, Producer

TO = "+4915112345678"
END_COMMANDS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND application_name = 'shardd/command'"
)


async def reload(daemon: Daemon, **sandbox: float) -> None:
    """Let a running daemon send by the sandbox in another way."""
    daemon.write_config(transports={"sandbox": sandbox})
    before = {shard["pid"] for shard in (await daemon.status())["shards"]}
    daemon.kill(signal.SIGHUP)
    await daemon.until(
        lambda status: all(one["state"] == "running" and one["pid"] not in before for one in status["shards"])
    )


async def test_the_outcome_is_awaited_and_said_in_its_own_words(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    daemon.write_config()
    shardd = Command(daemon.config_file)
    producer.add_devices(2)
    early = await shardd("send", "d1", TO, "nobody is there")
    assert (early.code, " ".join(early.out.split()).startswith("job 1 state queued waits for its turn")) == (3, True)
    assert early.err == (
        "job 1 waits in the queue, because shardd is not running: shardd start; look: shardd job show 1; stop it: "
        "shardd job cancel 1\n"
    )
    queued = await shardd("send", "d1", TO, "later", "--no-wait")
    assert (queued.code, queued.out.split()[:4]) == (0, ["job", "2", "state", "queued"])

    await daemon.start()
    sent = await shardd("send", "d1", TO, "Hello\nyou", "--class=service")
    assert (sent.code, sent.err) == (0, "")
    words = " ".join(sent.out.split())
    assert words.startswith("job 3 state sent device d1 (sandbox: its messages reach nobody)")
    assert words.endswith(f"recipient {TO} message id sandbox-3-1")
    # What waited before it went first: by the same queue.
    assert [message["body"] for message in daemon.messages()] == ["nobody is there", "later", "Hello\nyou"]
    for_programs = await shardd("send", "d1", TO, "a menu", "--media=https://example.com/menu.pdf", "--json")
    assert (for_programs.code, for_programs.err) == (0, "")
    assert {name: for_programs.json[name] for name in ("id", "state", "kind", "class", "body", "producer")} == {
        "id": 4,
        "state": "sent",
        "kind": "document",
        "class": "marketing",
        "body": "a menu",
        "producer": "",
    }

    assert (await shardd("opt-out", "add", "+4915199999999")).code == 0
    unwanted = await shardd("send", "d1", "+49 151 99999999", "an offer")
    assert (unwanted.code, "state opted_out" in " ".join(unwanted.out.split())) == (5, True)
    assert unwanted.err == ("not sent: only the recipient can take the opt-out back (shardd opt-out show RECIPIENT)\n")

    await reload(daemon, permanent_rate=1.0)
    failed = await shardd("send", "d1", TO, "refused")
    assert (failed.code, failed.err) == (
        1,
        "not sent, and not tried again; once the cause is gone: shardd job retry 6\n",
    )
    assert f"error sandbox: {TO} refused, as configured" in " ".join(failed.out.split())
    await reload(daemon, permanent_rate=0.0, in_doubt_rate=1.0)
    doubt = await shardd("send", "d1", TO, "lost")
    assert (doubt.code, "state in_doubt" in " ".join(doubt.out.split())) == (4, True)
    assert doubt.err.startswith("handed over, and nobody can know whether it was sent: ask the recipient")
    assert producer.states() == {"sent": 4, "opted_out": 1, "failed": 1, "in_doubt": 1}


async def test_what_it_waits_for_is_said_and_an_interrupt_leaves_the_job(
    make_daemon: Callable[..., Daemon], producer: Producer, postgres: Cluster, dbname: str
) -> None:
    daemon = make_daemon()
    shardd = Command(daemon.config_file)
    producer.add_devices(1)
    await daemon.start()
    assert (await shardd("device", "pause", "d1", "--why=new phone")).code == 0
    late = await shardd("send", "d1", TO, "Hello", "--timeout=1s")
    assert (late.code, late.err.splitlines()) == (
        75,
        [
            "job 1 is queued, and waits for its device: paused, new phone",
            "job 1 is not sent after 1s, and stays in the queue; look: shardd job show 1; stop it: shardd job cancel 1",
        ],
    )
    for number, signum in ((2, signal.SIGINT), (3, signal.SIGTERM)):
        process = await asyncio.create_subprocess_exec(
            *(str(PROGRAM), "send", "d1", TO, "Hello"), env=shardd.environ, stdout=PIPE, stderr=PIPE
        )
        assert process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            assert b"paused, new phone" in await process.stderr.readline()
            process.send_signal(signum)
            out, err = await process.communicate()
        assert (process.returncode, out.split()[:4]) == (130, [b"job", str(number).encode(), b"state", b"queued"])
        assert err.decode() == (
            f"interrupted; job {number} stays in the queue and may still be sent; look: shardd job show {number}; "
            f"stop it: shardd job cancel {number}\n"
        )
    assert producer.states() == {"queued": 3}
    process = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), "send", "d1", TO, "Hello"), env=shardd.environ, stdout=PIPE, stderr=PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        assert b"paused, new phone" in await process.stderr.readline()
        with postgres.superuser() as superuser:
            superuser.execute(f"ALTER DATABASE {dbname} ALLOW_CONNECTIONS false")
            try:
                superuser.execute(END_COMMANDS, [dbname])
                out, err = await process.communicate()
            finally:
                superuser.execute(f"ALTER DATABASE {dbname} ALLOW_CONNECTIONS true")
    assert (process.returncode, out) == (69, b"")
    assert err.decode().startswith(
        "shardd: job 4 is in the queue and may still be sent, but its state cannot be read: "
    )
    assert (await shardd("job", "cancel", 1, 2, 4)).code == 0
    assert (await shardd("device", "resume", "d1")).code == 0
    assert (await producer.until_finished(daemon, 4)) == {"sent": 1, "cancelled": 3}


async def test_what_could_never_be_sent_is_refused_in_one_line(shardd: Command, producer: Producer) -> None:
    producer.add_devices(1, prefix="berlin-")
    for words, code, error in (
        (
            ("berlni-1", TO, "x"),
            64,
            "shardd: device berlni-1 is unknown; did you mean berlin-1? All: shardd device list\n",
        ),
        (
            ("berlin-1", "bob", "x"),
            65,
            "shardd: recipient 'bob' is neither a phone number nor a WhatsApp address. Write",
        ),
        (("berlin-1", TO, " "), 65, "shardd: body is empty. A text message needs a body with visible characters\n"),
        (("berlin-1", TO, "x", "--kind=image"), 64, "shardd: --kind is for a file: name it with --media\n"),
        (("berlin-1", TO, "x", "--timeout=5"), 64, "shardd: --timeout: 5 has no unit"),
        (("berlin-1", TO), 64, "shardd: Missing argument 'TEXT'; see shardd send --help\n"),
    ):
        ran = await shardd("send", *words)
        assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
        assert ran.err.startswith(error), ran.err
    assert producer.states() == {}
