"""What a worker asks about opt-outs, and what it makes of the answer."""

from __future__ import annotations

import asyncio

import pytest

from shardd import ipc
from shardd.errors import DeviceUnavailableError
from shardd.worker import opt_out_questions
from shardd.worker.opt_out_questions import OptOutQuestions


def make() -> tuple[OptOutQuestions, list[ipc.OptOutQuestion]]:
    sent: list[ipc.OptOutQuestion] = []
    return OptOutQuestions(sent.append), sent


async def test_the_questions_of_one_turn_share_a_message_and_an_answer_holds() -> None:
    questions, sent = make()
    asked = [
        asyncio.create_task(questions.opted_out(address, others))
        for address, others in (("1", ["a@lid"]), ("2", ["b@lid", "3"]), ("1", ["a@lid"]))
    ]
    await asyncio.sleep(0)  # the tasks ask
    await asyncio.sleep(0)  # and the loop's turn is over
    assert [question.persons for question in sent] == [[("1", ["a@lid"]), ("2", ["3", "b@lid"])]]
    questions.answered(ipc.OptOutAnswer(sent[0].request, ["b@lid"]))
    assert await asyncio.gather(*asked) == [False, True, False]
    assert not await questions.opted_out("1", ["a@lid"]), "the claim covers it from now on"
    assert not await questions.opted_out("1", [])
    assert not await questions.opted_out("1", ["1"])
    assert len(sent) == 1


async def test_without_a_sure_answer_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    questions, sent = make()
    asked = asyncio.create_task(questions.opted_out("1", ["a@lid"]))
    await asyncio.sleep(0)  # the tasks ask
    await asyncio.sleep(0)  # and the loop's turn is over
    questions.answered(ipc.OptOutAnswer(sent[0].request, error="the database is away"))
    with pytest.raises(DeviceUnavailableError, match="unknown: the database is away"):
        await asked
    monkeypatch.setattr(opt_out_questions, "TIMEOUT", 0.01)
    with pytest.raises(DeviceUnavailableError, match="in time"):
        await questions.opted_out("1", ["a@lid"])
    questions.answered(ipc.OptOutAnswer(sent[-1].request))  # too late
    questions.answered(ipc.OptOutAnswer(99))
