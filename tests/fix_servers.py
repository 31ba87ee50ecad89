"""Fixtures: PostgreSQL servers of a test's own on TCP ports, and PgBouncers before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shardd.embedded.home import Home, prepare_home
from tests.servers import Pooler, Server

MakePooler = Callable[..., Pooler]


@pytest.fixture
def server_home(state_dir: Path) -> Home:
    """Where servers of this test live, and as which account."""
    return prepare_home(state_dir, spare=state_dir / "spare")


@pytest.fixture
def tcp_server(server_home: Home) -> Iterator[Server]:
    """A running PostgreSQL with an empty database `shardd`, owned by a login of that name."""
    server = Server(server_home, server_home.folder / "data-1")
    server.make()
    try:
        server.start()
        server.execute("CREATE ROLE shardd LOGIN CREATEROLE")
        server.execute("CREATE DATABASE shardd OWNER shardd")
        yield server
    finally:
        server.stop()


@pytest.fixture
def standby(tcp_server: Server, server_home: Home) -> Iterator[Server]:
    """A running streaming standby of `tcp_server`."""
    standby = tcp_server.make_standby(server_home.folder / "data-2")
    try:
        yield standby
    finally:
        standby.stop()


@pytest.fixture
def make_pooler(tcp_server: Server, server_home: Home) -> Iterator[MakePooler]:
    """Starts PgBouncers before `tcp_server`; they end with the test."""
    with ExitStack() as stack:

        def make(mode: str, **options: str) -> Pooler:
            pooler = Pooler(server_home, tcp_server, mode, options=options)
            stack.callback(pooler.stop)
            pooler.start()
            return pooler

        yield make
