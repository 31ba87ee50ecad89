"""A device of an HTTP platform for tests: jobs go through the real transport, called in a worker's order."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from shardd.config import TRANSPORTS, TransportsConfig
from shardd.errors import SendError
from shardd.incoming import Incoming
from shardd.ipc import DeviceSpec, JobSpec, TransportSpec
from shardd.transports.base import Sent, Surroundings
from shardd.transports.platforms.http_platform import HttpPlatform
from shardd.worker.transports import Transports

TO = "+6281234567890"
NUMBER = "6281234567890"
_numbers = itertools.count(1)


class NoEvents:
    """Platform transports report no events."""

    def device_changed(self, device_id: str, state: str, reason: str, until: float | None = None) -> None:
        raise AssertionError(f"{device_id} is {state}: {reason}")

    def receipt(self, device_id: str, message_ids: list[str], kind: str, at: float, by: int = 0) -> None:
        raise AssertionError(f"{device_id}: {kind} {message_ids}")

    def incoming(self, name: str | None, message: Incoming) -> None:
        raise AssertionError(f"{name}: {message}")

    def defect(self, text: str) -> None:
        raise AssertionError(text)

    def visited(self, device_id: str, *, online: bool, presence: bool = False, note: str | None = None) -> None:
        raise AssertionError(f"{device_id}: {online} {presence} {note}")

    def login_answered(self, device_id: str, *, outdated: bool) -> None:
        raise AssertionError(f"{device_id}: {outdated}")

    def clients_changed(self, opened: list[str], closed: list[str], openings: int) -> None:
        raise AssertionError(f"{opened} {closed} {openings}")


def settings_of(transport: str) -> dict[str, str]:
    """Unique settings for a device."""
    number = next(_numbers)
    match transport:
        case "wablas":
            return {"token": f"wablas-token-{number}"}
        case "whacenter":
            return {"device_id": f"whacenter-id-{number}"}
        case _:
            return {"phone_number_id": f"1000{number}", "token": f"cloud-token-{number}"}


def key_of(settings: dict[str, str]) -> str:
    """The secret of a device."""
    return settings.get("token") or settings["device_id"]


class PlatformDevice:
    """One device, with its own transport unless one is given."""

    def __init__(self, transport: HttpPlatform, settings: dict[str, str], proxy: str | None = None) -> None:
        self.transport = transport
        self.settings = settings
        self.device = DeviceSpec(id=f"p{next(_numbers)}", transport=transport.name, settings=settings, proxy=proxy)

    async def send(self, **job: Any) -> Sent:
        """Raises SendError."""
        return await self.hand_over(await self.prepare(**job))

    async def prepare(self, **job: Any) -> tuple[JobSpec, Any]:
        if isinstance(job.get("details"), dict):
            job["details"] = json.dumps(job["details"])  # as the database has it
        spec = JobSpec(
            **{
                "id": next(_numbers),
                "epoch": 1,
                "attempt": 1,
                "token": 1,
                "device_id": self.device.id,
                "recipient": TO,
                **job,
            }
        )
        fetched = await self.transport.fetch(self.device, spec)
        return spec, await self.transport.prepare(self.device, spec, fetched)

    async def hand_over(self, prepared: tuple[JobSpec, Any]) -> Sent:
        return await self.transport.deliver(self.device, *prepared)

    async def fail(self, **job: Any) -> SendError:
        """Send a job that must fail, and return the error."""
        with pytest.raises(SendError) as caught:
            await self.send(**{"body": "hello", **job})
        assert key_of(self.settings) not in f"{caught.value!s} {caught.value!r}", "the secret is in the error"
        return caught.value


async def make_device(
    transport: str,
    base: str,
    *,
    settings: dict[str, str] | None = None,
    proxy: str | None = None,
    **config: Any,
) -> PlatformDevice:
    """`config`: transport options besides `base`. The caller closes the transport."""
    own = {"base": base, "connect_timeout": 5.0, "answer_timeout": 20.0, **config}
    plain = TransportsConfig().as_plain()[transport] | own
    spec = TransportSpec(TRANSPORTS[transport].implementation, plain)
    made = await Transports({transport: spec}, Surroundings(), NoEvents()).load(transport)
    assert isinstance(made, HttpPlatform)
    return PlatformDevice(made, settings or settings_of(transport), proxy)
