"""The words between supervisor and worker: every message survives its journey, and nonsense is refused."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardd import ipc

DEVICE = ipc.DeviceSpec("a", "whatsapp", {"region": "ID"}, "628:1@s.whatsapp.net", "socks5://proxy")
JOB = ipc.JobSpec(
    2**62, 9, 3, 2**62, "a", "+628123", "location", "body", None, None, None, {"latitude": 1.5, "longitude": -2}, 2e9
)
OUTCOME = ipc.Outcome(2**62, 9, 3, -(2**63), "unavailable", None, "why", 1.5, "banned", 1e9, "rate_limit", True)

TO_WORKER = [
    ipc.Setup("node", 3, 9, "/j", "0" * 32, 90.0, {"sandbox": {"latency_min": 0.1}}, [DEVICE], 1.0, True, "dsn"),
    ipc.Send([JOB, JOB]),
    ipc.Devices([DEVICE], ["b"]),
    ipc.Settled([(1, 2, 3, 4), (2**62, 3, 1, -(2**63))]),
    ipc.Drain(0.0),
    ipc.Lease(20.0, 2.5),
    ipc.LogLevel("debug"),
    ipc.Close(["a"], 4),
]
TO_SUPERVISOR = [
    ipc.Ready(4711),
    ipc.Heartbeat(0.1, 1, 2, 3, 4, 5, 6, 7, 8),
    ipc.Outcomes([OUTCOME]),
    ipc.DeviceChanged("a", "banned", "why", 2e9, 1e9),
    ipc.Receipt("a", ["x", "y"], "read", 1e9),
    ipc.Drained(),
    ipc.Closed(4),
]


def payload(frame: bytes) -> bytes:
    size = int.from_bytes(frame[:4], "big")
    assert len(frame) == 4 + size
    return frame[4:]


def test_every_message_to_a_worker_arrives() -> None:
    assert ipc.decode_to_worker(payload(ipc.encode(TO_WORKER))) == TO_WORKER
    assert {type(message) for message in TO_WORKER} <= set(get_args(ipc.ToWorker))


def test_every_message_to_the_supervisor_arrives() -> None:
    assert ipc.decode_to_supervisor(payload(ipc.encode(TO_SUPERVISOR))) == TO_SUPERVISOR
    assert {type(message) for message in TO_SUPERVISOR} <= set(get_args(ipc.ToSupervisor))


@given(
    st.text(),
    st.text(),
    st.integers(-(2**63), 2**63 - 1),
    st.dictionaries(st.text(), st.none() | st.floats(allow_nan=False)),
)
def test_every_text_and_number_arrives(body: str, recipient: str, number: int, details: dict[str, Any]) -> None:
    job = ipc.JobSpec(number, number, 1, 9, "a", recipient, body=body, details=details)
    assert ipc.decode_to_worker(payload(ipc.encode([ipc.Send([job])]))) == [ipc.Send([job])]


@pytest.mark.parametrize("message", TO_SUPERVISOR)
def test_a_worker_does_not_take_a_supervisors_place(message: Any) -> None:
    with pytest.raises(msgspec.DecodeError):
        ipc.decode_to_worker(payload(ipc.encode([message])))


@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_nothing_else_happens(data: bytes) -> None:
    for decode in (ipc.decode_to_worker, ipc.decode_to_supervisor):
        try:
            messages = decode(data)
        except msgspec.DecodeError:
            continue
        assert all(isinstance(message, get_args(ipc.ToWorker | ipc.ToSupervisor)) for message in messages)


@given(st.lists(st.tuples(st.integers(0, 65536), st.none() | st.integers(0, 1 << 20)), max_size=70))
@settings(max_examples=8, deadline=None)
def test_divided_jobs_fit_into_frames_and_keep_their_order(sizes: list[tuple[int, int | None]]) -> None:
    jobs = [
        ipc.JobSpec(
            number, 1, 1, 9, "a", "+628", body="\U0001f600" * body, media=None if media is None else "x" * media
        )
        for number, (body, media) in enumerate(sizes)
    ]
    parts = list(ipc.divide(jobs))
    assert [job for part in parts for job in part.jobs] == jobs
    assert all(part.jobs and len(ipc.encode([part])) <= 4 + ipc.MAX_FRAME for part in parts)


def test_ordinary_jobs_travel_in_one_message() -> None:
    jobs = [ipc.JobSpec(number, 1, 1, 9, "a", "+628", body="hello " * 20) for number in range(1000)]
    assert list(ipc.divide(jobs)) == [ipc.Send(jobs=jobs)]


def test_the_longest_jobs_of_the_largest_claim_fit() -> None:
    jobs = [ipc.JobSpec(number, 1, 1, 9, "a", "+628", body="\U0001f600" * 65536) for number in range(500)]
    parts = list(ipc.divide(jobs))
    assert len(parts) > 1
    assert all(len(ipc.encode([part])) <= 4 + ipc.MAX_FRAME for part in parts)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("plain", "plain"),
        ("ünï \U0001f600", "ünï \U0001f600"),
        ("a\0b", "a\N{REPLACEMENT CHARACTER}b"),
        ("half \ud83d", "half ?"),
        ("x" * 5000, "x" * ipc.MAX_TEXT),
    ],
)
def test_texts_of_strangers_become_what_a_database_can_hold(said: str, kept: str) -> None:
    outcome = ipc.Outcome(1, 1, 1, 9, "permanent", said, said)
    assert (outcome.error, outcome.message_id) == (kept, kept)
    changed = ipc.DeviceChanged("a", "banned", said)
    assert changed.reason == kept
    receipt = ipc.Receipt("a", ["ok", said], "read", 1.0)
    assert receipt.message_ids == ["ok", kept]
    messages = [ipc.Outcomes([outcome]), changed, receipt]
    assert ipc.decode_to_supervisor(payload(ipc.encode(messages))) == messages


@given(st.text(st.characters()))
def test_every_text_can_be_stored(said: str) -> None:
    kept = ipc.storable(said)
    assert "\0" not in kept
    assert kept.encode().decode() == kept
    assert len(kept) <= ipc.MAX_TEXT


def test_the_text_of_a_device_holds_no_secret() -> None:
    device = ipc.DeviceSpec("d1", "wablas", {"token": "geheim"}, None, "http://user:geheim@proxy")
    assert "geheim" not in repr(device)
    assert "d1" in repr(device)
