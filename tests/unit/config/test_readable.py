"""What is read from a file with errors, and when an error may affect what a command needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardd.config.load import TO_ASK_THE_DAEMON, TO_REACH_THE_DATABASE, parse_readable
from shardd.errors import ConfigError

DSN = "postgresql://shardd@db.example/shardd"
GOOD = f"state_dir: /var/lib/shardd\ndatabase:\n  dsn: {DSN}\n"

HARMLESS = {
    "a value": "shards: many\n",
    "an unknown option": "colour: green\n",
    "a broken rule": "pacing: {gap_min: 20s, gap_max: 10s}\n",
    "an option of the database that is not its address": "",
    "a line that is no YAML": "shards 8\n",
    "a bracket that is never closed": "queue: {batch: 5\n",
    "a quote that is never closed": 'node: "host\n',
    "a tab": "queue:\n\tbatch: 5\n",
    "an anchor": "log: &a {level: info}\n",
    "a variable that is not set": "node: ${NOT_SET}\n",
    "an option twice": "shards: 2\nshards: 3\n",
}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("error", HARMLESS.values(), ids=HARMLESS.keys())
def test_errors_elsewhere_leave_the_address_readable(error: str, before: bool) -> None:
    error = error or "worker:\n  heartbeat_timeout: soon\n"
    read = parse_readable(error + GOOD if before else GOOD + error, "/etc/x.yaml", TO_REACH_THE_DATABASE, {})
    assert read.config.database is not None
    assert (read.config.database.dsn, read.config.state_dir) == (DSN, Path("/var/lib/shardd"))
    assert "/etc/x.yaml:" in str(read.refused)


HARMFUL = {
    "another database section": "databas:\n  dsn: postgresql://a@b/c\n",
    "the section twice": "database: {dsn: postgresql://a@b/c}\n",
    "the section once more, unreadable": "database: {dsn: postgresql://a@b/c\n",
    "its name misspelt, unreadable": "datbase: {dsn: postgresql://a@b/c\n",
    "the state folder twice": "state_dir: /elsewhere\n",
    "the state folder without a colon": "state_dir /elsewhere\n",
    "a second document": "---\nshards: 2\n",
}


@pytest.mark.parametrize("error", HARMFUL.values(), ids=HARMFUL.keys())
def test_an_error_that_may_touch_the_address_refuses_the_file(error: str) -> None:
    with pytest.raises(ConfigError, match=r"/etc/x\.yaml"):
        parse_readable(GOOD + error, "/etc/x.yaml", TO_REACH_THE_DATABASE, {})


@pytest.mark.parametrize(
    "database",
    ["5", "{dsn: nonsense}", "{dsn: '${NOT_SET}'}", "{dns: postgresql://a@b/c}", "{dsn: [", "{statement: 5s}"],
)
def test_a_database_that_is_not_known_is_never_taken_for_the_embedded_one(database: str) -> None:
    text = f"state_dir: /var/lib/shardd\ndatabase: {database}\n"
    with pytest.raises(ConfigError, match=r"/etc/x.yaml:[23]:"):
        parse_readable(text, "/etc/x.yaml", TO_REACH_THE_DATABASE, {})
    # The daemon's socket is known all the same.
    assert str(parse_readable(text, "/etc/x.yaml", TO_ASK_THE_DAEMON, {}).config.control_socket) == (
        "/var/lib/shardd/control.sock"
    )


def test_a_file_without_errors_is_not_refused() -> None:
    assert parse_readable(GOOD, "/etc/x.yaml", TO_REACH_THE_DATABASE, {}).refused is None


@pytest.mark.parametrize("text", ["- a\n- b\n", "words\n"])
def test_what_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="this is not a config"):
        parse_readable(text, "/etc/x.yaml", TO_ASK_THE_DAEMON, {"HOME": "/root"})
