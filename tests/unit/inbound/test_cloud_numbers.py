"""Which devices send with which Cloud API number."""

from __future__ import annotations

from shardd.queue.records import RemovedDevice
from shardd.supervisor.inbound.cloud_webhook import CloudNumbers
from tests.support.scheduler_by_hand import device, look, make_scheduler


def test_numbers_are_found_by_the_settings() -> None:
    scheduler = make_scheduler()
    removed = [
        RemovedDevice("old", "cloud_api", {"phone_number_id": "100"}),
        RemovedDevice("gone", "cloud_api", {"phone_number_id": "400"}),
        RemovedDevice("other", "wablas", {"phone_number_id": "400"}),
    ]
    numbers = CloudNumbers(scheduler, {"OFFICE": "200"}, lambda: removed)
    assert numbers.devices({"100", "500"}) == {"100": ["old"], "500": []}
    look(
        scheduler,
        device("a", transport="cloud_api", settings={"phone_number_id": "100"}),
        device("b", transport="cloud_api", settings={"phone_number_id": "${OFFICE}"}),
        device("c", transport="cloud_api", settings={"phone_number_id": "${MISSING}"}),
        device("d", transport="cloud_api", settings={"phone_number_id": 300}),
        device("e", transport="cloud_api", settings={}),
        device("f", transport="wablas", settings={"phone_number_id": "100"}),
        device("g", transport="cloud_api", settings={"phone_number_id": "100"}),
    )
    assert numbers.devices({"100", "200", "300", "400"}) == {
        "100": ["a", "g"],
        "200": ["b"],
        "300": [],
        "400": ["gone"],
    }
