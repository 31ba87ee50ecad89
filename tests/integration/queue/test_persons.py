"""The addresses of one person: an opt-out holds for each of them, whenever it is learned; and what new rules change."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import psycopg
import pytest

from shardd.queue.cycle import Settlement
from shardd.queue.database import Database
from shardd.queue.jobs import Jobs
from shardd.queue.opt_outs import OptOuts
from shardd.queue.records import ClaimRequest
from shardd.supervisor.scheduling.device_queue import FIRST_POSITION
from tests.support.queue_rows import add_devices, add_group, connect, insert_jobs, row_of, take_epoch

NUMBERING = files("shardd.queue").joinpath("migrations", "numbering.sql").read_bytes()
INSERT = "INSERT INTO shardd.opt_outs (recipient, note) VALUES (%s, 'by letter')"


@pytest.fixture
def owner(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with connect(dsn) as connection:
        yield connection


def listed(owner: psycopg.Connection[Any]) -> set[str]:
    return {address for (address,) in owner.execute("SELECT address FROM shardd.opt_outs")}


async def test_an_opt_out_spreads_over_all_that_is_known_of_a_person(
    database: Database, owner: psycopg.Connection[Any]
) -> None:
    opt_outs = OptOuts(database)
    chain = [("6281100001", "551@lid"), ("6281100002", "551@lid"), ("6281100002", "552@lid")]
    await opt_outs.learn([*chain, *chain, ("6281100009", "559@lid")])
    owner.execute(INSERT, ["+6281100001"])
    person = {"6281100001", "6281100002", "551@lid", "552@lid"}
    assert listed(owner) == person
    await opt_outs.learn([("6281100003", "552@lid"), ("6281100009", "560@lid")])
    assert listed(owner) == person | {"6281100003"}
    assert await opt_outs.opted_out(["6281100003", "6281100009", "559@lid"]) == {"6281100003"}
    rows = owner.execute("SELECT source, note FROM shardd.opt_outs WHERE address = '551@lid'").fetchall()
    assert rows == [("producer", "the same person as 6281100001")]


async def test_an_opt_out_of_the_same_moment_is_spread_later(
    dsn: str, database: Database, owner: psycopg.Connection[Any]
) -> None:
    with psycopg.connect(dsn) as undecided:
        undecided.execute(INSERT, ["+6281100001"])
        await OptOuts(database).learn([("6281100001", "551@lid")])
        undecided.commit()
    assert listed(owner) == {"6281100001"}
    await OptOuts(database).refresh()
    assert listed(owner) == {"6281100001", "551@lid"}


async def test_a_number_is_written_to_as_it_was_written_and_known_by_its_address(dsn: str, database: Database) -> None:
    """Some platforms find an account in Brazil under one form of its number only."""
    add_devices(dsn, "d1")
    written = ["+551187654321", "+5511987654322", "+54 11 2345 6789", "8888888888:3@lid", "120363041234567890@g.us"]
    for recipient in written:
        insert_jobs(dsn, "d1", recipient=recipient)
    epoch = await take_epoch(database)
    cycle = await Jobs(database).cycle(
        Settlement(), [ClaimRequest("d1", "/marketing", epoch, FIRST_POSITION, len(written))]
    )
    assert [(job.spec.recipient, job.claim.address) for job in cycle.claimed] == [
        ("+551187654321", "5511987654321"),
        ("+5511987654322", "5511987654322"),
        ("+541123456789", "5491123456789"),
        ("8888888888@lid", "8888888888@lid"),
        ("120363041234567890@g.us", "120363041234567890@g.us"),
    ]


async def test_a_job_of_a_group_takes_a_region_only_if_all_agree(dsn: str, database: Database) -> None:
    add_devices(dsn, "wa", transport="whatsapp")
    add_devices(dsn, "wb", transport="wablas")
    add_devices(dsn, "box")
    for name, members in {"agree": ("wa", "wb"), "differ": ("wa", "box"), "nobody": ()}.items():
        add_group(dsn, name, *members)
    await OptOuts(database).configure([], {"whatsapp": "62", "wablas": "62", "cloud_api": "49"})

    def address(recipient: str, **target: str | None) -> str:
        (job,) = insert_jobs(dsn, "wa", recipient=recipient, **{"device_id": None, **target})
        with connect(dsn) as connection:
            (found,) = connection.execute("SELECT address FROM shardd.jobs WHERE id = %s", [job]).fetchall()
        return str(found[0])

    assert address("0812 3456 7890", device_id="wa") == "6281234567890"
    assert address("0812 3456 7890", device_group="agree") == "6281234567890"
    # The sandbox reads numbers by the codes of all transports, which differ.
    for group, reason in {"differ": "several countries", "nobody": "without its country"}.items():
        with pytest.raises(psycopg.errors.CheckViolation, match=reason) as refused:
            address("0812 3456 7890", device_group=group)
        assert refused.value.diag.column_name == "recipient"
        assert address("+62 812 3456 7890", device_group=group) == "6281234567890"


async def test_addresses_are_learned_in_one_order(database: Database, owner: psycopg.Connection[Any]) -> None:
    """Of two nodes that learn the same at once, neither waits for what the other waits for."""
    pairs = [(f"62811{n:05}", f"{n * 7919 % 1000 + 10000}@lid") for n in range(1000)]
    await OptOuts(database).learn(pairs)
    rows = owner.execute("SELECT address, other FROM shardd.same_person ORDER BY ctid").fetchall()
    assert rows == owner.execute("SELECT address, other FROM shardd.same_person ORDER BY 1, 2").fetchall()
    assert len(rows) == 1000


async def test_a_hidden_id_is_not_read_as_a_number(database: Database, owner: psycopg.Connection[Any]) -> None:
    """This one has as many characters as a number of North America that is written with its prefix 1."""
    owner.execute(INSERT, ["11234567@lid"])
    await OptOuts(database).refresh()
    assert listed(owner) == {"11234567@lid"}


async def test_new_rules_change_what_is_stored(dsn: str, database: Database, owner: psycopg.Connection[Any]) -> None:
    """As if Indonesia's numbers that begin with 899 began with 8990 from now on."""
    add_devices(dsn, "d1")
    opt_outs = OptOuts(database)
    waiting, other, gone = (insert_jobs(dsn, "d1", recipient=f"+628991230{n}")[0] for n in (1, 2, 3))
    owner.execute("SELECT shardd.end_jobs(array[%s::bigint], 'cancelled', NULL, NULL)", [gone])
    for number in ("+6289912305", "+4915112345678"):
        owner.execute(INSERT, [number])
    await opt_outs.learn([("6289912307", "77777@lid")])
    await opt_outs.refresh()
    before = owner.execute("SELECT id, address, number FROM shardd.jobs ORDER BY id").fetchall()
    owner.execute(
        "UPDATE shardd.country_codes SET form = '^899(?!0)[0-9]{5,}$', form_at = 3, form_cut = 0, form_add = '0' "
        "WHERE code = '62'"
    )
    await opt_outs.refresh()
    assert owner.execute("SELECT id, address, number FROM shardd.jobs ORDER BY id").fetchall() == before
    owner.execute("UPDATE shardd.settings SET value = '[99, 0, 0, 0]' WHERE name = 'phone_numbers.version'")
    owner.execute(NUMBERING)  # leaves a newer table as it is, and derives the shortcut from it
    await opt_outs.refresh()
    rows = owner.execute("SELECT id, address, number FROM shardd.jobs ORDER BY id").fetchall()
    assert rows == [(waiting, "62899012301", "6289912301"), (other, "62899012302", "6289912302")]
    assert {"6289912305", "62899012305", "4915112345678"} <= listed(owner)
    owner.execute(INSERT, ["77777@lid"])
    assert {"6289912307", "62899012307"} <= listed(owner)
    owner.execute("SELECT shardd.bring_back(array[%s::bigint])", [gone])
    assert owner.execute("SELECT address FROM shardd.jobs WHERE id = %s", [gone]).fetchone() == ("62899012303",)
    assert row_of(dsn, waiting)["state"] == "queued"
