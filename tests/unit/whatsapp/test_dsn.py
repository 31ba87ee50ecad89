from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from shardd.errors import DatabaseError
from shardd.transports.whatsapp.dsn import SCHEMA, library_dsn, sessions_dsn


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
    assert parse_qs(url.query) == {
        "sslmode": ["prefer"],
        "search_path": [SCHEMA],
        "binary_parameters": ["yes"],
        "idle_session_timeout": ["15000"],
    }


def test_options_that_were_there_stay() -> None:
    assert (
        conninfo_to_dict(sessions_dsn("dbname=x options='-c jit=off'"))["options"]
        == f"-c jit=off -c search_path={SCHEMA}"
    )


def test_through_pgbouncer_nothing_is_set_or_prepared() -> None:
    url = urlsplit(library_dsn("postgresql://me@pool:6432/sessions?sslmode=verify-full", pgbouncer=True))
    assert parse_qs(url.query) == {"sslmode": ["verify-full"], "binary_parameters": ["yes"]}


def test_a_socket_is_named_as_the_library_wants_it() -> None:
    url = urlsplit(library_dsn("host=/run/x port=5499 user=me dbname=db", pgbouncer=False))
    assert (url.netloc, url.path) == ("me@", "/db")
    query = parse_qs(url.query)
    assert (query["host"], query["port"]) == (["/run/x"], ["5499"])


def test_what_only_one_reader_knows_does_not_reach_the_other() -> None:
    url = library_dsn("host=h dbname=d target_session_attrs=read-write keepalives=1 connect_timeout=3", pgbouncer=False)
    assert parse_qs(urlsplit(url).query).keys() == {
        "sslmode",
        "connect_timeout",
        "binary_parameters",
        "idle_session_timeout",
    }


def test_an_unreadable_address_is_told() -> None:
    with pytest.raises(DatabaseError, match="cannot be read"):
        sessions_dsn("host")
    with pytest.raises(DatabaseError, match="cannot be read"):
        library_dsn("nonsense=1", pgbouncer=False)
