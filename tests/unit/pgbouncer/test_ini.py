"""The config file of PgBouncer, as text; `tests/integration/pgbouncer` has a real one read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardd.pgbouncer import PgBouncerError, Target
from shardd.pgbouncer.ini import MOST_QUERY, Limits, connect_query, ini_text

FOLDER = Path("/run/shardd-pgbouncer-1")
LIMITS = Limits(servers=20, clients=900)


def line_of(text: str, name: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} =")]
    return line.partition(" = ")[2]


def test_values_of_the_target_are_quoted() -> None:
    settings = {"jit": "off", "search_path": '"a b", it\'s\\'}
    target = Target("db.example", 5433, "it's", "me", password="a 'b' ;c#", settings=settings)
    line = line_of(ini_text(target, LIMITS, FOLDER), "shardd_sessions")
    place, _, query = line.partition(" connect_query=")
    assert place == "host='db.example' port='5433' dbname='it''s' user='me' password='a ''b'' ;c#'"
    assert query == (
        """'SELECT pg_catalog.set_config(''search_path'',E''"a b", it''''s\\\\'',false);SET jit TO ''off'''"""
    )


def test_a_query_that_does_not_fit_is_refused() -> None:
    """PgBouncer would fail at each connection, and not say why."""
    longest = "x" * (MOST_QUERY - len("SET jit TO ''"))
    assert len(connect_query({"jit": longest})) == MOST_QUERY
    with pytest.raises(PgBouncerError, match="too short for what these connections need to set: jit, work_mem"):
        connect_query({"jit": longest, "work_mem": "1"})


def test_what_is_empty_is_left_out() -> None:
    """PgBouncer refuses empty values (src/loader.c, cstr_get_value)."""
    text = ini_text(Target("/run/pg", 5432, "d", "u"), LIMITS, FOLDER)
    assert line_of(text, "shardd_sessions") == "host='/run/pg' port='5432' dbname='d' user='u'"
    assert "server_tls_ca_file" not in text
    assert connect_query({}) == ""


def test_it_listens_only_on_its_socket_and_keeps_few_connections() -> None:
    text = ini_text(Target("h", 5432, "d", "u"), LIMITS, FOLDER)
    assert "listen_addr" not in text
    assert line_of(text, "unix_socket_dir") == str(FOLDER)
    assert (line_of(text, "default_pool_size"), line_of(text, "max_client_conn")) == ("20", "900")
    assert line_of(text, "pool_mode") == "transaction"


@pytest.mark.parametrize("broken", ["a\nb", "a\rb", "a\0b"])
def test_a_line_break_is_refused_without_the_value(broken: str) -> None:
    with pytest.raises(PgBouncerError, match="line break in the value of password") as caught:
        ini_text(Target("h", 5432, "d", "u", password=broken), LIMITS, FOLDER)
    assert broken not in str(caught.value)


def test_white_space_around_a_path_is_refused() -> None:
    with pytest.raises(PgBouncerError, match="server_tls_ca_file"):
        ini_text(Target("h", 5432, "d", "u", ca_file="/ca.crt "), LIMITS, FOLDER)


def test_a_password_is_not_shown() -> None:
    assert "geheim" not in repr(Target("h", 5432, "d", "u", password="geheim"))
