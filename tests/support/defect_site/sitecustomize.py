"""Injects the bug that SHARDD_TEST_DEFECT names into the communication of shardd's processes, to test its consequences.

A job with the body `torn` is the trigger of several. `job`: its recipient is encoded as a number. `send`: its message is not
msgpack. `outcomes`: each worker's first message with outcomes is not msgpack. `outcome N`: no message with the outcome of job N
is msgpack. `step down`, `step up`: the message with that job, or the first with outcomes, starts with an impossible length.
`settle`: settling the claims of a dead worker fails the first time. `hear`: so does receiving outcomes. `encoder`: that job, or
a device with such a setting, cannot be encoded. `worker`: every worker ends at once with 70.
`webhook`: the task of each webhook fails. `clock N`: the clock is N seconds ahead.
"""

from __future__ import annotations

import os
import sys
from typing import Any

defect = os.environ.get("SHARDD_TEST_DEFECT")


def fail_once(owner: Any, name: str) -> None:
    """Make the first call of a function fail."""
    real = getattr(owner, name)

    def failing(*args: Any, **options: Any) -> Any:
        setattr(owner, name, real)
        raise LookupError("planted")

    setattr(owner, name, failing)


def fail_to_settle() -> None:
    """See above."""
    from shardd.supervisor.dispatch import recovery  # noqa: PLC0415  # not loaded in every process with this folder on its path

    fail_once(recovery, "verdicts")


def fail_to_hear() -> None:
    """See above."""
    from shardd.supervisor.dispatch.router import Router  # noqa: PLC0415

    fail_once(Router, "outcomes")


def fail_webhooks() -> None:
    """See above."""
    from shardd.supervisor.outbox.endpoint import Endpoint  # noqa: PLC0415

    async def run(_: Endpoint) -> None:
        raise LookupError("planted")

    Endpoint.run = run  # type: ignore[method-assign]


def set_clock(ahead: float) -> None:
    """See above."""
    import time  # noqa: PLC0415

    real = time.time
    time.time = lambda: real() + ahead


def refuse_to_encode() -> None:
    """See above."""
    from shardd import ipc, wire  # noqa: PLC0415

    real = wire._encoder

    class Encoder:
        encode = staticmethod(real.encode)

        @staticmethod
        def encode_into(message: Any, data: bytearray, place: int) -> None:
            torn_job = isinstance(message, ipc.SendJob) and message.job.body == "torn"
            devices = message.changed if isinstance(message, ipc.Devices) else []
            devices = message.devices if isinstance(message, ipc.Setup) else devices
            if torn_job or any("torn" in device.settings for device in devices):
                data += b"half a message"
                raise OverflowError("planted")
            real.encode_into(message, data, place)

    wire._encoder = Encoder


def damage_messages(defect: str) -> None:
    """Make some messages unreadable when they are encoded."""
    from shardd import ipc, wire  # noqa: PLC0415

    put = wire._put
    kind, _, number = defect.partition(" ")
    told: list[Any] = []

    def has_torn_job(message: Any) -> bool:
        return isinstance(message, ipc.SendJob) and message.job.body == "torn"

    def tells_of(message: Any) -> bool:
        """Whether it is the first message with outcomes, or contains the outcome of this job."""
        if not isinstance(message, ipc.Outcomes):
            return False
        told.append(message)
        return any(str(outcome.id) == number for outcome in message.outcomes) if kind == "outcome" else len(told) == 1

    def put_and_damage(message: Any, data: bytearray, unsent: list[Any]) -> None:
        begin = len(data)
        put(message, data, unsent)
        body = begin + wire.HEADER
        if not (has_torn_job(message) if defect in ("job", "send", "step down") else tells_of(message)):
            return
        if kind == "job":
            data[body:] = with_torn_recipient(bytes(data[body:]))
            data[begin:body] = (len(data) - body).to_bytes(wire.HEADER, "big")
        elif kind == "step":
            data[begin:body] = b"\xff" * wire.HEADER
        else:
            data[body:] = b"\xc1" * (len(data) - body)

    wire._put = put_and_damage


def with_torn_recipient(payload: bytes) -> bytes:
    """The same message with a number in place of a text."""
    import msgspec  # noqa: PLC0415

    from shardd import ipc  # noqa: PLC0415

    fields = msgspec.msgpack.decode(payload)
    place = ipc.JobSpec.__struct_fields__.index("recipient")
    fields["job"][place] = 5
    return msgspec.msgpack.encode(fields)


if defect == "settle":
    fail_to_settle()
elif defect == "hear":
    fail_to_hear()
elif defect == "webhook":
    fail_webhooks()
elif defect and defect.startswith("clock "):
    set_clock(float(defect.removeprefix("clock ")))
elif defect == "encoder":
    refuse_to_encode()
elif defect == "worker":
    if "shardd.worker" in sys.orig_argv:
        os._exit(70)
elif defect:
    damage_messages(defect)
