"""One storm: nodes start, producers insert while faults happen, everything is repaired, and the records are compared."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from stormlib import database_faults, faults, whatsapp_faults
from stormlib.checks import Finding, check
from stormlib.command import Command
from stormlib.operators import Acts, Operator
from stormlib.place import CAMPAIGNS, Place, Size, environ_of, prepared
from stormlib.plan import Fault, Kind, make_plan
from stormlib.producers import Asked, Producer, Range
from stormlib.records import ROWS, Delivery, Records, Span, Visit, read_rows, read_sandbox, read_witness
from stormlib.tables import Loss, Result, failover_times

QUIET_LIMIT = 240.0
"""Seconds, and six lease periods, in which fewer jobs must be left after the last repair, until none is, on a busy machine."""
START_LIMIT = 240.0
"""Seconds for the nodes to start."""
LOOK_EVERY = 0.2
LOOK_SHARE = 10.0
"""A look is followed by a pause that is so many times as long."""
PRODUCERS = 3
OPERATOR_EVERY = 2.0
"""Mean seconds between an operator's acts, each of which is some commands, a second of CPU time each."""
OF_PHONES = "w"
"""The producer that writes through WhatsApp devices."""
MAKERS: Mapping[str, faults.Make] = faults.MAKERS | database_faults.MAKERS | whatsapp_faults.MAKERS
CABLE = "pull node's cable"
LOSSES = frozenset(
    {"kill node", "stop node", "freeze node", "cut node from database", "part node from database", CABLE}
)
"""Kinds that take the shards of one node."""
OUTAGES = frozenset(
    {
        "restart database",
        "crash database",
        "fail over",
        "fail over behind",
        "refuse all",
        "freeze database",
        "commits hang",
    }
)
"""Kinds that stop all nodes."""
HOLDING = frozenset({"part node from WhatsApp", CABLE})
"""Kinds that hold back the ends of connections."""
SENT_AGAIN = 2.0
"""Until TCP has sent an end again after a cable was pulled: as many times as that took; each try comes after twice the time."""
PARKED = "SELECT id, state, coalesce(reason, '') FROM shardd.devices WHERE state <> 'ready'"
LIVE = (
    "SELECT count(*) FROM shardd.all_outcomes WHERE state IN ('queued', 'sending', 'scheduled') "
    "AND waits_for IS DISTINCT FROM 'the job before it in its order group' "
    "AND coalesce(waits_for, '') NOT LIKE '%% of its order group, which is in_doubt'"
)
"""Jobs that something still happens to."""


@dataclass(frozen=True)
class Options:
    """How a storm is to be."""

    seed: int
    seconds: float
    every: float = 0.1
    """Mean seconds between the acts of a producer."""
    size: Size = field(default_factory=Size)
    asynchronous: bool = False
    """Whether the standby may be behind when it is promoted."""
    package: Path | None = None
    """A folder that has another shardd for the nodes."""
    keep: bool = False
    """Keep the folder even if nothing was found."""


def tracks(*, whatsapp: bool, asynchronous: bool) -> Mapping[str, Mapping[str, Kind]]:
    """The kinds of faults of each track."""
    database = database_faults.KINDS | (database_faults.BEHIND if asynchronous else {})
    return {"nodes": faults.KINDS, "database": database} | ({"WhatsApp": whatsapp_faults.KINDS} if whatsapp else {})


async def run(options: Options, say: Callable[[str], None]) -> Result:
    """Run a storm to its end."""
    keep = options.keep
    async with prepared(options.size, options.package) as place:
        try:
            result = await _Storm(place, options, say).run()
            keep = keep or bool(result.findings)
        except Exception:
            keep = True
            raise
        finally:
            place.kept = keep
    return result


