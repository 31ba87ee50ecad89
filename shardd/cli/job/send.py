"""`shardd send`: one message by hand, and what becomes of it.

The job is a row like that of any program: the same INSERT, opt-outs, limits and pace. An interrupt ends only the wait.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import click

from shardd.cli.acts import acting, acts
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.job.commands import device_text
from shardd.cli.names import id_argument
from shardd.cli.options import OneOf, ReadBy, database_config_option, json_option
from shardd.cli.output import Facts, make_console, make_facts, print_json, say, state_text
from shardd.config import Config
from shardd.config.transports.definition import MEDIA_KINDS
from shardd.config.values import Seconds, format_duration
from shardd.control_client import glance
from shardd.errors import DatabaseError, NotRunningError, UsageError
from shardd.pacing import CLASSES
from shardd.queue.acts import listed
from shardd.queue.database import Database
from shardd.queue.devices import DeviceAdmin
from shardd.queue.job_admin import JobAdmin, NewJob
from shardd.queue.leases import is_any_served
from shardd.queue.records import WholeJob
from shardd.queue.unknown_device import unknown_device
from shardd.states import JobState
from shardd.tasks import end_tasks, wait_for_event
from shardd.words import moment_text

UNANNOUNCED: Final = 1.0
"""Seconds after which the job is looked at without a notification, which may be missing."""
SPACING: Final = 0.1
"""Seconds between two looks, however many events there are."""
ITS_TURN: Final = "its turn"
"""What `waits_for` says of a job that needs no explanation."""

WAITS: Final = 75
"""Exit code of a job that is still in the queue."""
INTERRUPTED: Final = 130
EXIT_CODES: Final = {
    JobState.SENT: 0,
    JobState.FAILED: 1,
    JobState.CANCELLED: 1,
    JobState.EXPIRED: 1,
    JobState.IN_DOUBT: 4,
    JobState.OPTED_OUT: 5,
}
"""By the state in which the job ended."""
_REMARKS: Final = {
    JobState.FAILED: "not sent, and not tried again; once the cause is gone: shardd job retry {id}",
    JobState.IN_DOUBT: "handed over, and nobody can know whether it was sent: ask the recipient, then: shardd job resolve {id}; "
    "or send it again, perhaps twice: shardd job retry {id}",
    JobState.OPTED_OUT: "not sent: only the recipient can take the opt-out back (shardd opt-out show RECIPIENT)",
    JobState.CANCELLED: "not sent: somebody cancelled it; to bring it back: shardd job retry {id}",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """What is known at the end."""

    job: WholeJob
    running: bool
    """Whether a shardd runs that could send it."""
    interrupted: bool = False


@click.command(
    "send",
    epilog=examples(
        "shardd send berlin-1 +4915112345678 'It is ready.'", "shardd send me +4915112345678 Menu --media=menu.pdf"
    ),
)
@id_argument("device", "device_id", "DEVICE")
@click.argument("recipient")
@click.argument("text")
@click.option(
    "--media", metavar="FILE", help="Send a file, with TEXT as its caption: a URL, or a path below the media folder."
)
@click.option("--kind", type=OneOf(MEDIA_KINDS), help="What the file is; without it, a document.")
@click.option("--class", "job_class", type=OneOf(CLASSES), default=CLASSES[0], show_default=True, help="Its class.")
@click.option(
    "--timeout",
    type=ReadBy(Seconds("0", "1d")),
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="How long to wait for the outcome.",
)
@click.option("--no-wait", is_flag=True, help="Only put it into the queue.")
@json_option("Print the object of `shardd job show --json`, for programs.")
@database_config_option
@acts("send")
def send(
    *,
    device_id: str,
    recipient: str,
    text: str,
    media: str | None,
    kind: str | None,
    job_class: str,
    timeout: float,
    no_wait: bool,
    as_json: bool,
    config: Config,
) -> None:
    """Send a message, and wait for the outcome.

    It is a job like that of any program: opt-outs, limits and the device's pace apply. ^C and the end of --timeout end only the
    wait: the job stays in the queue.

    Exit codes: 0 sent (with --no-wait: in the queue); 1 failed, expired or cancelled; 3 it waits, because shardd is not running;
    4 in doubt; 5 the recipient opted out; 64 or 65 refused, nothing was inserted; 69 the database does not answer; 75 it still
    waits; 130 interrupted, it waits.
    """
    if kind is not None and media is None:
        raise UsageError("--kind is for a file: name it with --media")
    new = NewJob(
        device_id=device_id,
        recipient=recipient,
        kind="text" if media is None else kind or "document",
        body=text,
        media=media,
        job_class=job_class,
    )
    patience = None if no_wait else timeout
    sent = with_database(config, lambda database: _send(database, config, new, patience))
    if as_json:
        print_json(sent.job)
    else:
        make_console().print(make_facts(_facts(sent.job)))
    raise click.exceptions.Exit(_conclude(sent, patience))


async def _send(database: Database, config: Config, new: NewJob, patience: float | None) -> Sent:
    """Insert, and wait up to `patience` seconds (None: not at all)."""
    if not await DeviceAdmin(database).find(ids=[new.device_id]):
        raise await unknown_device(database, new.device_id)
    running = await _is_running(database, config)
    jobs = JobAdmin(database)
    # Cancelled in this moment, nobody would know whether the job exists.
    inserting = asyncio.ensure_future(_insert(database, config, new))
    interrupted = False
    try:
        await asyncio.shield(inserting)
        if patience is not None and running:
            await _wait_for_end(database, await inserting, patience)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None  # this coroutine runs in one
        task.uncancel()
        interrupted = True
    except DatabaseError as error:
        raise _unread(inserting, error) from error
    try:
        job = await jobs.show(await inserting)
        assert job is not None  # nothing deletes a new one
        ended = JobState(job.state) in EXIT_CODES
        return Sent(job, running if ended else await _is_running(database, config), interrupted)
    except DatabaseError as error:
        raise _unread(inserting, error) from error


async def _insert(database: Database, config: Config, new: NewJob) -> int:
    async with acting(database, config, f"device {new.device_id}") as act:
        number = await JobAdmin(act.database).insert(new)
        act.detail = listed("job", [number])
    return number


def _unread(inserting: asyncio.Future[int], error: DatabaseError) -> DatabaseError:
    """The error of somebody who waits: the job may exist although its state cannot be read."""
    if not inserting.done() or inserting.exception() is not None:
        return error
    number = inserting.result()
    return DatabaseError(
        f"job {number} is in the queue and may still be sent, but its state cannot be read: {error}; look later: shardd job show "
        f"{number}"
    )


async def _is_running(database: Database, config: Config) -> bool:
    """Whether a shardd on this host, or on another one with the same database, runs."""
    if glance(config.control_socket) is not None:
        return True
    return config.database is not None and await is_any_served(database)


async def _wait_for_end(database: Database, job_id: int, patience: float) -> None:
    """Until the job ended, at most `patience` seconds; what it waits for is reported on stderr when that changes."""
    loop, changed, said = asyncio.get_running_loop(), asyncio.Event(), ITS_TURN
    deadline = loop.time() + patience
    listening = asyncio.create_task(_listen(database, changed))
    try:
        while True:
            changed.clear()
            job = await JobAdmin(database).show(job_id)
            if job is None or JobState(job.state) in EXIT_CODES:
                return
            if job.waits_for not in (None, said):
                said = job.waits_for or ITS_TURN
                say(f"job {job_id} is {job.state}, and waits for {_waits_for(job)}", err=True)
            if (left := deadline - loop.time()) <= 0:
                return
            await asyncio.sleep(min(SPACING, left))
            await wait_for_event(changed, min(UNANNOUNCED, max(0.0, deadline - loop.time())))
    finally:
        await end_tasks([listening])


async def _listen(database: Database, changed: asyncio.Event) -> None:
    """Note every event; when they cannot be heard, the job is polled."""
    async with aclosing(database.listen("shardd_events")) as events:
        async for event in events:
            if event.kind != "lost":
                changed.set()


def _waits_for(job: WholeJob) -> str:
    """With the end, if it is known, and the error before it."""
    until = f", due {moment_text(job.due_at)}" if job.due_at is not None else ""
    error = f"; last error: {job.error}" if job.error is not None and job.error != job.waits_for else ""
    return f"{job.waits_for}{until}{error}"


def _facts(job: WholeJob) -> Facts:
    return [
        ("job", str(job.id)),
        ("state", state_text(job.state)),
        ("waits for", job.waits_for),
        ("due at", moment_text(job.due_at)),
        ("error", job.error),
        ("device", device_text(job)),
        ("recipient", job.recipient),
        ("message id", job.message_id),
    ]


def _conclude(sent: Sent, patience: float | None) -> int:
    """Say what follows, on stderr; the exit code."""
    job, state = sent.job, JobState(sent.job.state)
    if state in EXIT_CODES:
        if state in _REMARKS:
            say(_REMARKS[state].format(id=job.id), err=True)
        return EXIT_CODES[state]
    stop = f"look: shardd job show {job.id}; stop it: shardd job cancel {job.id}"
    if sent.interrupted:
        say(f"interrupted; job {job.id} stays in the queue and may still be sent; {stop}", err=True)
        return INTERRUPTED
    if not sent.running:
        say(f"job {job.id} waits in the queue, because shardd is not running: shardd start; {stop}", err=True)
        return 0 if patience is None else NotRunningError.exit_code
    if patience is None:
        return 0
    say(f"job {job.id} is not sent after {format_duration(patience)}, and stays in the queue; {stop}", err=True)
    return WAITS
