from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from shardd.errors import DatabaseError
from shardd.transports.whatsapp.sessions.dsn import SCHEMA, library_dsn, sessions_dsn


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://me:se%2Fcret@db.example:5433/shardd",
        "host=db.example port=5433 user=me password=se/cret dbname=shardd",
    ],
)
def test_the_default_is_a_schema_of_its_own_in_the_same_database(dsn: str) -> None:
    mine = sessions_dsn(dsn)
    parameters = conninfo_to_dict(mine)
    assert parameters["options"] == f"-c search_path={SCHEMA}"
    assert (parameters["host"], parameters["dbname"], parameters["password"]) == ("db.example", "shardd", "se/cret")
    url = urlsplit(library_dsn(mine, pgbouncer=False))
    assert (url.scheme, url.hostname, url.port, url.username, unquote(str(url.password)), url.path) == (
        "postgres",
        "db.example",
        5433,
        "me",
        "se/cret",
        "/shardd",
    )
    query = parse_qs(url.query)
    assert query["options"] == [f"-c search_path={SCHEMA}"]
    assert query["sslmode"] == ["prefer"]
    assert query["binary_parameters"] == ["yes"]
    assert query["idle_session_timeout"] == ["15000"]


def test_options_that_were_there_stay() -> None:
    assert (
        conninfo_to_dict(sessions_dsn("dbname=x options='-c jit=off'"))["options"]
        == f"-c jit=off -c search_path={SCHEMA}"
    )


def test_through_pgbouncer_nothing_is_set_or_prepared() -> None:
    url = urlsplit(library_dsn("postgresql://me@pool:6432/sessions?sslmode=verify-full", pgbouncer=True))
    assert parse_qs(url.query) == {
        "sslmode": ["verify-full"],
        "binary_parameters": ["yes"],
        "target_session_attrs": ["read-write"],
        "connect_timeout": ["5"],
    }


def test_what_the_session_store_relies_on_is_set() -> None:
    query = parse_qs(urlsplit(library_dsn("host=h dbname=d", pgbouncer=False)).query)
    assert query["synchronous_commit"] == ["on"]
    assert query["default_transaction_isolation"] == ["read committed"]
    assert query["enable_indexscan"] == ["on"]
    assert "transaction_timeout" not in query  # PostgreSQL 14 does not have it


@pytest.mark.parametrize(
    ("dsn", "hosts", "ports"),
    [
        ("postgresql://me@a:1,b:2/db", "a,b", "1,2"),
        ("host=a,b user=me dbname=db", "a,b", "5432"),
        ("host=/run/a,b port=1,2 user=me dbname=db", "/run/a,b", "1,2"),
        ("hostaddr=10.0.0.1,10.0.0.2 user=me dbname=db", "10.0.0.1,10.0.0.2", "5432"),
    ],
)
def test_several_hosts_reach_the_library(dsn: str, hosts: str, ports: str) -> None:
    url = urlsplit(library_dsn(dsn, pgbouncer=False))
    query = parse_qs(url.query)
    assert (url.netloc, url.path) == ("me@", "/db")
    assert (query["host"], query["port"], query["target_session_attrs"]) == ([hosts], [ports], ["read-write"])


def test_an_address_beside_a_host_reaches_the_library() -> None:
    query = parse_qs(urlsplit(library_dsn("host=a hostaddr=10.0.0.1 dbname=db", pgbouncer=False)).query)
    assert (query["host"], query["hostaddr"]) == (["a"], ["10.0.0.1"])


def test_a_socket_is_named_as_the_library_wants_it() -> None:
    url = urlsplit(library_dsn("host=/run/x port=5499 user=me dbname=db", pgbouncer=False))
    assert (url.netloc, url.path) == ("me@", "/db")
    query = parse_qs(url.query)
    assert (query["host"], query["port"]) == (["/run/x"], ["5499"])


def test_what_only_one_reader_knows_does_not_reach_the_other() -> None:
    url = library_dsn("host=h dbname=d target_session_attrs=any keepalives=1 connect_timeout=3", pgbouncer=True)
    assert parse_qs(urlsplit(url).query) == {
        "sslmode": ["prefer"],
        "binary_parameters": ["yes"],
        "target_session_attrs": ["any"],
        "connect_timeout": ["3"],
    }


def test_an_unreadable_address_is_told() -> None:
    with pytest.raises(DatabaseError, match="cannot be read"):
        sessions_dsn("host")
    with pytest.raises(DatabaseError, match="cannot be read"):
        library_dsn("nonsense=1", pgbouncer=False)
