"""An act of which the answer is lost is told as such; one that was certainly not done, too, and neither lacks its audit row."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator
from typing import Any, Final, TypeVar

import pytest

from shardd.queue.job_admin import CHUNK, FIRST_CHUNK
from tests.acceptance.dashboard.looks import EVER, StartDaemon, waiting
from tests.fixtures.api import HELLO, MakeProgram
from tests.support.daemon import Daemon, Producer
from tests.support.queue_rows import connect
from tests.support.visitor import USERS, visitor

Result = TypeVar("Result")
KEY: Final = 4711
HOLD: Final = f"""
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared({KEY}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON shardd.acts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.act = 'pause' AND NEW.result = 'done') EXECUTE FUNCTION public.hold();
CREATE CONSTRAINT TRIGGER hold_new AFTER INSERT ON shardd.jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.reference = 'new') EXECUTE FUNCTION public.hold();
CREATE CONSTRAINT TRIGGER hold_old AFTER DELETE ON shardd.jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.reference = 'old') EXECUTE FUNCTION public.hold();
"""
"""At the COMMIT of some transactions, PostgreSQL waits."""
WAITING: Final = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
UNSURE: Final = "It is not known whether this was done: look before you do it again"
LOOK_AGAIN: Final = 0.02
"""Seconds: a backend announces nothing."""


@pytest.fixture
def patience() -> str:
    """How long a statement may take."""
    return "2s"


@pytest.fixture
async def daemon(start_daemon: StartDaemon, dsn: str, patience: str) -> Daemon:
    database = {"dsn": dsn, "statement_timeout": patience}
    return await start_daemon(users=USERS, database=database)


@pytest.fixture
def held(dsn: str) -> Iterator[None]:
    """The COMMIT of what `HOLD` names waits."""
    with connect(dsn) as owner:
        owner.execute(HOLD.encode())
        owner.execute("SELECT pg_advisory_lock(%s)", [KEY])
        yield


async def stalled(producer: Producer, work: Coroutine[Any, Any, Result]) -> Result:
    """The answer to a request while PostgreSQL stands still from its COMMIT on."""
    asked = asyncio.create_task(work)
    while not (found := producer.execute(WAITING, KEY)):
        assert not asked.done(), asked.result()
        await asyncio.sleep(LOOK_AGAIN)
    ((pid,),) = found
    os.kill(pid, signal.SIGSTOP)
    try:
        return await asked
    finally:
        os.kill(pid, signal.SIGCONT)
        while producer.execute(WAITING, KEY):
            pass  # it sees a little later that nobody is there any more


def results(producer: Producer, who: str) -> list[str]:
    return [one for (one,) in producer.execute("SELECT result FROM shardd.acts WHERE who = %s ORDER BY id", who)]


async def test_an_act_whose_answer_is_lost_is_told_as_unknown(
    daemon: Daemon, producer: Producer, make_program: MakeProgram, devices: None, held: None
) -> None:
    operate, send = await make_program("operate"), await make_program("send")
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        paused = await stalled(producer, ada.request("POST", "/devices/d1/pause"))
        assert (paused.status, UNSURE in await paused.text()) == (503, True)
        assert "Nothing was changed" not in await paused.text()
        assert results(producer, "ada")[-1].startswith(UNSURE)

        for program, path, body in (
            (operate, "/devices/d1/pause", None),
            (send, "/jobs", HELLO | {"reference": "new"}),
        ):
            answer = await stalled(producer, program.post(path, body))
            assert (answer.status, answer.problem) == (503, "unsure"), answer
            assert UNSURE.lower() in answer.json["detail"].lower()
            assert "Retry-After" not in answer.headers
        assert results(producer, "operate-1")[-1].startswith(UNSURE)

        producer.execute("UPDATE shardd.devices SET paused_at = now()")
        waiting(producer, FIRST_CHUNK)
        waiting(producer, 1, reference="old")
        many = await stalled(producer, ada.request("POST", f"/jobs/all/cancel?device=d1&{EVER}"))
        told = f"handled before: {FIRST_CHUNK:,} jobs; of the next ones, at most {CHUNK:,}, it is not known"
        assert (many.status, UNSURE in await many.text(), told in await many.text()) == (503, True, True)
        begun, ended = results(producer, "ada")[-2:]
        assert (begun, ended.startswith(UNSURE), ended.endswith(told)) == ("begun", True, True)


@pytest.mark.parametrize("patience", ["1s"])
async def test_an_act_that_cannot_be_recorded_is_not_done(
    daemon: Daemon, producer: Producer, make_program: MakeProgram, devices: None, dsn: str
) -> None:
    operate = await make_program("operate")
    producer.execute("UPDATE shardd.devices SET paused_at = now() WHERE id = 'd1'")
    waiting(producer, 2)
    async with visitor(daemon) as ada:
        await ada.sign_in("ada")
        with connect(dsn) as owner, owner.transaction():
            owner.execute("LOCK TABLE shardd.acts IN EXCLUSIVE MODE")  # which can be read, and not added to
            for path in ("/devices/d2/pause", "/devices/d2/close", f"/jobs/all/cancel?state=queued&{EVER}"):
                answer = await ada.request("POST", path)
                assert (answer.status, "Nothing was changed." in await answer.text()) == (503, True), path
            told = await operate.post("/devices/d2/pause")
            assert (told.status, told.problem) == (503, "database")
            assert told.headers["Retry-After"]
        assert producer.states() == {"queued": 2}
        assert producer.execute("SELECT paused_at FROM shardd.devices WHERE id = 'd2'") == [(None,)]
        assert (await ada.request("POST", "/devices/d2/pause")).status == 200
    assert "closed" not in daemon.log_file.read_text()


async def test_who_may_only_look_does_not_fill_the_audit_log(
    daemon: Daemon, producer: Producer, make_program: MakeProgram
) -> None:
    look = await make_program("look")
    async with visitor(daemon) as bob:
        await bob.sign_in("bob")
        for _ in range(70):
            assert (await bob.request("POST", "/devices/d1/pause")).status == 403
            assert (await look.post("/devices/d1/pause")).status == 403
    assert len(results(producer, "bob")) == 1 + 60
    assert len(results(producer, "look-1")) == 60
