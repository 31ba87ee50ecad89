"""Devices that share an account, and the effect of a device's settings."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from shardd.errors import DeviceUnavailableError, ErrorClass, InDoubtError
from tests.fixtures.platforms import MakeDevice
from tests.platform_server.server import PlatformServer, says
from tests.support.platform_device import PlatformDevice


async def test_what_a_platform_asks_of_one_device_all_of_its_account_do(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    first = await make_platform_device("cloud_api", settings={"phone_number_id": "1", "token": "shared"})
    sibling = PlatformDevice(first.transport, {"phone_number_id": "2", "token": "shared"})
    stranger = PlatformDevice(first.transport, {"phone_number_id": "3", "token": "other"})
    platforms.next(says(429, {"error": {"code": 80007, "message": "too many calls"}}, Retry_After="120"))
    await first.fail()
    error = await sibling.fail()
    assert isinstance(error, DeviceUnavailableError)
    assert error.error_class == ErrorClass.RATE_LIMIT
    assert "its account is backing off" in str(error)
    await stranger.send(body="hello")
    assert [received.content["phone_number_id"] for received in platforms.received] == ["1", "3"]


async def test_the_throughput_of_a_number_is_its_own(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    """Meta's page on throughput: 130429 is a limit of each business phone number."""
    first = await make_platform_device("cloud_api", settings={"phone_number_id": "1", "token": "shared"})
    sibling = PlatformDevice(first.transport, {"phone_number_id": "2", "token": "shared"})
    platforms.next(says(429, {"error": {"code": 130429, "message": "(#130429) Rate limit hit"}}))
    error = await first.fail()
    assert isinstance(error, DeviceUnavailableError)
    assert not error.whole_account
    await sibling.send(body="hello")


async def test_while_a_platform_leaves_messages_in_doubt_it_gets_no_more_of_them(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    device = await make_platform_device("wablas")
    platforms.next(says(502, b"<html>"))
    assert isinstance(await device.fail(), InDoubtError)
    error = await device.fail()
    assert isinstance(error, DeviceUnavailableError)
    assert error.error_class == ErrorClass.SERVER
    assert "wablas answered 502" in str(error)
    assert platforms.connections == 1


async def test_a_rate_spaces_the_messages_of_all_devices_of_an_account(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    first = await make_platform_device("wablas", settings={"token": "shared"}, rate=20.0)
    devices = [first, *(PlatformDevice(first.transport, {"token": "shared"}) for _ in range(4))]
    loop = asyncio.get_running_loop()
    began = loop.time()
    ready = []

    async def prepare(device: PlatformDevice) -> None:
        await device.prepare(body="hello")
        ready.append(loop.time() - began)

    await asyncio.gather(*(prepare(device) for device in devices))
    # The n-th may leave n spacings after the first and no sooner; a clock's tick of tolerance.
    assert all(at >= n * 0.05 - 0.001 for n, at in enumerate(sorted(ready)))


async def test_a_turn_that_is_far_away_sends_the_job_back(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    device = await make_platform_device("wablas", rate=0.1)
    await device.send(body="hello")
    error = await device.fail()
    assert isinstance(error, DeviceUnavailableError)
    assert error.retry_after is not None
    assert 5 < error.retry_after <= 10
    assert "transports.wablas.rate" in str(error)
    assert len(platforms.received) == 1


async def test_settings_that_cannot_be_used_hold_the_device_back(
    platforms: PlatformServer, make_platform_device: MakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = await make_platform_device("wablas", settings={"token": "${SHARDD_TEST_TOKEN}"})
    error = await device.fail()
    assert isinstance(error, DeviceUnavailableError)
    assert error.error_class == ErrorClass.ACCOUNT
    assert "needs the variable SHARDD_TEST_TOKEN, which is not set" in str(error)
    assert f"shardd device set {device.device.id}" in str(error)
    assert platforms.connections == 0
    monkeypatch.setenv("SHARDD_TEST_TOKEN", "from-the-environment")
    await device.send(body="hello")
    assert [received.key for received in platforms.received] == ["from-the-environment"]


async def test_the_proxy_of_a_device_is_used(platforms: PlatformServer, make_platform_device: MakeDevice) -> None:
    """With plain http a proxy is asked for the whole URL, so a server that answers is proxy enough."""
    asked: list[tuple[str, str]] = []

    async def relay(request: web.BaseRequest) -> web.Response:
        asked.append((str(request.url), request.headers["Proxy-Authorization"].split()[0]))
        return web.json_response({"status": True})

    runner = web.ServerRunner(web.Server(relay))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    device = await make_platform_device("wablas", proxy=f"http://user:geheim@127.0.0.1:{port}")
    await device.send(body="hello")
    assert asked == [(f"{platforms.base}/api/send-message", "Basic")]
    assert platforms.connections == 0
    await runner.cleanup()
    error = await device.fail()
    assert isinstance(error, DeviceUnavailableError)
    assert error.error_class == ErrorClass.CONNECTION
    assert "geheim" not in str(error)


async def test_a_proxy_of_another_kind_is_refused(platforms: PlatformServer, make_platform_device: MakeDevice) -> None:
    error = await (await make_platform_device("wablas", proxy="socks5://user:geheim@127.0.0.1:1")).fail()
    assert isinstance(error, DeviceUnavailableError)
    assert "is a socks5 proxy" in str(error)
    assert "geheim" not in str(error)
    assert platforms.connections == 0


async def test_a_proxy_that_refuses_the_way_is_certainly_not_sent_and_keeps_its_password(
    make_platform_device: MakeDevice,
) -> None:
    async def refuse(_: web.BaseRequest) -> web.Response:
        return web.Response(status=407)

    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy = f"http://user:geheim@127.0.0.1:{runner.addresses[0][1]}"
    error = await (await make_platform_device("wablas", "https://127.0.0.1:1", proxy=proxy)).fail()
    await runner.cleanup()
    assert isinstance(error, DeviceUnavailableError)
    assert error.error_class == ErrorClass.CONNECTION
    assert "407" in str(error)
    assert "geheim" not in str(error)
