"""POST /devices/ID/close, which other processes rely on before they use a session."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from shardd.control_client import ask
from tests.support.daemon import Daemon, Producer


async def test_a_device_is_closed_as_it_is_now_and_not_as_the_daemon_saw_it_last(
    make_daemon: Callable[..., Daemon], producer: Producer, superuser_dsn: str
) -> None:
    daemon = make_daemon()
    await daemon.start()
    with psycopg.connect(superuser_dsn, autocommit=True) as connection:
        # Nothing announces the device: the daemon would look only seconds later.
        connection.execute("ALTER TABLE shardd.devices DISABLE TRIGGER announce_devices")
    producer.add_devices(1)
    assert await ask(daemon.socket, "POST", "/devices/d1/close") == {"closed": True}
