"""A producer that knows no manners, with the rights of a producer, against a running daemon.

Beside each of its moves somebody else's good job is inserted. Whatever the moves were: the daemon and its workers are the same
processes as before, every good job was sent once, every other row was refused in words or came to a truthful end.

A longer run, with new random moves each time: SHARDD_ADVERSARIAL_EXAMPLES=5000 ./scripts/test tests/adversarial/test_producer.py
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from tests.adversarial.moves import Move, moves
from tests.fixtures.whatsapp_fleet import Fleet
from tests.support.command import Command
from tests.support.daemon import Daemon

_WANTED = os.environ.get("SHARDD_ADVERSARIAL_EXAMPLES")
EXAMPLES = int(_WANTED or 500)
"""Each has up to eight moves of up to three rows."""
LOOKS_EVERY = 20
"""Examples after which the producer connects anew."""
REFUSED = ("22", "23", "25", "28", "42", "54", "0A", "55")
"""Classes of SQLSTATE that say that the statement is not acceptable; what is a defect or takes too long is in none."""


class Attack:
    """Moves of the producer, and the good jobs between them."""

    def __init__(self, fleet: Fleet, devices: list[str], groups: list[str], campaigns: list[str]) -> None:
        self._fleet = fleet
        self._producer_dsn = make_conninfo(fleet.dsn, user="producer", options="-c statement_timeout=20s")
        self._moves = moves(devices, groups, campaigns)
        self._devices = devices
        self.good: list[int] = []
        self.refused: Counter[str] = Counter()
        self.done = 0

    def run(self) -> None:
        """Draw and do; raises AssertionError with the moves that were answered badly."""

        @settings(
            max_examples=EXAMPLES,
            derandomize=_WANTED is None,
            database=None,
            # What was done to the daemon cannot be undone, so that an example cannot be made smaller by doing it again.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(self._moves, st.integers(0, 10**6))
        def attack(moves: list[Move], number: int) -> None:
            if self._example % LOOKS_EVERY == 0:
                self._connect()
            self._example += 1
            for move in moves:
                self._send_good(number)
                self._do(move)

        self._example = 0
        self._hostile: psycopg.Connection[Any] | None = None
        with psycopg.connect(make_conninfo(self._fleet.dsn, user="producer"), autocommit=True) as self._good_producer:
            try:
                attack()
            finally:
                self._disconnect()

    def _connect(self) -> None:
        self._disconnect()
        self._hostile = psycopg.connect(self._producer_dsn, autocommit=True)

    def _disconnect(self) -> None:
        if self._hostile is not None:
            self._hostile.close()

    def _send_good(self, number: int) -> None:
        row = self._good_producer.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) VALUES (%s, %s, %s) RETURNING id",
            (self._devices[number % len(self._devices)], f"+62815{len(self.good):08}", f"good {len(self.good)}"),
        ).fetchone()
        assert row is not None
        self.good.append(row[0])

    def _do(self, move: Move) -> None:
        assert self._hostile is not None
        self.done += 1
        error: psycopg.Error | UnicodeEncodeError | None = None
        try:
            move.act(self._hostile)
        except (psycopg.Error, UnicodeEncodeError) as refusal:
            error = refusal
        if error is not None:
            self.refused[_check_refusal(move, error)] += 1


def _check_refusal(move: Move, error: psycopg.Error | UnicodeEncodeError) -> str:
    """The SQLSTATE of a refusal that is one in words, and no defect, no crash and no statement that took too long."""
    if isinstance(error, UnicodeEncodeError) or error.sqlstate is None:
        # psycopg's own: a NUL, or half of a surrogate pair.
        assert isinstance(error, psycopg.DataError | UnicodeEncodeError), f"{move} lost its connection: {error}"
        return "client"
    assert error.sqlstate[:2] in REFUSED, f"{move} was answered {error.sqlstate} {error}"
    assert error.diag.message_primary
    # A column that was left out, PostgreSQL names in words of its own.
    if error.diag.schema_name == "shardd" and error.diag.column_name and error.sqlstate != "23502":
        assert error.diag.message_hint, f"{move} was refused without a hint: {error}"
    return error.sqlstate


@pytest.mark.timeout(60 + 10 * EXAMPLES)
async def test_whatever_a_producer_does_every_good_job_is_sent_and_nothing_restarts(fleet: Fleet) -> None:
    phones = fleet.add(3)
    with psycopg.connect(fleet.dsn, autocommit=True) as owner:
        owner.execute(
            "INSERT INTO shardd.devices (id, transport) SELECT 's' || g, 'sandbox' FROM generate_series(1, 5) g"
        )
        owner.execute("INSERT INTO shardd.device_groups (id) VALUES ('g1')")
        owner.execute(
            "INSERT INTO shardd.device_group_members SELECT 'g1', id FROM shardd.devices WHERE transport = 'sandbox'"
        )
        owner.execute("INSERT INTO shardd.campaigns (id) VALUES ('c1'), ('c2')")
    devices = [*(phone.id for phone in phones), *(f"s{n}" for n in range(1, 6))]
    # All of it in one run: the moves, the retries of what fails for now, and the sends.
    daemon = fleet.daemon(queue={"backoff": {"first": "50ms", "cap": "200ms"}, "send_timeout": "20s"})
    await daemon.start()
    before = _processes(await daemon.status())

    attack = Attack(fleet, devices, ["g1"], ["c1", "c2"])
    await asyncio.to_thread(attack.run)

    await _until_at_rest(fleet, daemon, attack.good)
    status = await daemon.until(lambda status: bool(status["healthy"]))
    assert _processes(status) == before, "a process was replaced"
    assert not status["totals"]["in_doubt"]
    assert attack.done > EXAMPLES
    taken = fleet.rows("SELECT count(*) FROM shardd.outcomes WHERE id <> ALL (%s)", attack.good)[0]["count"]
    assert min(taken, attack.refused.total()) > EXAMPLES / 3, (
        f"the moves prove little: {taken} taken, refused {attack.refused}"
    )
    log = [json.loads(line) for line in daemon.log_file.read_text().split("\n")[:-1]]
    assert not [
        line for line in log if line["level"] == "critical" or "exception" in line or line.get("action") == "defect"
    ]
    _check_deliveries(fleet, daemon, {phone.id for phone in phones})
    await _check_screens(Command(daemon.config_file))
    assert await daemon.stop() == 0


def _processes(status: dict[str, Any]) -> tuple[int, list[tuple[int, int]]]:
    return status["pid"], [(shard["pid"], shard["restarts"]) for shard in status["shards"]]


async def _until_at_rest(fleet: Fleet, daemon: Daemon, good: list[int]) -> None:
    """Until every good job is sent, nobody has a job in flight, and what is left waits for a reason that it names."""
    deadline = time.monotonic() + 60 + 2 * EXAMPLES
    while True:
        restless = fleet.rows(
            "SELECT id, state, waits_for, due_at, error FROM shardd.outcomes WHERE id = ANY (%s) AND state <> 'sent' "
            "UNION ALL SELECT id, state, waits_for, due_at, error FROM shardd.outcomes WHERE id <> ALL (%s) "
            "AND state NOT IN ('sent', 'failed', 'expired', 'opted_out', 'cancelled') "
            "AND NOT (state = 'scheduled' AND (due_at > now() + interval '1 minute' OR waits_for LIKE '%%order group%%'))",
            *(good, good),
        )
        if not restless:
            return
        assert time.monotonic() < deadline, f"{len(restless)} do not rest: {restless[:5]}\n{daemon.log_tail(30)}"
        await daemon.wait_change()


def _check_deliveries(fleet: Fleet, daemon: Daemon, whatsapp_devices: set[str]) -> None:
    """What is called sent arrived once, and nothing else did."""
    sent = fleet.rows("SELECT id, device_id FROM shardd.outcomes WHERE state = 'sent'")
    delivered = Counter(message["job"] for message in daemon.messages())
    assert delivered == Counter(row["id"] for row in sent if row["device_id"] not in whatsapp_devices)
    arrived = [message for message in fleet.server.control.messages() if not message.error]
    assert len(arrived) == sum(row["device_id"] in whatsapp_devices for row in sent)


async def _check_screens(shardd: Command) -> None:
    """No list fails because of one row, for people or for programs."""
    for noun in ("job", "campaign", "event", "device", "group", "opt-out"):
        for arguments in ((noun, "list"), (noun, "list", "--json")):
            shown = await shardd(*arguments)
            assert (shown.code, "Traceback" in shown.err) == (0, False), shown
            assert not any(ord(character) < 32 and character not in "\n\t" for character in shown.out), arguments
    status = await shardd("status", "--json")
    assert json.loads(status.out)["healthy"]
