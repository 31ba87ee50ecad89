"""Events as a stream, with a token: nothing is left out, and the stream ends with the token."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from jsonschema import Draft202012Validator

from tests.fixtures.api import HELLO, MakeProgram
from tests.support.api import PATIENCE, Program
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer


class Stream:
    """What a client of server-sent events has read."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.last = ""

    async def next(self) -> dict[str, str]:
        """The next event: its fields. Raises EOFError."""
        event: dict[str, str] = {}
        while True:
            line = (await self._answer.content.readline()).decode()
            if not line:
                raise EOFError
            name, _, value = line.rstrip("\n").partition(": ")
            if name and value:
                event[name] = value
            self.last = event.get("id", self.last)
            if line == "\n" and "data" in event:
                return event


@asynccontextmanager
async def follow(program: Program, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    headers["Authorization"] = f"Bearer {program.token}"
    url = f"{program.site}/api/v1/events/stream{query}"
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield Stream(answer)


async def sent(stream: Stream) -> tuple[int, dict[str, Any]]:
    """The next job.sent, and its job."""
    while True:
        event = await stream.next()
        data = json.loads(event["data"])
        assert (event["event"], event["id"]) == (data["kind"], data["position"])
        if event["event"] == "job.sent":
            return data["job_id"], data


async def to_the_end(stream: Stream) -> None:
    """Raises EOFError, or what the client says about a connection that breaks off."""
    while True:
        await stream.next()


async def test_a_client_that_connects_again_goes_on_where_it_was(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    look, send = await make_program("look"), await make_program("send")

    async def insert() -> int:
        return int((await send.post("/jobs", HELLO)).json["jobs"][0]["id"])

    earlier = await insert()
    await producer.until_finished(daemon, 1)
    async with follow(look) as stream:
        first = await insert()
        job, data = await sent(stream)
        assert job == first, "from now on"
        last = stream.last
    document = (await look.get("/openapi.json")).json
    content = document["paths"]["/events/stream"]["get"]["responses"]["200"]["content"]
    schema = {**content["text/event-stream"]["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(data)

    missed = await insert()
    await producer.until_finished(daemon, 3)
    async with follow(look, **{"Last-Event-ID": last}) as stream:
        assert (await sent(stream))[0] == missed
        latest = await insert()
        assert (await sent(stream))[0] == latest
    async with follow(look, "?after=0-0&kinds=job.sent") as stream:
        assert [(await sent(stream))[0] for _ in range(4)] == [earlier, first, missed, latest]
    refused = await look.get("/events/stream", headers={"Last-Event-ID": "x"})
    assert (refused.status, refused.json["field"]) == (400, "Last-Event-ID")


async def test_a_stream_ends_with_its_token_and_with_the_daemon(
    daemon: Daemon, devices: None, make_program: MakeProgram
) -> None:
    look, send = await make_program("look"), await make_program("send")
    async with follow(look) as stream, follow(send) as other:
        assert (await Command(daemon.config_file)("token", "remove", "look-1")).code == 0
        await send.post("/jobs", HELLO)
        with pytest.raises(EOFError):
            await to_the_end(stream)
        assert (await sent(other))[0] > 0
        assert await daemon.stop() == 0
        with pytest.raises((EOFError, aiohttp.ClientPayloadError)):
            await to_the_end(other)
