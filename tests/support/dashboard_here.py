"""The dashboard, served by the process of a test: for what only its own parts decide, and no supervisor."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shardd.dashboard import app
from shardd.pairing.context import SessionSettings
from shardd.supervisor.admin.dashboard import Access, DashboardSetup, User
from tests.support.visitor import USERS


@asynccontextmanager
async def dashboard_here(dsn: str, state_dir: Path, patience: float = 5.0) -> AsyncIterator[str]:
    """Serve it to `USERS` during the block, which gets its address. `patience`: seconds for a connection, and for a statement."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    listen = f"127.0.0.1:{listening.getsockname()[1]}"
    setup = DashboardSetup(
        node="here",
        dsn=dsn,
        connect_timeout=patience,
        statement_timeout=patience,
        control_socket=str(state_dir / "nobody.sock"),
        log_level="info",
        log_format="json",
        access=Access(listen=listen, users={name: User(**user) for name, user in USERS.items()}),
        links_key=b"",
        sessions=SessionSettings(
            source="",
            store=dsn,
            pgbouncer=False,
            proxy=None,
            region=None,
            state_dir=str(state_dir),
            control_socket=str(state_dir / "nobody.sock"),
            opt_out_words=[],
            take_back_words=[],
            include=None,
            media=False,
        ),
    )
    async with app.serve(setup, listening):
        yield f"http://{listen}"
