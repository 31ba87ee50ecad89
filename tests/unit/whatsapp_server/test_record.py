from __future__ import annotations

import asyncio

from tests.whatsapp_server.record import EventFilter, Message, MessageFilter, Record

EVERYTHING = MessageFilter()


def message(message_id: str, text: str = "hello", *, recipient: str = "62899", kind: str = "text") -> Message:
    read_by = [] if kind == "unreadable" else [recipient]
    return Message("62811", "62811:1", recipient, message_id, kind=kind, text=text, read_by=read_by)


def test_a_message_that_comes_again_under_its_id_is_one_message_with_two_arrivals() -> None:
    record = Record()
    record.arrive(message("A"), "drop", accepted=False)
    record.arrive(message("A"), "ack", accepted=True)
    record.arrive(message("A"), "ack", accepted=True)

    [known] = record.messages(EVERYTHING)
    assert [arrival.outcome for arrival in known.arrivals] == ["drop", "ack", "ack"]
    assert (record.counts["messages"], record.counts["arrivals"]) == (1, 3)


def test_the_same_text_under_another_id_is_another_message() -> None:
    record = Record()
    record.arrive(message("A"), "ack", accepted=True)
    record.arrive(message("B"), "ack", accepted=True)
    assert [known.id for known in record.messages(EVERYTHING)] == ["A", "B"]


def test_refused_messages_are_kept_apart() -> None:
    record = Record()
    record.arrive(message("A"), "error 463", accepted=False)
    assert record.messages(EVERYTHING) == []
    assert [known.id for known in record.messages(EVERYTHING, accepted_only=False)] == ["A"]


def test_what_the_first_arrival_hid_a_later_one_shows() -> None:
    record = Record()
    record.arrive(message("A", text="", kind="unreadable"), "drop", accepted=True)
    record.arrive(message("A", text="now readable"), "ack", accepted=True)
    [known] = record.messages(EVERYTHING)
    assert (known.kind, known.text) == ("text", "now readable")


def test_what_nobody_can_read_is_not_delivered() -> None:
    record = Record()
    record.arrive(message("A", text="", kind="unreadable"), "ack", accepted=True)
    assert record.messages(EVERYTHING) == []
    assert [known.id for known in record.messages(EVERYTHING, readable_only=False)] == ["A"]
    assert (record.counts["messages"], record.counts["unreadable"]) == (0, 1)


def test_filters_name_sender_device_recipient_text_and_id() -> None:
    record = Record()
    record.arrive(message("A", "one"), "ack", accepted=True)
    record.arrive(message("B", "two", recipient="62898"), "ack", accepted=True)

    def found(wanted: MessageFilter) -> list[str]:
        return [known.id for known in record.messages(wanted)]

    assert found(MessageFilter(sender="62811")) == found(MessageFilter(sender="62811:1")) == ["A", "B"]
    assert found(MessageFilter(sender="62811:2")) == []
    assert found(MessageFilter(recipient="62898")) == found(MessageFilter(text="two")) == ["B"]
    assert found(MessageFilter(message_id="A", text="one")) == ["A"]


async def test_waiting_counts_what_is_there_and_what_comes() -> None:
    record = Record()
    record.arrive(message("A"), "ack", accepted=True)
    waiting = asyncio.create_task(record.wait_messages(EVERYTHING, 3, 10))
    await asyncio.sleep(0)
    record.arrive(message("A"), "ack", accepted=True)  # no news
    record.arrive(message("B"), "ack", accepted=True)
    await asyncio.sleep(0)
    assert not waiting.done()
    record.arrive(message("C"), "ack", accepted=True)
    assert [known.id for known in await waiting] == ["A", "B", "C"]


async def test_waiting_in_vain_gives_what_there_is() -> None:
    record = Record()
    record.note("login", "62811:1")
    assert len(await record.wait_events(EventFilter("login"), 2, 0.01)) == 1


async def test_events_are_found_by_kind_device_and_place() -> None:
    record = Record()
    record.note("login", "62811:1")
    record.note("login", "62812:1")
    record.note("disconnect", "62811:1", why="test")

    assert [event.number for event in record.events(EventFilter(device="62811"))] == [1, 3]
    assert [event.number for event in record.events(EventFilter("login", after=1))] == [2]
    assert record.events(EventFilter("disconnect"))[0].details == {"why": "test"}
    record.reset()
    record.note("login", "62811:1")
    assert [event.number for event in record.events(EventFilter())] == [4]
