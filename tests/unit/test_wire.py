"""Messages as bytes: every message survives, and one that cannot be encoded or decoded affects nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardd import ipc, wire
from shardd.incoming import Incoming
from shardd.states import DeviceState, Verdict
from shardd.wire import OutOfSyncError, Reader, Undecodable

DEVICE = ipc.DeviceSpec("a", "whatsapp", {"region": "ID"}, "628:1@s.whatsapp.net", "socks5://proxy")
JOB = ipc.JobSpec(
    *(2**62, 9, 3, 2**62, "a", "+628123", "location", "body", None, None, None),
    *('{"latitude": 1.5, "longitude": -2}', '{"id": "A1"}', "M1", 2e9),
)
OUTCOME = ipc.Outcome(
    2**62, 9, 3, -(2**63), Verdict.UNAVAILABLE, None, "why", 1.5, DeviceState.BANNED, 1e9, "rate_limit", True
)

SANDBOX = ipc.TransportSpec("a:B", {"latency_min": 0.1}, 2)

TO_WORKER: list[ipc.ToWorker] = [
    ipc.Setup("node", 3, "/j", "0" * 32, 90.0, {"sandbox": SANDBOX}, [DEVICE], 1.0, True, "dsn"),
    ipc.SendJob(JOB),
    ipc.Devices([DEVICE], ["b"]),
    ipc.Settled([(1, 2, 3, 4), (2**62, 3, 1, -(2**63))]),
    ipc.Drain(0.0),
    ipc.Lease(20.0, 22.5),
    ipc.LogLevel("debug"),
    ipc.Close("a", 4),
    ipc.Visit("a", late=True, probe=True),
    ipc.HoldLogins("whatsapp", held=True),
    ipc.OptOutAnswer(3, ["628123"], ["628124"], "unknown"),
    ipc.OptOutsHeard(["628123", "77@lid"]),
    ipc.ChangeStoreAccess(ipc.StoreAccess("host=/run/p port=6432", 4)),
    ipc.Audit(5),
]
TO_SUPERVISOR: list[ipc.ToSupervisor] = [
    ipc.Loaded(),
    ipc.Ready(4711),
    ipc.Heartbeat(0.1, 1, 2, 3, 4, "its disk is full"),
    ipc.Outcomes([OUTCOME]),
    ipc.DeviceChanged("a", DeviceState.BANNED, "why", 2e9, 1e9),
    ipc.Receipt("a", ["x", "y"], "read", 1e9),
    ipc.OptOutQuestion(3, [("628123", ["77@lid"])]),
    ipc.Arrived(None, Incoming(device_id="a", message_id="A1", addresses=("+628123",), text="hi", at=1e9)),
    ipc.Visited("a", online=True, at=1e9),
    ipc.LoginAnswered("a", outdated=True),
    ipc.Stopping(),
    ipc.Closed(4),
    ipc.Defect("text"),
    ipc.AuditReply(5, [(1, 2, 3, 4)], [(5, 6, 7, 8)]),
    ipc.Clients(opened=["a"], closed=["b"], openings=3),
]
DIRECTIONS: list[tuple[Callable[[], Reader], list[Any]]] = [
    (wire.worker_reader, TO_WORKER),
    (wire.supervisor_reader, TO_SUPERVISOR),
]


def encode(*messages: Any) -> bytes:
    data, unsent = wire.encode(list(messages))
    assert unsent == []
    return bytes(data)


def read(reader: Reader, *pieces: bytes) -> list[Any]:
    return [message for piece in pieces for message in reader.feed(piece)]


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def job(number: int, **fields: Any) -> ipc.JobSpec:
    return ipc.JobSpec(number, 1, 1, 9, "a", "+628", **fields)


# ---- what is whole


@pytest.mark.parametrize(
    ("reader", "messages", "every"),
    [(*DIRECTIONS[0], ipc.ToWorker), (*DIRECTIONS[1], ipc.ToSupervisor)],
    ids=["to the worker", "to the supervisor"],
)
def test_every_message_arrives(reader: Callable[[], Reader], messages: list[Any], every: Any) -> None:
    assert read(reader(), encode(*messages)) == messages
    assert {type(message) for message in messages} == set(get_args(every))


@given(
    st.text(),
    st.text(),
    st.integers(-(2**63), 2**63 - 1),
    st.none() | st.text(),
)
def test_every_text_and_number_arrives(body: str, recipient: str, number: int, details: str | None) -> None:
    message = ipc.SendJob(ipc.JobSpec(number, number, 1, number, "a", recipient, body=body, details=details))
    assert read(wire.worker_reader(), encode(message)) == [message]


@given(st.data())
def test_messages_may_arrive_in_pieces_of_any_size(data: st.DataObject) -> None:
    reader, known = data.draw(st.sampled_from(DIRECTIONS))
    messages = data.draw(st.lists(st.sampled_from(known), max_size=8))
    whole = encode(*messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    pieces = [whole[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(reader(), *pieces) == messages


# ---- what cannot be encoded


def nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


UNENCODABLE = {
    "a number of 70 bits": 2**70,
    "a negative one": -(2**70),
    "a number of 4000 bits": 2**4000,
    "half of a surrogate pair": "\ud83d",
    "a type of no message": object(),
    "a deep nesting": nested(100_000),
}


@pytest.mark.parametrize("value", UNENCODABLE.values(), ids=UNENCODABLE.keys())
def test_a_job_that_cannot_be_encoded_costs_no_other(value: Any) -> None:
    sends = [ipc.SendJob(job(number)) for number in range(20)]
    bad = ipc.SendJob(job(1000, details={"order": value}))
    data, failed = wire.encode([*sends[:10], bad, *sends[10:]])
    assert [what.item for what in failed] == [bad.job]
    assert failed[0].why
    assert read(wire.worker_reader(), bytes(data)) == sends


@pytest.mark.parametrize("value", UNENCODABLE.values(), ids=UNENCODABLE.keys())
def test_a_device_that_cannot_be_encoded_costs_no_other(value: Any) -> None:
    devices = [ipc.DeviceSpec(f"d{number}", "sandbox") for number in range(20)]
    bad = ipc.DeviceSpec("bad", "sandbox", {"order": value})
    setup = ipc.Setup("node", 3, "/j", "0" * 32, 90.0, {}, [*devices, bad])
    for message in (ipc.Devices([bad, *devices], ["gone"]), setup):
        data, unsent = wire.encode([message])
        assert [what.item.id for what in unsent] == ["bad"]
        arrived = read(wire.worker_reader(), bytes(data))
        told = [device for part in arrived if isinstance(part, ipc.Devices) for device in part.changed]
        assert told == devices
        if isinstance(message, ipc.Devices):
            assert [gone for part in arrived for gone in part.removed] == ["gone"]
        else:
            assert arrived[0] == msgspec.structs.replace(setup, devices=[])


@pytest.mark.parametrize("value", UNENCODABLE.values(), ids=UNENCODABLE.keys())
def test_an_outcome_or_a_message_that_cannot_be_encoded_costs_no_other(value: Any) -> None:
    bad = msgspec.structs.replace(OUTCOME, error_class=value)
    receipt = ipc.Receipt("a", ["x"], value, 1.0)
    data, unsent = wire.encode([ipc.Outcomes([OUTCOME, bad, OUTCOME]), receipt, ipc.Stopping()])
    assert [what.item for what in unsent] == [bad, receipt]
    *outcomes, last = read(wire.supervisor_reader(), bytes(data))
    assert [outcome for message in outcomes for outcome in message.outcomes] == [OUTCOME, OUTCOME]
    assert last == ipc.Stopping()


def test_a_job_larger_than_a_message_may_be_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE", 10_000)
    sends = [ipc.SendJob(job(number, body="x" * 4000)) for number in range(9)]
    data, failed = wire.encode([*sends, ipc.SendJob(job(10, body="x" * 10_001))])
    assert [what.item.id for what in failed] == [10]
    assert re.fullmatch(r"its 10,0\d\d bytes are more than the 10,000 that a message may have", failed[0].why)
    assert read(wire.worker_reader(), bytes(data)) == sends


def test_outcomes_that_are_too_large_together_are_sent_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_MESSAGE", 10_000)
    outcomes = [msgspec.structs.replace(OUTCOME, id=number, error="x" * 1000) for number in range(20)]
    data, failed = wire.encode([ipc.Outcomes(outcomes)])
    assert failed == []
    messages = read(wire.supervisor_reader(), bytes(data))
    assert [outcome for message in messages for outcome in message.outcomes] == outcomes


# ---- what cannot be decoded


BROKEN = {
    "a number where a text is due": (msgspec.msgpack.encode({"type": "log_level", "level": 5}), "log_level.level"),
    "a text where a number is due": (msgspec.msgpack.encode({"type": "drain", "timeout": "x"}), "drain.timeout"),
    "a field that is missing": (msgspec.msgpack.encode({"type": "close", "device_id": "a"}), "close: "),
    "the supervisor's own words": (msgspec.msgpack.encode(ipc.Ready(1)), "ready.type"),
    "a message of no kind": (msgspec.msgpack.encode({"type": "nope"}), "nope.type"),
    "no message at all": (msgspec.msgpack.encode([1, 2]), "?: "),
    "no msgpack": (b"\xc1", "?: "),
    "a text that is no UTF-8": (b"\x82\xa4type\xa9log_level\xa5level\xa2\xff\xfe", "log_level: "),
    "a list that is cut off": (b"\x82\xa4type\xa7devices\xa7changed\xdd\xff\xff\xff\xff", "?: "),
    "a deep nesting": (
        msgspec.msgpack.encode({"type": "setup", "transports": {"a": {"settings": {}}}})[:-1]
        + b"\x81\xa1a"
        + b"\x91" * 100_000
        + b"\xc0",
        "?: ",
    ),
    "more than one message": (msgspec.msgpack.encode(ipc.Drain(1.0)) * 2, "?: "),
}


@pytest.mark.parametrize(("payload", "named"), BROKEN.values(), ids=BROKEN.keys())
def test_a_message_that_cannot_be_read_is_named_and_costs_no_other(payload: bytes, named: str) -> None:
    data = encode(ipc.Drain(1.0)) + framed(payload) + encode(ipc.Drain(2.0))
    first, unread, last = read(wire.worker_reader(), data)
    assert (first, last) == (ipc.Drain(1.0), ipc.Drain(2.0))
    assert isinstance(unread, Undecodable)
    assert str(unread).startswith(named)


def test_a_job_that_cannot_be_read_is_named() -> None:
    payload = msgspec.msgpack.encode({"type": "send_job", "job": [7, 8, 9, 1, "a", 5]})
    (unread,) = read(wire.worker_reader(), framed(payload))
    assert str(unread) == "send_job.job.recipient: Expected `str`, got `int`"
    assert unread.item is ipc.JobSpec
    assert unread.fields == {"id": 7, "epoch": 8, "attempt": 9, "token": 1, "device_id": "a"}


def test_of_an_outcome_that_cannot_be_read_the_rest_is_known() -> None:
    payload = msgspec.msgpack.encode({"type": "outcomes", "outcomes": [OUTCOME, [7, 8, 9, 1, "sent", "m", 5]]})
    outcomes, unread = read(wire.supervisor_reader(), framed(payload))
    assert outcomes == ipc.Outcomes([OUTCOME])
    assert str(unread) == "outcomes.outcomes[].error: Expected `str | null`, got `int`"
    assert unread.fields == {"id": 7, "epoch": 8, "attempt": 9, "token": 1, "verdict": Verdict.SENT, "message_id": "m"}


def test_an_outcome_whose_verdict_is_none_is_not_taken_for_one() -> None:
    payload = msgspec.msgpack.encode({"type": "outcomes", "outcomes": [[7, 8, 9, 1, "perhaps"]]})
    outcomes, unread = read(wire.supervisor_reader(), framed(payload))
    assert outcomes == ipc.Outcomes([])
    assert str(unread) == "outcomes.outcomes[].verdict: Invalid enum value 'perhaps'"
    assert unread.fields == {"id": 7, "epoch": 8, "attempt": 9, "token": 1}


def test_a_device_of_the_setup_that_cannot_be_read_is_named_and_costs_no_other() -> None:
    setup = ipc.Setup("node", 3, "/j", "0" * 32, 90.0, {}, [DEVICE])
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(setup))
    fields["devices"].append(["b", "sandbox", "settings"])
    arrived, unread = read(wire.worker_reader(), framed(msgspec.msgpack.encode(fields)))
    assert arrived == setup
    assert str(unread) == "setup.devices[].settings: Expected `object`, got `str`"
    assert unread.fields["id"] == "b"


@pytest.mark.parametrize("size", [0, wire.MAX_MESSAGE + 1, 2**32 - 1])
def test_a_length_that_no_message_has_is_told_apart(size: int) -> None:
    messages = wire.worker_reader().feed(encode(ipc.Drain(1.0)) + size.to_bytes(4, "big") + b"rest")
    assert next(messages) == ipc.Drain(1.0)
    with pytest.raises(OutOfSyncError, match=f"a message of {size:,} bytes was announced"):
        next(messages)


# ---- anything at all

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from(["send_job", "setup", "outcomes", "devices", "sent", "type", "job"]),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.integers(-(2**63), 2**64 - 1), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(st.sampled_from(DIRECTIONS), st.lists(st.binary(max_size=100), max_size=10))
@settings(max_examples=200)
def test_random_bytes_are_reported_or_out_of_step(direction: Any, pieces: list[bytes]) -> None:
    reader, messages = direction
    mine = reader()
    try:
        found = read(mine, *pieces)
    except OutOfSyncError:
        return
    assert all(isinstance(what, (Undecodable, *{type(message) for message in messages})) for what in found)
    assert len(mine._buffer) <= sum(map(len, pieces))


@given(st.data())
@settings(max_examples=200)
def test_what_is_damaged_in_one_message_costs_no_other(data: st.DataObject) -> None:
    reader, known = data.draw(st.sampled_from(DIRECTIONS))
    messages = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=6))
    at = data.draw(st.integers(0, len(messages) - 1))
    payload = bytearray(encode(messages[at])[wire.HEADER :])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(payload)))
        payload[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    if not payload:
        return
    before, after = messages[:at], messages[at + 1 :]
    whole = encode(*before) + framed(bytes(payload)) + encode(*after)
    cut = data.draw(st.integers(0, len(whole)))
    found = read(reader(), whole[:cut], whole[cut:])
    assert found[: len(before)] == before
    assert found[len(found) - len(after) :] == after
    inner = found[len(before) : len(found) - len(after)]
    # Whatever it is now: another message, or a note that it cannot be read.
    assert inner
    assert all(isinstance(what, (Undecodable, *{type(message) for message in known})) for what in inner)


@given(
    st.sampled_from(DIRECTIONS),
    anything
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["send_job", "setup", "outcomes", "devices", "settled", "receipt"])},
        optional=dict.fromkeys(("job", "devices", "changed", "removed", "outcomes", "claims", "transports"), anything),
    )
    | st.lists(anything, max_size=14).map(lambda fields: {"type": "send_job", "job": fields})
    | st.lists(anything, max_size=14).map(lambda fields: {"type": "outcomes", "outcomes": [fields, OUTCOME]}),
)
@settings(max_examples=200)
def test_any_value_is_read_or_reported(direction: Any, value: Any) -> None:
    reader, known = direction
    found = read(reader(), framed(msgspec.msgpack.encode(value)), encode(known[0]))
    assert found[-1] == known[0]
    assert len(found) > 1
    assert all(str(what) for what in found)


@given(st.lists(st.sampled_from([2**70, "\ud83d", [2**70]]) | st.none() | st.text(), max_size=30))
@settings(max_examples=100)
def test_whatever_devices_hold_each_is_sent_or_named(values: list[Any]) -> None:
    devices = [ipc.DeviceSpec(str(number), "sandbox", {"x": value}) for number, value in enumerate(values)]
    data, failed = wire.encode([ipc.Devices(devices, ["gone"]), ipc.Drain(1.0)])
    *parts, last = read(wire.worker_reader(), bytes(data))
    assert last == ipc.Drain(1.0)
    assert [gone for part in parts for gone in part.removed] == ["gone"]
    sent = [int(device.id) for part in parts for device in part.changed]
    assert sent == sorted(sent)
    assert sorted(sent + [int(what.item.id) for what in failed]) == list(range(len(devices)))


def test_a_reader_keeps_no_more_than_what_is_not_complete() -> None:
    reader = wire.worker_reader()
    for _ in range(1000):
        assert len(read(reader, encode(*TO_WORKER))) == len(TO_WORKER)
    assert len(reader._buffer) == 0
