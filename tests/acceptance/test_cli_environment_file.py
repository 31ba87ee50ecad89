from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from shardd.cli.environment import ENVIRONMENT_FILE, VARIABLE, adopt_environment
from shardd.errors import ConfigError
from tests.support.command import Command

UNIT = Path(__file__).parents[2] / "systemd" / "shardd.service"


@dataclass(frozen=True)
class Files:
    """A config whose DSN is in an environment file."""

    config: Path
    environment: Path

    def write_environment(self, content: str | bytes) -> None:
        self.environment.write_bytes(content if isinstance(content, bytes) else content.encode())

    def write_config(self, text: str) -> None:
        self.config.write_text(text)


@pytest.fixture
def files(shardd: Command, config_file: Path) -> Files:
    found = Files(config_file, config_file.with_name("environment"))
    found.write_config("state_dir: state\ndatabase: {dsn: '${SHARDD_TEST_DSN}'}\n")
    shardd.environ[VARIABLE] = str(found.environment)
    return found


async def test_commands_connect_with_what_the_unit_would_give_the_daemon(
    shardd: Command, files: Files, dsn: str
) -> None:
    quoted = dsn.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    files.write_environment(f'; $(false) "\nOTHER=a $b\n  SHARDD_TEST_DSN = "{quoted}" \n')
    # As under the unit, the file counts.
    shardd.environ["SHARDD_TEST_DSN"] = "postgresql://somebody@192.0.2.1/nothing"
    ran = await shardd("db", "dsn")
    assert (ran.code, ran.out, ran.err) == (0, f"{dsn}\n", "")
    ran = await shardd("device", "list", "--json")
    assert (ran.code, ran.out, ran.err) == (0, "[]\n", "")
    ran = await shardd("config", "check")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"A=b\nexport SHARDD_TEST_DSN=secret\n", ":2: this line begins with `export`, so systemd ignores it"),
        (b"SHARDD_TEST_DSN=\xff\n", ": line 1 is not UTF-8, so systemd ignores the whole file; save it as UTF-8"),
        (None, f": there is no such file, and {VARIABLE} names it"),
    ],
)
async def test_a_broken_file_is_reported_with_the_value_that_is_missing_and_only_then(
    shardd: Command, files: Files, content: bytes | None, note: str
) -> None:
    if content is not None:
        files.write_environment(content)
    ran = await shardd("db", "status")
    first, second = ran.err.splitlines()
    assert ran.code == ConfigError.exit_code
    assert "database.dsn: needs the variable SHARDD_TEST_DSN, which is not set" in first
    assert second.startswith(f"{files.environment}{note}")
    assert "secret" not in ran.err
    ran = await shardd("config", "check")
    assert ran.code == ConfigError.exit_code
    assert f"note: {files.environment}{note}" in ran.err

    files.write_config("state_dir: state\n")
    ran = await shardd("config", "check")
    assert ran.code == 0
    assert str(files.environment) not in ran.err


async def test_the_daemon_takes_what_systemd_gave_it(shardd: Command, files: Files) -> None:
    files.write_environment("SHARDD_TEST_DSN=postgresql:///x\n")
    shardd.environ["NOTIFY_SOCKET"] = str(files.environment.with_name("notify"))
    ran = await shardd("start")
    assert ran.code == ConfigError.exit_code
    assert "needs the variable SHARDD_TEST_DSN, which is not set" in ran.err


async def test_an_empty_name_stands_for_no_file(shardd: Command, files: Files) -> None:
    files.write_environment("SHARDD_TEST_DSN=postgresql:///x\n")
    shardd.environ[VARIABLE] = ""
    ran = await shardd("config", "check")
    assert (ran.code, len(ran.err.splitlines())) == (ConfigError.exit_code, 1)


def test_who_may_not_read_the_file_is_told_to_be_root(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_environment("SHARDD_TEST_DSN=secret\n")
    files.environment.chmod(0)
    monkeypatch.setenv(VARIABLE, str(files.environment))
    before, euid = dict(os.environ), os.geteuid()
    if euid == 0:
        os.seteuid(65534)
    try:
        found = adopt_environment(Path("/somewhere/shards.yaml"))
    finally:
        os.seteuid(euid)
    assert found.is_secret
    assert found.note is not None
    assert found.note.endswith("may not read it; run this as root")
    assert dict(os.environ) == before


def test_only_configs_beside_it_use_the_installed_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    file = tmp_path / "environment"
    file.write_text("SHARDD_TEST_DSN=secret\n")
    monkeypatch.setattr("shardd.cli.environment.ENVIRONMENT_FILE", str(file))
    adopt_environment(tmp_path / "sub" / "shards.yaml")
    assert "SHARDD_TEST_DSN" not in os.environ
    monkeypatch.setenv("SHARDD_TEST_DSN", "other")  # is taken back after the test
    adopt_environment(tmp_path / "sub" / ".." / "shards.yaml")
    assert os.environ["SHARDD_TEST_DSN"] == "secret"


def test_the_installed_file_is_the_one_that_the_unit_names() -> None:
    assert f"\nEnvironmentFile=-{ENVIRONMENT_FILE}\n" in UNIT.read_text(encoding="utf-8")


async def test_a_completion_reads_no_config(shardd: Command, files: Files) -> None:
    files.write_config("shards: many\n")
    shardd.environ |= {"_SHARDD_COMPLETE": "bash_complete", "COMP_WORDS": "shardd job list --st", "COMP_CWORD": "3"}
    ran = await shardd()
    assert "plain,--state" in ran.out.splitlines()
    assert ran.err == ""
