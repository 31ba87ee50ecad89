"""A worker's memory of opt-outs, and the backlog after a login."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from shardd.errors import ErrorClass, OptedOutError
from shardd.incoming import Incoming
from shardd.ipc import JobSpec
from shardd.opt_out_words import OptOutWords
from shardd.transports.whatsapp.messages import incoming
from shardd.transports.whatsapp.messages.incoming import Backlog
from shardd.transports.whatsapp.messages.recipients import Directory, OptOuts

JOB = JobSpec(1, 1, 1, 9, "d1", "+6281234567890")
JID = "6281234567890@s.whatsapp.net"


def stop(number: str | None, hidden: str | None = None, text: str = "STOP") -> Incoming:
    addresses = tuple(filter(None, (number and f"+{number}", hidden)))
    return Incoming(device_id="d1", message_id="A1", addresses=addresses, text=text, at=5.0)


def test_a_person_is_known_by_number_by_hidden_id_and_as_dialled() -> None:
    directory = Directory()
    directory.learn("5511987654321", "551187654321@s.whatsapp.net")
    directory.learn("5511900000000", "77@lid")
    directory.learn("5511911111111", None)
    opt_outs = OptOuts(OptOutWords(["stop"]), directory)
    message = opt_outs.marked(stop("551187654321", "77@lid"))
    assert message.opt_out
    assert message.addresses == ("+551187654321", "+5511987654321", "+5511900000000", "77@lid")
    opt_outs.heard(message, 1)
    for jid in ("551187654321@s.whatsapp.net", "5511987654321@s.whatsapp.net", "77@lid"):
        with pytest.raises(OptedOutError) as refused:
            opt_outs.check(JOB, jid)
        assert refused.value.error_class is ErrorClass.OPTED_OUT
    opt_outs.check(JOB, "5511911111111@s.whatsapp.net", "78@lid")


def test_one_address_of_two_is_enough_and_the_confirmation_passes() -> None:
    opt_outs = OptOuts(OptOutWords(["stop"]), Directory())
    opt_outs.heard(opt_outs.marked(stop(None, "77@lid")), 1)
    with pytest.raises(OptedOutError):
        opt_outs.check(JOB, JID, "77@lid")
    opt_outs.check(JobSpec(1, 1, 1, 9, "d1", "x", heeds_opt_outs=False), JID, "77@lid")


def test_what_is_no_opt_out_stops_nothing() -> None:
    opt_outs = OptOuts(OptOutWords(["stop"]), Directory())
    message = opt_outs.marked(stop("6281234567890", text="please don't stop"))
    assert not message.opt_out
    opt_outs.heard(message, 1)
    opt_outs.check(JOB, JID)


def test_of_a_job_that_was_checked_later_the_supervisor_knows_more() -> None:
    """The person may have taken the opt-out back meanwhile, at a device of another worker."""
    opt_outs = OptOuts(OptOutWords(["stop"], ["start"]), Directory())
    opt_outs.heard(opt_outs.marked(stop("6281234567890")), 3)
    for heard in (0, 2):
        with pytest.raises(OptedOutError):
            opt_outs.check(msgspec.structs.replace(JOB, heard=heard), JID)
    opt_outs.check(msgspec.structs.replace(JOB, heard=3), JID)
    message = opt_outs.marked(stop("6281234567890", text="Start, please!"))
    assert (message.opt_out, message.take_back) == (False, True)


async def test_a_backlog_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Backlog()
    task = asyncio.create_task(waiting.wait())
    await asyncio.sleep(0)
    assert not task.done()
    waiting.finish()
    await task
    monkeypatch.setattr(incoming, "PATIENCE", 0.01)
    never = Backlog()
    await never.wait()
    monkeypatch.setattr(incoming, "PATIENCE", 3600.0)
    async with asyncio.timeout(20):
        await never.wait()
