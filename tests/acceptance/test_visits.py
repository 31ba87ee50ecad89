"""Devices that have nothing to send are opened for a moment, so that what was sent to them is heard and their link lives."""

from __future__ import annotations

import pytest

from tests.fixtures.whatsapp_fleet import Fleet

EVERY = 12.0


@pytest.mark.timeout(200)
async def test_an_idle_device_is_visited_and_hears_a_stop(fleet: Fleet) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    daemon = fleet.daemon(
        shards=1, transports={"whatsapp": {"visit_every": f"{EVERY:g}s", "idle_close": "1s", "probe_after": "1s"}}
    )
    await daemon.start()
    # A device that was never online is visited at once.
    await fleet.until(fleet.server.control.activity)
    await fleet.control.wait_events("presence", 2, device=phone.name)
    shown = [event.details for event in fleet.server.control.events("presence", device=phone.name)]
    assert [one["type"] for one in shown] == ["available", "unavailable"]
    assert all(one["name"] for one in shown)
    await fleet.asleep(daemon)
    await fleet.control.write(phone.name, person, "STOP")
    await fleet.until(lambda: fleet.rows("SELECT 1 AS listed FROM shardd.opt_outs WHERE address = %s", person))
