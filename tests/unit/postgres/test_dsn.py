import pytest
from psycopg.conninfo import conninfo_to_dict

from shardd.errors import DatabaseError
from shardd.postgres.dsn import complete_dsn, reorder_hosts, server_of, split_hosts, without_libpq
from shardd.postgres.errors import words_of


@pytest.mark.parametrize(
    ("dsn", "servers"),
    [
        ("postgresql://me@db/x", [{"host": "db"}]),
        ("dbname=x", [{}]),
        ("postgresql://me@a:1,b:2/x", [{"host": "a", "port": "1"}, {"host": "b", "port": "2"}]),
        ("host=a,b port=7 dbname=x", [{"host": "a", "port": "7"}, {"host": "b", "port": "7"}]),
        ("host=a,/run/b dbname=x", [{"host": "a"}, {"host": "/run/b"}]),
        (
            "host=a,b hostaddr=10.0.0.1,10.0.0.2 dbname=x",
            [{"host": "a", "hostaddr": "10.0.0.1"}, {"host": "b", "hostaddr": "10.0.0.2"}],
        ),
    ],
)
def test_each_server_of_a_dsn_has_a_dsn(dsn: str, servers: list[dict[str, str]]) -> None:
    found = [conninfo_to_dict(one) for one in split_hosts(dsn)]
    assert [{k: v for k, v in one.items() if k in ("host", "hostaddr", "port")} for one in found] == servers
    assert all(one["dbname"] == "x" for one in found)


@pytest.mark.parametrize("dsn", ["host=a,b,c port=1,2 dbname=x", "host=a,b hostaddr=10.0.0.1 dbname=x"])
def test_hosts_and_what_belongs_to_them_must_be_as_many(dsn: str) -> None:
    with pytest.raises(DatabaseError, match="write one for each host"):
        split_hosts(dsn)


def test_servers_change_places_with_all_that_is_theirs() -> None:
    moved = conninfo_to_dict(
        reorder_hosts("host=a,b,c hostaddr=1.1.1.1,2.2.2.2,3.3.3.3 port=1,2,3 dbname=x", [2, 0, 1])
    )
    assert (moved["host"], moved["hostaddr"], moved["port"]) == ("c,a,b", "3.3.3.3,1.1.1.1,2.2.2.2", "3,1,2")
    assert conninfo_to_dict(reorder_hosts("host=a,b port=7 dbname=x", [1, 0]))["port"] == "7"


def test_what_the_environment_says_is_taken_over_unless_the_dsn_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "from-environment")
    monkeypatch.setenv("PGPASSWORD", "it's secret")
    monkeypatch.setenv("PGOPTIONS", "-c jit=off")
    monkeypatch.setenv("PGUSER", "somebody")
    parts = conninfo_to_dict(complete_dsn("dbname=x user=me"))
    assert (parts["host"], parts["user"], parts["dbname"]) == ("from-environment", "me", "x")
    assert (parts["password"], parts["options"]) == ("it's secret", "-c jit=off")
    assert "port" not in parts


def test_other_processes_get_no_variable_of_libpq_but_the_places_of_service_files() -> None:
    environ = {
        "PATH": "/bin",
        "PGHOST": "h",
        "PGCHANNELBINDING": "require",
        "PGSERVICEFILE": "/f",
        "PGSYSCONFDIR": "/etc",
    }
    assert without_libpq(environ) == {"PATH": "/bin", "PGSERVICEFILE": "/f", "PGSYSCONFDIR": "/etc"}


def test_where_a_dsn_leads_is_reported_without_its_password() -> None:
    assert server_of("postgresql://me:secret@a:1,b:2/x") == "a:1,b:2/x"
    assert server_of("host=a,b port=7 dbname=x password=secret") == "a:7,b:7/x"
    assert words_of("postgresql://me:secret@a:1,b:2/x")["where"] == "PostgreSQL at a:1, b:2 (database x, user me)"