class _Storm:
    def __init__(self, place: Place, options: Options, say: Callable[[str], None]) -> None:
        self._place = place
        self._options = options
        self._say = say
        self._holders: dict[int, str] = {}
        """The node of each shard, as last seen."""
        self._losses: list[Loss] = []
        self._holds: list[Span] = []
        self._away: list[Span] = []
        self._made: Counter[str] = Counter()
        self._findings: list[Finding] = []

    async def run(self) -> Result:
        place, options = self._place, self._options
        self._say(f"the log is {place.log.path}")
        for node in place.nodes:
            node.start()
        await self._until_running()
        self._say("all shards run: the storm begins")
        producers = self._producers()
        calm = asyncio.Event()
        operator = self._operator()
        acting = [asyncio.create_task(producer.run(calm)) for producer in producers]
        acting.append(asyncio.create_task(operator.run(calm)))
        watching = asyncio.create_task(self._watch_leases())
        kinds = tracks(whatsapp=place.phones is not None, asynchronous=options.asynchronous)
        plan = make_plan(options.seed, options.seconds, options.size.ttl, options.size.nodes, kinds)
        began = time.monotonic()
        async with asyncio.TaskGroup() as following:
            for planned in plan.values():
                following.create_task(self._follow(planned, began))
            following.create_task(asyncio.sleep(options.seconds))
        calm.set()
        self._say("the storm is over: everything is repaired, and what is left is sent")
        await asyncio.gather(*acting)
        if place.setbacks:
            await operator.resume_all()
        await self._until_quiet()
        watching.cancel()
        await self._stop_nodes()
        return await self._compare(producers, operator.acts)

    def _producers(self) -> list[Producer]:
        place, options = self._place, self._options
        ranges = {
            f"p{number}": (Range(place.sandbox[number::PRODUCERS], CAMPAIGNS, sorted(place.groups)), options.every)
            for number in range(PRODUCERS)
        }
        if place.phones is not None:
            ranges[OF_PHONES] = (Range(place.phones.devices, recipients=place.phones.recipients), 5 * options.every)
        dsn = place.databases.dsn("producer")
        return [
            Producer(name, dsn, range_, log=place.log, seed=options.seed, every=every)
            for name, (range_, every) in ranges.items()
        ]

    def _operator(self) -> Operator:
        place, environ = self._place, environ_of(self._place, self._options.package)
        command = Command(place.folder / "operator", place.databases.dsn(), environ, place.log)
        return Operator(
            command, place.databases.dsn("producer"), place.sandbox, CAMPAIGNS,
            lambda: {one.reference for one in self._sandbox_deliveries()},
            log=place.log, seed=self._options.seed, every=OPERATOR_EVERY,
        )  # fmt: skip

    def _sandbox_deliveries(self) -> list[Delivery]:
        return read_sandbox({node.name: node.state_dir for node in self._place.nodes})

    async def _follow(self, planned: Sequence[Fault], began: float) -> None:
        """Make the faults of one track, one after the other."""
        for fault in planned:
            await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
            log, name = self._place.log, self._place.nodes[fault.node].name
            shards = frozenset(shard for shard, holder in self._holders.items() if holder == name)
            details = vars(fault) | {"planned": fault.at}
            del details["at"]
            at = log.write("fault", **details)
            async with MAKERS[fault.kind](self._place, fault) as struck:
                self._made[fault.kind] += bool(struck)
                log.write("made", number=fault.number, track=fault.track, struck=struck)
                if fault.kind in LOSSES and fault.length > 0:
                    self._losses.append(Loss(fault.kind, at, name, shards))
                if fault.kind in OUTAGES:
                    self._losses.append(Loss(fault.kind, at, "", frozenset(range(self._options.size.shards))))
                await asyncio.sleep(fault.length)
            end = log.write("repaired", number=fault.number, track=fault.track, kind=fault.kind)
            if fault.kind in HOLDING:
                again = (end - at) * SENT_AGAIN if fault.kind == CABLE else 0.0
                self._holds.append(Span(at, end + again, name))
            if fault.kind in LOSSES:
                self._away.append(Span(at, end, name))

    async def _watch_leases(self) -> None:
        query = "SELECT l.shard, n.name FROM shardd.leases l JOIN shardd.nodes n ON n.id = l.node_id WHERE expires_at > now()"
        while True:
            with suppress(psycopg.Error, TimeoutError):
                async with (
                    asyncio.timeout(2),
                    await psycopg.AsyncConnection.connect(
                        self._place.databases.dsn(),
                        autocommit=True,
                        connect_timeout=2,
                        target_session_attrs="read-write",
                    ) as connection,
                ):
                    self._holders = dict(await (await connection.execute(query)).fetchall())
            await asyncio.sleep(LOOK_EVERY)

    async def _until_running(self) -> None:
        async with asyncio.timeout(START_LIMIT):
            while not await self._all_run():  # noqa: ASYNC110  # other processes' state
                await asyncio.sleep(LOOK_EVERY)

    async def _all_run(self) -> bool:
        """Whether all nodes and all shards run."""
        found = await asyncio.gather(*(node.status() for node in self._place.nodes))
        running = sum(shard["state"] == "running" for status in found if status for shard in status["shards"])
        return running == self._options.size.shards and all(status and status["state"] == "running" for status in found)

    async def _until_quiet(self) -> None:
        """Wait until nothing more happens to any job, as long as they become fewer; what is left is a finding of the checks."""
        limit = QUIET_LIMIT + 6 * self._options.size.ttl
        least, since = float("inf"), time.monotonic()
        while (looked := time.monotonic()) < since + limit:
            ((live,),) = await self._place.databases.execute(LIVE, database="shardd")
            if not live and await self._all_run():
                return
            if live < least:
                least, since = live, looked
            # Counting a large backlog may take long.
            await asyncio.sleep(max(LOOK_EVERY, LOOK_SHARE * (time.monotonic() - looked)))
        for node in self._place.nodes:
            status = await node.status()
            problems = status["problems"] if status else "no answer"
            text = f"for {limit:g} s no fewer jobs than {least:g} were left, and {node.name} says: {problems}"
            self._findings.append(Finding("it recovers by itself", text))

    async def _stop_nodes(self) -> None:
        for node in self._place.nodes:
            code = await node.stop()
            if code != 0:
                self._findings.append(Finding("a planned stop succeeds", f"{node.name} ended with {code}"))
            if left := node.worker_pids():
                self._findings.append(Finding("a stop leaves no process", f"workers of {node.name}: {left}"))

    async def _compare(self, producers: Sequence[Producer], acts: Acts) -> Result:
        place = self._place
        asked: dict[str, Asked] = {}
        begun: dict[str, float] = {}
        confirmed: dict[str, float] = {}
        opted_out: dict[str, float] = {}
        for producer in producers:
            asked |= producer.ledger.asked
            begun |= producer.ledger.begun
            confirmed |= producer.ledger.confirmed
            opted_out |= producer.ledger.opted_out
        rows = read_rows(await place.databases.execute(ROWS, database="shardd"))
        deliveries = self._sandbox_deliveries()
        parked = [
            (str(row[0]), str(row[1]), str(row[2])) for row in await place.databases.execute(PARKED, database="shardd")
        ]
        visits: list[Visit] = []
        if place.phones is not None:
            visits = place.phones.visits()
            deliveries += place.phones.deliveries(visits)
            self._findings += [Finding("the WhatsApp server has no error", text) for text in place.phones.defects()]
        witness = read_witness(place.witness)
        records = Records(
            asked, confirmed, rows, deliveries, witness, visits, self._holds, parked, opted_out, place.groups, acts,
            begun, place.setbacks, self._away,
        )  # fmt: skip
        self._findings += check(records)
        for finding in self._findings:
            place.log.write("finding", promise=finding.promise, text=finding.text)
        return Result(
            seed=self._options.seed,
            seconds=self._options.seconds,
            folder=str(place.folder),
            states=Counter(row.state for row in rows),
            delivered=len(deliveries),
            by_whatsapp=sum(delivery.reference.startswith(f"{OF_PHONES}-") for delivery in deliveries),
            faults=self._made,
            acts=acts.done + Counter({"opt-outs": len(opted_out)}),
            failovers=failover_times(self._losses, deliveries, self._options.size.shards),
            findings=self._findings,
        )
