"""Faults of WhatsApp, all at the same time: one daemon lives through the cases of a test module, each on a device of its own.

So each case shows also that the others do not disturb it. A module has a `CASES`; its first test starts them all, each test waits
for its own case, and the last one looks at what all of them left behind.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.command import Command
from tests.fix_postgres import Cluster
from tests.whatsapp_fleet import Fleet, Phone
from tests.whatsapp_server.launch import ServerProcess

PROBE_AFTER = 1.0
RESTRICTED_FOR = 12.0
CONNECT_TIMEOUT = 8.0
ABSENT = "6281999999999"
"""A number that is not on WhatsApp."""

Case = Callable[["Faults", Phone], Awaitable[None]]


class Cases(dict[str, Case]):
    """The cases of a module, by name."""

    def add(self, case: Case) -> Case:
        self[case.__name__] = case
        return case


class Faults:
    """The fleet, and what every case does with it."""

    def __init__(self, fleet: Fleet, witness: Phone) -> None:
        self.fleet = fleet
        self.control = fleet.server.control
        self.witness = witness
        self.expected: dict[str, tuple[str, str]] = {}
        """Device → its state in the end, and what `shardd device show` says that a person does about it."""

    def strike(self, phone: Phone, kind: str, at: str, **details: object) -> None:
        self.control.fault(kind, at, device=phone.name, **details)  # type: ignore[arg-type] # passed on as they are

    def send(self, phone: Phone, to: str | None = None, *, on_doubt: str = "hold") -> tuple[int, str]:
        """A job's id and its body, which no other job has."""
        (row,) = self.fleet.rows("SELECT count(*) AS jobs FROM shardd.outcomes")
        body = f"{phone.id} after {row['jobs']}"
        return self.fleet.send(phone, body, to, on_doubt=on_doubt), body

    async def works(self, phone: Phone, to: str | None = None) -> None:
        """The device sends, and is called ready."""
        job, body = self.send(phone, to)
        await self.fleet.job_is(job, "sent")
        assert len(self.fleet.seen(body)) == 1
        assert self.fleet.device(phone)["state"] == "ready"

    def arrivals(self, body: str) -> list[str]:
        """What the server did each time that something with this text came in."""
        return [a.outcome for m in self.fleet.seen(body, accepted_only=False) for a in m.arrivals]

    async def waits(self, phone: Phone, job: int, why: str) -> None:
        """The job waits with an error that names the reason, costs no attempt, and others are sent meanwhile."""
        await self.fleet.until(lambda: why in (self.fleet.job(job)["error"] or ""))
        row = self.fleet.job(job)
        assert (row["state"], row["failures"]) == ("queued", 0), row
        before = len(self.fleet.logins(phone)), len(self.control.messages(sender=phone.number, accepted_only=False))
        second, _ = self.send(phone)
        await self.works(self.witness)
        assert self.fleet.job(second)["state"] == "queued"
        assert before == (
            len(self.fleet.logins(phone)),
            len(self.control.messages(sender=phone.number, accepted_only=False)),
        )


@dataclass(frozen=True)
class Running:
    """Every case of a module, under way."""

    faults: Faults
    tasks: dict[str, asyncio.Task[None]]

    async def end(self) -> None:
        """Nothing was sent twice, no worker died, people are told the truth, and nothing but JSON is in the log."""
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        fleet, control = self.faults.fleet, self.faults.control
        daemon = fleet.daemons[0]
        ran = await Command(daemon.config_file)("device", "list", "--json")
        shown = {row["id"]: row for row in ran.json}
        for device, (state, to_do) in self.faults.expected.items():
            assert shown[device]["state"] == state
            assert to_do in shown[device]["to_do"]
        assert [shard["restarts"] for shard in (await daemon.status())["shards"]] == [0, 0]
        assert control.doubled() == []
        assert control.resent() == []
        fleet.check_one_client_each()
        assert await daemon.stop() == 0
        assert control.stats()["online"] == 0
        assert not control.events("server_error") + control.events("protocol_error")
        for line in daemon.log_file.read_text().splitlines():
            json.loads(line)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    request: pytest.FixtureRequest,
    whatsapp_process: ServerProcess,
    fleet_cluster: tuple[Cluster, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Running]:
    """The `CASES` of the module that asks."""
    cases: Cases = request.module.CASES
    whatsapp_process.control.start_over()
    cluster, prepared = fleet_cluster
    name = cluster.create_database(prepared)
    fleet = Fleet(whatsapp_process, cluster.dsn(name), lambda: tmp_path_factory.mktemp("faults"))
    fleet.server.control.not_on_whatsapp(ABSENT)
    daemon = fleet.daemon(
        transports={
            "whatsapp": {
                "connect_timeout": f"{CONNECT_TIMEOUT:g}s",
                "answer_timeout": "14s",
                "probe_after": f"{PROBE_AFTER:g}s",
                "restricted_for": f"{RESTRICTED_FOR:g}s",
            }
        }
    )
    witness, *phones = fleet.add(len(cases) + 1)
    await daemon.start()
    faults = Faults(fleet, witness)
    tasks = {
        case: asyncio.ensure_future(act(faults, phone))
        for (case, act), phone in zip(cases.items(), phones, strict=True)
    }
    yield Running(faults, tasks)
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    await fleet.close()
    cluster.drop_database(name)
