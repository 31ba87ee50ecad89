"""The operator of the storm decides doubts by what was delivered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from stormlib import operators
from stormlib.command import Command
from stormlib.log import Log
from stormlib.operators import Operator

from tests.support.daemon import Daemon, Producer


async def test_an_operator_decides_by_what_was_delivered(
    make_daemon: Callable[..., Daemon], producer: Producer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "DECIDED", 1.0)
    daemon = make_daemon(transports={"sandbox": {"in_doubt_rate": 1.0}})
    producer.add_devices(1)
    await daemon.start()
    producer.execute(
        "INSERT INTO shardd.jobs (device_id, recipient, body, reference) "
        "SELECT 'd1', '+4915112345' || g, 'x', 'r-' || g FROM generate_series(101, 102) g"
    )
    await producer.until_finished(daemon, 2)
    log = Log(tmp_path / "log")
    command = Command(tmp_path / "operator", producer.dsn, os.environ, log)
    operator = Operator(command, producer.dsn, ["d1"], [], lambda: {"r-101"}, log=log, seed=1, every=0.01)
    decisions = operator.acts.decisions
    assert [await operator.decide(), await operator.decide(), await operator.decide()] == [True, True, False]
    over = asyncio.Event()
    over.set()
    await operator.run(over)
    await producer.until_finished(daemon, 2)
    states = dict(producer.execute("SELECT reference, state FROM shardd.outcomes"))
    ids = dict(producer.execute("SELECT reference, id FROM shardd.outcomes"))
    assert (decisions[ids["r-101"]].state, states["r-101"]) == ("sent", "sent")
    # What was retried is in doubt once more.
    assert (decisions[ids["r-102"]].state, states["r-102"]) in [("failed", "failed"), ("queued", "in_doubt")]
    log.close()
