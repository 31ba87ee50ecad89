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
    questions.answered(ipc.OptOutAnswer(sent[0].request, unknown=["1"], error="the database is away"))
    with pytest.raises(DeviceUnavailableError, match="unknown: the database is away"):
        await asked
    monkeypatch.setattr(opt_out_questions, "TIMEOUT", 0.01)
    with pytest.raises(DeviceUnavailableError, match="in time"):
        await questions.opted_out("1", ["a@lid"])
    questions.answered(ipc.OptOutAnswer(sent[-1].request))  # too late
    questions.answered(ipc.OptOutAnswer(99))


async def test_an_answer_holds_until_one_of_the_addresses_opts_out() -> None:
    questions, sent = make()

    async def ask(address: str, other: str, *opted_out: str) -> bool:
        asked = asyncio.create_task(questions.opted_out(address, [other]))
        before = len(sent)
        await asyncio.sleep(0)  # the task asks
        await asyncio.sleep(0)  # and the loop's turn is over
        if len(sent) > before:
            questions.answered(ipc.OptOutAnswer(sent[-1].request, list(opted_out)))
        return await asked

    assert not await ask("1", "a@lid")
    assert not await ask("2", "b@lid")
    questions.heard(["c@lid", "a@lid"])
    assert await ask("1", "a@lid", "a@lid")
    assert not await ask("2", "b@lid")
    assert len(sent) == 3, "only the first one is asked about again"


async def test_who_opts_out_while_the_answer_is_on_its_way_is_asked_about_again() -> None:
    questions, sent = make()
    asked = asyncio.create_task(questions.opted_out("1", ["a@lid"]))
    while not sent:  # noqa: ASYNC110 - the loop decides when it asks
        await asyncio.sleep(0)
    questions.heard(["a@lid"])
    questions.answered(ipc.OptOutAnswer(sent[0].request))
    while len(sent) == 1:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    questions.answered(ipc.OptOutAnswer(sent[1].request, ["a@lid"]))
    assert await asked


async def test_who_could_not_be_checked_holds_up_no_other() -> None:
    questions, sent = make()
    asked = [asyncio.create_task(questions.opted_out(one, [f"{one}@lid"])) for one in "123"]
    await asyncio.sleep(0)  # the tasks ask
    await asyncio.sleep(0)  # and the loop's turn is over
    questions.answered(ipc.OptOutAnswer(sent[0].request, ["3@lid"], ["2", "3"], "blocked"))
    first, second, third = await asyncio.gather(*asked, return_exceptions=True)
    assert (first, third) == (False, True)
    assert isinstance(second, DeviceUnavailableError)
