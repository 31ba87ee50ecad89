"""A worker's memory of opt-outs, and the backlog after a login."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from shardd.errors import ErrorClass, OptedOutError
from shardd.incoming import Incoming
from shardd.ipc import JobSpec
from shardd.transports.whatsapp.messages import incoming
from shardd.transports.whatsapp.messages.incoming import Backlog
from shardd.transports.whatsapp.messages.recipients import Directory, OptOuts

JOB = JobSpec(1, 1, 1, 9, "d1", "+6281234567890")
JID = "6281234567890@s.whatsapp.net"


class Told:
    """Who listens to the transport."""

    def __init__(self) -> None:
        self.opt_outs: list[tuple[str, list[str], str, float]] = []

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None:
        raise AssertionError(f"{device_id}: {state}, {reason}, {until}")

    def receipt(self, device_id: str, message_ids: list[str], kind: str, at: float, by: int = 0) -> None:
        raise AssertionError(f"{device_id}: {kind} {message_ids} {at}")

    def opted_out(self, device_id: str, recipients: list[str], words: str, at: float) -> None:
        self.opt_outs.append((device_id, recipients, words, at))

    def incoming(self, unspooled: Incoming | None) -> None:
        raise AssertionError(str(unspooled))

    def defect(self, text: str) -> None:
        raise AssertionError(text)

    def visited(self, device_id: str, *, online: bool, presence: bool = False, note: str | None = None) -> None:
        raise AssertionError(f"{device_id}: {online} {presence} {note}")


def stop(number: str | None, hidden: str | None = None, text: str = "STOP") -> Incoming:
    addresses = tuple(filter(None, (number and f"+{number}", hidden)))
    return Incoming(device_id="d1", message_id="A1", addresses=addresses, text=text, at=5.0)


def test_a_person_is_known_by_number_by_hidden_id_and_as_dialled() -> None:
    told, directory = Told(), Directory()
    directory.learn("5511987654321", "551187654321@s.whatsapp.net")
    directory.learn("5511900000000", "77@lid")
    directory.learn("5511911111111", None)
    opt_outs = OptOuts(["stop"], directory, told)
    opt_outs.heard(opt_outs.marked(stop("551187654321", "77@lid")))
    expected = ["+551187654321", "+5511987654321", "+5511900000000", "77@lid"]
    assert told.opt_outs == [("d1", expected, "STOP", 5.0)]
    for jid in ("551187654321@s.whatsapp.net", "5511987654321@s.whatsapp.net", "77@lid"):
        with pytest.raises(OptedOutError) as refused:
            opt_outs.check(JOB, jid)
        assert refused.value.error_class is ErrorClass.OPTED_OUT
    opt_outs.check(JOB, "5511911111111@s.whatsapp.net", "78@lid")


def test_one_address_of_two_is_enough_and_the_confirmation_passes() -> None:
    opt_outs = OptOuts(["stop"], Directory(), Told())
    opt_outs.heard(opt_outs.marked(stop(None, "77@lid")))
    with pytest.raises(OptedOutError):
        opt_outs.check(JOB, JID, "77@lid")
    opt_outs.check(JobSpec(1, 1, 1, 9, "d1", "x", heeds_opt_outs=False), JID, "77@lid")


def test_what_is_no_opt_out_stays_in_the_worker() -> None:
    told = Told()
    opt_outs = OptOuts(["stop"], Directory(), told)
    opt_outs.heard(opt_outs.marked(stop("6281234567890", text="please don't stop")))
    opt_outs.check(JOB, JID)
    assert told.opt_outs == []


async def test_a_backlog_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Backlog()
    waiting.announced(SimpleNamespace(Message=1))
    task = asyncio.create_task(waiting.wait())
    await asyncio.sleep(0)
    assert not task.done()
    waiting.finish()
    await task
    monkeypatch.setattr(incoming, "UNANNOUNCED", 0.01)
    monkeypatch.setattr(incoming, "ANNOUNCED", 0.02)
    never = Backlog()
    never.announced(SimpleNamespace(Message=1))
    await never.wait()
    monkeypatch.setattr(incoming, "UNANNOUNCED", 3600.0)
    async with asyncio.timeout(20):
        await never.wait()
