"""What commands change is in the audit log: by whom, with the change or not at all, and also when a command dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname
from typing import Any

import click
import psycopg
import pytest

from shardd.cli.acts import act_of
from shardd.cli.main import cli
from shardd.queue.acts import LOST_AFTER, UNFINISHED
from tests.fixtures.postgres import Cluster
from tests.support.command import PROGRAM, Command
from tests.support.daemon import Producer
from tests.support.queue_rows import add_campaigns, add_devices, connect, insert_jobs

LOOKS = (
    *("campaign list", "campaign show", "cluster list", "config check", "config sample", "db dsn", "db status"),
    *("dashboard acts", "dashboard password", "device list", "device show", "device webhook", "event list"),
    *("group list", "group show", "guide", "inbox list", "inbox show", "job list", "job show"),
    *("opt-out export", "opt-out list", "opt-out show", "producer list", "producer show", "status"),
    *("token list", "webhook failed", "webhook list"),
)
NOT_RECORDED = {
    "dashboard link": "must work without the database; whoever uses the link is recorded",
    "db backup": "writes a file, and nothing to the database",
    "db migrate": "shardd.migrations has it, and before it there is no audit log",
    "db psql": "what is done there is SQL, as that of every program",
    "drain": "a process of this node, also without the database; the log has it",
    "reload": "as drain",
    "restart": "as drain",
    "setup systemd": "files of the machine",
    "start": "as drain",
    "stop": "as drain",
}
ELSEWHERE = {
    "campaign revoke": "test_revocations",
    "db restore": "test_cli_backup",
    "db restored": "test_restored",
    "device import": "test_cli_sessions",
    "device logout": "test_cli_sessions",
    "device move": "test_moving",
    "device pair": "test_cli_pairing",
    "device take-over": "test_cli_sessions",
    "import legacy": "test_cli_import_legacy",
    "job revoke": "test_revocations",
}
"""Commands that need more than a database, and the tests that look for their acts."""
ACCOUNT = pwd.getpwuid(os.geteuid()).pw_name


def leaves(command: click.Command = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words after `shardd`."""
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*words, name))


def acts(producer: Producer, after: int = 0) -> list[tuple[str, str, str, str]]:
    """(act, target, detail, result)."""
    return producer.execute("SELECT act, target, detail, result FROM shardd.acts WHERE id > %s ORDER BY id", after)


def test_every_command_either_only_looks_or_is_recorded(acts_of: dict[str, list[Any]]) -> None:
    marked = {name: act for name, command in leaves() if (act := act_of(command)) is not None}
    unmarked = {name for name, _ in leaves()} - marked.keys()
    assert unmarked == {*LOOKS, *NOT_RECORDED}, "mark what changes something with @acts, and name what does not here"
    assert set(marked) == {*acts_of, *ELSEWHERE}, "add it to the table of this module"
    for name, (_, expected) in acts_of.items():
        assert {act for act, *_ in expected} == {marked[name]}, name


@pytest.fixture
def acts_of(producer: Producer, dsn: str, tmp_path: Path, other_dsn: str) -> dict[str, list[Any]]:
    """By command: its arguments, and the rows of the audit log."""
    number = 1
    other = tmp_path / "other.yaml"
    other.write_text(f"shards: 2\nstate_dir: other\nnode: other\ndatabase: {{dsn: {json.dumps(other_dsn)}}}\n")
    table = {
        "device add": (("d1", "d2", "--transport=sandbox"), ("add", "2 devices", "sandbox; devices d1, d2")),
        "device set": (("d1", "--label=x", "--gap=1s..2s"), ("set", "device d1", "gap_min, gap_max, label")),
        "device pause": (("d1", "--why=new phone"), ("pause", "device d1", "new phone")),
        "device resume": (("d1", "d2"), ("resume", "device d1", "")),
        "device link": (("w1",), ("make pairing links", "device w1", "for 15 minutes")),
        "group add": (("sales", "d1", "d2"), ("add", "group sales", "devices d1, d2")),
        "group remove": (("sales", "d2"), ("remove", "group sales", "device d2")),
        "group delete": (("sales",), ("delete", "group sales", "")),
        "campaign add": (("spring",), ("add", "campaign spring", "")),
        "campaign set": (("spring", "--weight=2"), ("set", "campaign spring", "weight 2.0")),
        "campaign pause": (("spring", "--why=typo"), ("pause", "campaign spring", "typo")),
        "campaign resume": (("spring",), ("resume", "campaign spring", "")),
        "send": (("d1", "+4915112345678", "secret", "--no-wait"), ("send", "device d1", f"job {number}")),
        "job cancel": ((number,), ("cancel", f"job {number}", "")),
        "job retry": (("--campaign=spring", "--state=cancelled", "--yes"), ("retry", "jobs", "state cancelled, campaign spring")),
        "job resolve": ((2, "--sent", "--yes"), ("resolve", "job 2", "sent")),
        "campaign cancel": (("spring", "--yes", "--why=wrong"), ("cancel", "campaign spring", "1 waiting job; wrong")),
        "device replace": (("d1", "d2"), ("replace", "device d1", "by device d2; moved 0 jobs")),
        "device remove": (("d1", "d2"), ("remove", "2 devices", "devices d1, d2")),
        "producer add": (("producer", "--device=d3"), ("add", "role producer", "device d3")),
        "producer remove": (("producer",), ("remove", "role producer", "all its bindings")),
        "token add": (("shop", "--may=look"), ("add", "token shop", "may look")),
        "token remove": (("shop",), ("remove", "token shop", "")),
        "webhook retry": (("crm",), ("retry", "webhook crm", "")),
        "cluster cordon": (("alpha", "--yes"), ("cordon", "node alpha", "")),
        "cluster uncordon": (("alpha",), ("uncordon", "node alpha", "")),
        "opt-out add": (("+4915112345671",), ("opt out", "a person", "added 1 opt-out")),
        "opt-out import": ((tmp_path / "list.csv",), ("opt out", "2 people", "added 2 opt-outs")),
        "opt-out forget": (("+4915112345671", "--yes"), ("forget", "1 person", "erased ")),
        "opt-out copy": ((f"--to={other}",), ("opt out", "2 people", "of ")),
    }  # fmt: skip
    return {name: [arguments, [row]] for name, (arguments, row) in table.items()}


def test_each_command_that_changes_something_is_recorded(
    *,
    acts_of: dict[str, list[Any]],
    producer: Producer,
    config_file: Path,
    dsn: str,
    other_dsn: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One process runs them all, which takes a second; another test runs the program."""
    monkeypatch.setenv("SHARDD_CONFIG", str(config_file))
    monkeypatch.delenv("SUDO_USER", raising=False)
    (tmp_path / "list.csv").write_text("+4915112345672\n+4915112345673\n")
    add_devices(dsn, "d3")
    add_devices(dsn, "w1", transport="whatsapp", state="unpaired")
    with connect(dsn) as owner:
        owner.execute(
            "INSERT INTO shardd.webhook_cursors (name, kinds, target, node, incarnation, expires_at) "
            "VALUES ('crm', '{}', 'x', 'alpha', gen_random_uuid(), now())"
        )
        owner.execute(
            "INSERT INTO shardd.nodes (id, name, incarnation, shards, version, ttl) "
            "VALUES (gen_random_uuid(), 'alpha', gen_random_uuid(), 8, 'x', 9)"
        )

    def before(name: str) -> None:
        if name == "job retry":
            (number,) = insert_jobs(dsn, "d1", campaign="spring")
            producer.execute("SELECT shardd.end_jobs(array[%s::bigint], 'cancelled', 'x', NULL)", number)
        elif name == "job resolve":
            producer.execute("SELECT shardd.end_jobs(array[2::bigint], 'in_doubt', 'lost', NULL)")
            insert_jobs(dsn, "d1", campaign="spring")
        elif name == "device replace":
            producer.execute("DELETE FROM shardd.jobs")

    for name, (arguments, expected) in acts_of.items():
        before(name)
        ((last,),) = producer.execute("SELECT coalesce(max(id), 0) FROM shardd.acts")
        assert not cli.main([*name.split(), *map(str, arguments)], standalone_mode=False), name
        where = Producer(other_dsn) if name == "opt-out copy" else producer
        found = [row for row in acts(where, 0 if where is not producer else last) if row[3] != "begun"]
        assert [row[:2] for row in found] == [row[:2] for row in expected], name
        assert found[0][2].startswith(expected[0][2]), (name, found)
        assert found[0][3] == "done", name
    assert producer.execute("SELECT count(*) FROM shardd.acts_under_way") == [(0,)]
    whole = repr(producer.execute("SELECT * FROM shardd.acts"))
    assert "4915112345" not in whole
    assert "secret" not in whole
    assert producer.execute("SELECT DISTINCT who, how, address, node FROM shardd.acts") == [
        (ACCOUNT, "command", gethostname(), gethostname())
    ]


async def test_who_it_was_is_the_account_and_what_sudo_says_of_it(
    shardd: Command, producer: Producer, dsn: str
) -> None:
    add_campaigns(dsn, "spring", "autumn")
    shardd.environ.pop("SUDO_USER", None)
    shardd.environ["LOGNAME"] = "somebody-else"
    assert (await shardd("campaign", "pause", "spring", "autumn", "--why=typo")).code == 0
    shardd.environ["SUDO_USER"] = "ada"
    assert (await shardd("campaign", "cancel", "spring", "--yes")).code == 0
    listed = (await shardd("dashboard", "acts", "--json")).json
    assert [(one["who"], one["how"], one["address"], one["act"], one["target"], one["detail"]) for one in listed] == [
        (f"{ACCOUNT} (sudo: ada)", "command", gethostname(), "cancel", "campaign spring", "0 waiting jobs"),
        (ACCOUNT, "command", gethostname(), "pause", "2 campaigns", "typo; campaigns autumn, spring"),
    ]
    for who in ("ada", f"{ACCOUNT} (sudo: ada)"):
        assert [one["act"] for one in (await shardd("dashboard", "acts", f"--who={who}", "--json")).json] == ["cancel"]
    assert "campaign spring" in (await shardd("dashboard", "acts")).out
    assert (await shardd("campaign", "cancel", "spring", "--yes")).out == "cancelled already: spring\n"
    assert (await shardd("device", "pause", "nobody")).code == 64
    assert len(acts(producer)) == 2


async def test_what_cannot_be_recorded_is_not_done(shardd: Command, producer: Producer, dsn: str) -> None:
    add_campaigns(dsn, "spring")
    add_devices(dsn, "d1")
    jobs = insert_jobs(dsn, "d1", 3)
    with connect(dsn) as owner:
        owner.execute("ALTER TABLE shardd.acts ADD CONSTRAINT full_up CHECK (false) NOT VALID")
    for arguments in (("campaign", "cancel", "spring", "--yes"), ("job", "cancel", *jobs), ("job", "cancel", jobs[0])):
        refused = await shardd(*arguments)
        assert refused.code != 0
        assert "full_up" in refused.err
        assert refused.out == ""
    assert producer.execute("SELECT state FROM shardd.campaigns") == [("running",)]
    assert dict(producer.states()) == {"queued": 3}


def config_of_another(config_file: Path, dsn: str, other: str) -> Path:
    """The config of somebody who has another role for the same database."""
    theirs = config_file.with_name("theirs.yaml")
    theirs.write_text(config_file.read_text().replace(json.dumps(dsn), json.dumps(other)))
    return theirs


async def test_a_login_that_may_not_write_it_is_told_so_in_one_sentence(
    *,
    shardd: Command,
    config_file: Path,
    postgres: Cluster,
    dbname: str,
    dsn: str,
    superuser_dsn: str,
    make_role: Callable[..., str],
) -> None:
    add_devices(dsn, "d1")
    make_role("helper")
    shardd.environ["SHARDD_CONFIG"] = str(config_of_another(config_file, dsn, postgres.dsn(dbname, "helper")))
    with psycopg.connect(superuser_dsn, autocommit=True) as superuser:
        superuser.execute("GRANT USAGE ON SCHEMA shardd TO helper")
        superuser.execute("GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA shardd TO helper")
        superuser.execute("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA shardd TO helper")
        try:
            refused = [await shardd("device", "pause", "d1"), await shardd("device", "remove", "d1")]
        finally:
            superuser.execute("DROP OWNED BY helper")
    for one in refused:
        assert (one.code, one.out) == (69, "")
        assert one.err.startswith("shardd: this login may not write the audit log (shardd.acts), so nothing was done: ")
        assert one.err.count("\n") == 1
    with connect(dsn) as owner:
        assert owner.execute("SELECT paused_at, removed_at FROM shardd.devices").fetchall() == [(None, None)]


async def stop_in_the_middle(shardd: Command, dsn: str, jobs: list[int], how: signal.Signals) -> int:
    """Begin to cancel jobs, end that process when it waits for their table, and return its exit code."""
    with connect(dsn) as owner, owner.transaction():
        owner.execute("LOCK TABLE shardd.jobs IN SHARE MODE")  # which can be counted, and not cancelled
        process = await asyncio.create_subprocess_exec(
            *(str(PROGRAM), "job", "cancel", *map(str, jobs)), env=shardd.environ,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        while not await asyncio.to_thread(
            Producer(dsn).execute,
            "SELECT 1 FROM pg_stat_activity WHERE application_name = 'shardd/command' AND wait_event_type = 'Lock'",
        ):
            assert process.returncode is None
        process.send_signal(how)
        return await process.wait()


async def test_an_act_that_is_interrupted_says_how_far_it_came(shardd: Command, producer: Producer, dsn: str) -> None:
    add_devices(dsn, "d1")
    jobs = insert_jobs(dsn, "d1", 10)
    assert await stop_in_the_middle(shardd, dsn, jobs, signal.SIGTERM) == 143
    begun, ended = acts(producer)
    assert (begun[3], ended[3].startswith("interrupted; handled before: 0 jobs; ")) == ("begun", True)
    assert producer.execute("SELECT count(*) FROM shardd.acts_under_way") == [(0,)]


async def test_of_an_act_whose_process_was_killed_it_is_said_that_nothing_is_known(
    shardd: Command, producer: Producer, dsn: str
) -> None:
    add_devices(dsn, "d1")
    jobs = insert_jobs(dsn, "d1", 10)
    assert await stop_in_the_middle(shardd, dsn, jobs, signal.SIGKILL) == -signal.SIGKILL
    assert [row[3] for row in acts(producer)] == ["begun"]
    (young,) = (await shardd("dashboard", "acts", "--json")).json
    assert young["unfinished"] is False
    producer.execute("UPDATE shardd.acts_under_way SET seen_at = seen_at - %s * interval '1s'", LOST_AFTER + 1)
    (old,) = (await shardd("dashboard", "acts", "--json")).json
    assert (old["act"], old["target"], old["result"], old["unfinished"]) == ("cancel", "10 jobs", "begun", True)
    shardd.environ["COLUMNS"] = "200"
    assert UNFINISHED in (await shardd("dashboard", "acts")).out
    assert (await shardd("job", "cancel", *jobs)).code == 0
    assert [(one["result"], one["unfinished"]) for one in (await shardd("dashboard", "acts", "--json")).json] == [
        ("done", False),
        ("begun", False),
        ("begun", True),
    ]
