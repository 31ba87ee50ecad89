"""`shardd event list --follow`: a process that runs until it is stopped."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import PIPE
from typing import Any

import pytest

from tests.support.command import PATIENCE, PROGRAM, Command
from tests.support.queue_rows import add_devices, connect, insert_jobs


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["people", "programs"])
async def test_it_shows_the_newest_and_goes_on_with_what_comes(shardd: Command, dsn: str, options: list[str]) -> None:
    add_devices(dsn, "a", "b")
    arguments = ("event", "list", "--follow", "--limit", "1", *options)
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), *arguments, env=shardd.environ, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None

    async def line() -> Any:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            text = (await process.stdout.readline()).decode()
        return json.loads(text)["data"]["device_id"] if options else text.split()[4]

    try:
        assert await line() == "b"
        for device in ("a", "b"):
            with connect(dsn) as connection:
                connection.execute("UPDATE shardd.devices SET state = 'banned' WHERE id = %s", [device])
            assert await line() == device
    finally:
        process.send_signal(signal.SIGINT)
        _, said = await process.communicate()
    assert (process.returncode, said) == (130, b"")


async def test_without_events_it_says_so(shardd: Command) -> None:
    assert (await shardd("event", "list")).out == "no such events\n"
    assert (await shardd("event", "list", "--json")).json == []
    assert (await shardd("webhook", "list")).out == "no webhooks: define them in the config file, below `webhooks:`\n"


async def test_what_an_operator_does_is_told(shardd: Command, dsn: str) -> None:
    add_devices(dsn, "a")
    (job,) = insert_jobs(dsn, "a", metadata='{"cart": 7}')
    assert (await shardd("job", "cancel", job)).code == 0
    assert (await shardd("job", "retry", job)).code == 0
    assert (await shardd("device", "pause", "a", "--why", "holiday")).code == 0
    assert (await shardd("device", "resume", "a")).code == 0
    rows = (await shardd("event", "list", "--json")).json
    assert [(row["kind"], row["job_id"], row["data"].get("to")) for row in rows] == [
        ("device.state", None, "ready"),
        ("job.cancelled", job, None),
        ("job.retried", job, None),
        ("device.state", None, "paused"),
        ("device.state", None, "ready"),
    ]
    assert [row["data"].get("metadata") for row in rows[1:3]] == [{"cart": 7}, {"cart": 7}]
    assert rows[3]["data"]["reason"] == "holiday"
