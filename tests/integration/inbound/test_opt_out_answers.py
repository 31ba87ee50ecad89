"""Answers to workers about opt-outs: a person whom another transaction blocks holds up no other."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg

from shardd import ipc
from shardd.queue.database import Database
from shardd.queue.opt_outs import OptedOut, OptOuts
from shardd.supervisor.inbound.opt_out_answers import OptOutAnswers
from shardd.supervisor.pools import INBOUND_LOCK_TIMEOUT
from tests.support.queue_rows import connect

LISTED = ("6281100001", ["77777@lid"])
BLOCKED = ("6281100002", ["78787@lid"])
FREE = ("6281100003", ["79797@lid"])
ALSO_FREE = ("6281100004", ["80808@lid", "6281100005"])


async def test_who_is_blocked_holds_up_no_other(dsn: str, producer_dsn: str) -> None:
    questions = [[LISTED, BLOCKED, FREE], [ALSO_FREE]]
    answers: asyncio.Queue[ipc.ToWorker] = asyncio.Queue()

    def send(_: int, message: ipc.ToWorker) -> bool:
        answers.put_nowait(message)
        return True

    async def ask(asked: OptOutAnswers) -> list[ipc.ToWorker]:
        for number, persons in enumerate(questions):
            asked.asked(number, ipc.OptOutQuestion(number, persons))
        async with asyncio.timeout(20):
            return [await answers.get() for _ in questions]

    async with Database(dsn, statement_timeout=20.0, max_size=2, lock_timeout=INBOUND_LOCK_TIMEOUT) as database:
        opt_outs = OptOuts(database)
        await opt_outs.store(OptedOut("d1", ("77777@lid",), "stop", 5.0), None)
        asked = OptOutAnswers(opt_outs, lambda *_: False, send)
        serving = asyncio.create_task(asked.serve())
        with psycopg.connect(producer_dsn) as producer, psycopg.connect(dsn) as other:
            # To learn that they are one person would add the number to the list, as the producer does.
            producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+6281100001')")
            other.execute("INSERT INTO shardd.same_person (address, other) VALUES ('6281100002', '78787@lid')")
            first, second = await ask(asked)
            producer.rollback()
            other.rollback()
        assert isinstance(first, ipc.OptOutAnswer)
        assert (first.opted_out, first.unknown) == (["77777@lid"], [LISTED[0], BLOCKED[0]])
        assert first.error
        assert second == ipc.OptOutAnswer(1)
        with connect(dsn) as connection:
            learned = connection.execute("SELECT address, other FROM shardd.same_person").fetchall()
            pairs = [(address, one) for address, others in (FREE, ALSO_FREE) for one in sorted(others)]
            assert sorted(learned) == pairs

        first, second = await ask(asked)
        assert first == ipc.OptOutAnswer(0, [LISTED[0], "77777@lid"])
        assert second == ipc.OptOutAnswer(1)
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving
