"""`shardd db`, with a named server and with the embedded one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from shardd import __version__
from shardd.cli.db import db_group
from shardd.embedded import EmbeddedPostgres
from shardd.errors import DatabaseError, UsageError
from tests.fixtures.postgres import Cluster


def shardd_db(*arguments: str | Path) -> Result:
    return CliRunner().invoke(db_group, [str(argument) for argument in arguments])


@pytest.fixture
def config_of(tmp_path: Path) -> Path:
    return tmp_path / "shards.yaml"


@pytest.fixture
def named(config_of: Path, empty_dsn: str) -> Path:
    """A config that names a server, whose database is empty."""
    config_of.write_text(f"state_dir: state\ndatabase:\n  dsn: {json.dumps(empty_dsn)}\n")
    return config_of


@pytest.fixture
def embedded(config_of: Path, state_dir: Path) -> Path:
    """A config without `database:`."""
    config_of.write_text(f"state_dir: {state_dir}\n")
    return config_of


def test_migrates_and_tells_what_it_did(named: Path) -> None:
    first = shardd_db("migrate", "--config", named)
    assert (first.exit_code, "applied 0001_devices.sql" in first.output) == (0, True)
    again = shardd_db("migrate", "--config", named)
    assert (again.exit_code, again.output) == (0, "nothing to apply: the database is current\n")


def test_status_tells_by_its_exit_code_whether_the_database_is_current(named: Path) -> None:
    before = shardd_db("status", "--config", named)
    assert (before.exit_code, "pending" in before.output) == (1, True)
    shardd_db("migrate", "--config", named)
    after = shardd_db("status", "--config", named)
    assert (after.exit_code, "pending" in after.output, "as shardd" in after.output) == (0, False, True)


def test_status_for_programs(named: Path) -> None:
    shardd_db("migrate", "--config", named)
    told = json.loads(shardd_db("status", "--config", named, "--json").stdout)
    assert told["current"] is True
    assert told["superuser"] is False
    assert told["migrations"][0]["name"] == "devices"
    assert told["migrations"][0]["state"] == "applied"


def test_an_older_release_tells_that_it_runs_on_what_a_newer_one_has_migrated(named: Path, empty_dsn: str) -> None:
    shardd_db("migrate", "--config", named)
    with psycopg.connect(empty_dsn) as newer:
        newer.execute("INSERT INTO shardd.migrations VALUES (9000, 'later', '', now(), '9.0.0', %s)", [__version__])
        newer.execute("INSERT INTO shardd.releases VALUES ('9.0.0')")
    note = f"shardd 9.0.0 has written the functions and rights of this database, and this release, {__version__}, leaves them"
    status, migrate = shardd_db("status", "--config", named), shardd_db("migrate", "--config", named)
    assert (status.exit_code, "newer" in status.stdout, note in status.stderr) == (0, True, True)
    assert (migrate.exit_code, note in migrate.stderr) == (0, True)
    told = json.loads(shardd_db("status", "--config", named, "--json").stdout)
    assert (told["current"], told["defined_by"]) == (True, "9.0.0")
    last = {name: told["migrations"][-1][name] for name in ("state", "release", "oldest_release")}
    assert last == {"state": "newer", "release": "9.0.0", "oldest_release": __version__}


def guide_sql(page: str, heading: str) -> str:
    """The first SQL block below a heading of the guide."""
    text = (Path(__file__).parents[3] / f"shardd/guide/{page}.md").read_text().split(f"\n## {heading}\n")[1]
    return text.split("```sql\n")[1].split("```")[0]


def test_status_tells_what_every_login_may_fill_and_the_guide_how_that_ends(
    named: Path, empty_dsn: str, postgres: Cluster, make_role: Callable[..., str]
) -> None:
    shardd_db("migrate", "--config", named)
    told = shardd_db("status", "--config", named)
    assert "every login may make advisory locks and large objects, with which" in told.stderr
    assert json.loads(shardd_db("status", "--config", named, "--json").stdout)["open_means"] == [
        "advisory locks",
        "large objects",
    ]
    make_role("shop", "shardd_producer")
    name = empty_dsn.partition("?")[0].rpartition("/")[2]
    with postgres.superuser(name) as superuser:
        superuser.execute(guide_sql("producers", "What every login can use up").encode())
    assert "every login may make" not in shardd_db("status", "--config", named).stderr
    with psycopg.connect(empty_dsn, autocommit=True) as owner:
        owner.execute("INSERT INTO shardd.devices (id, transport) VALUES ('me', 'sandbox')")
    with psycopg.connect(postgres.dsn(name, "shop"), autocommit=True) as shop:
        shop.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('me', '+4915112345678', 'Hello')")
        for statement in ("SELECT pg_advisory_lock(1)", "SELECT lo_create(0)", "SELECT lo_from_bytea(0, 'x')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                shop.execute(statement)  # type: ignore[call-overload]  # the statements above


def test_dsn_of_a_named_server(named: Path, empty_dsn: str) -> None:
    assert shardd_db("dsn", "--config", named).output == f"{empty_dsn}\n"
    assert isinstance(shardd_db("dsn", "--config", named, "--role", "producer").exception, UsageError)


def test_an_embedded_database_comes_into_being_by_migrate_only(embedded: Path) -> None:
    for command in ("status", "dsn"):
        error = shardd_db(command, "--config", embedded).exception
        assert isinstance(error, DatabaseError)
        assert "there is no embedded database" in str(error)
    assert shardd_db("migrate", "--config", embedded).exit_code == 0
    assert shardd_db("status", "--config", embedded).exit_code == 0


def test_a_running_embedded_database_is_asked_and_left_running(embedded: Path, state_dir: Path) -> None:
    server = EmbeddedPostgres(state_dir, settings={"fsync": "off"})
    asyncio.run(server.start())
    try:
        pid = server.pid
        assert shardd_db("migrate", "--config", embedded).exit_code == 0
        assert shardd_db("status", "--config", embedded).exit_code == 0
        assert server.pid == pid
        dsn = shardd_db("dsn", "--config", embedded, "--role", "producer").output.strip()
        with psycopg.connect(dsn) as producer:
            assert producer.execute("SELECT count(*) FROM shardd.outcomes").fetchone() == (0,)
    finally:
        asyncio.run(server.stop())
