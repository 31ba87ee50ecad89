"""get_or_refresh with the real library: which clients are opened, reused and closed, and what remains when idle."""

import asyncio
import time
from pathlib import Path
from typing import Any

from shardd.transports.whatsapp.clients.connecting import AHEAD
from shardd.transports.whatsapp.clients.window import LAST, USUAL
from tests.integration.whatsapp.conftest import MakeDevice, StartHost
from tests.integration.whatsapp.host_process import HostProcess
from tests.whatsapp_server.launch import ServerProcess

RECIPIENT = "6281234567890"
NUMBER = "6281234567890"


def connections_to(port: int) -> int:
    """Established TCP connections of this machine to a port (proc(5): remote address, state 01)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)


async def until_disconnected(whatsapp: ServerProcess) -> None:
    async with asyncio.timeout(20):
        while connections_to(whatsapp.proxy_port):  # noqa: ASYNC110 - another process's connections
            await asyncio.sleep(0.005)


async def test_a_cold_device_sends_and_the_phone_reads_the_exact_text(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    told = await host.send(device, RECIPIENT, "selamat pagi ☀ \n *bold*")
    (message,) = await whatsapp.async_control.wait_messages(1, recipient=NUMBER)
    assert told == {"message_id": message.id}
    assert message.text == "selamat pagi ☀ \n *bold*"
    receipt = await host.event("receipt", device["id"], kind="delivered")
    assert receipt["ids"] == [message.id]
    assert abs(receipt["at"] - time.time()) < 60


async def test_a_read_message_says_so(host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess) -> None:
    whatsapp.control.settings(receipts="read")
    told = await host.send(device, RECIPIENT)
    receipt = await host.event("receipt", device["id"], kind="read")
    assert receipt["ids"] == [told["message_id"]]


async def test_a_healthy_client_is_used_again(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    for text in ("one", "two", "three"):
        assert "message_id" in await host.send(device, RECIPIENT, text)
    assert (await host.ask("counts"))["connects"] == 1
    seen = await whatsapp.async_control.wait_messages(3, recipient=NUMBER)
    assert [message.text for message in seen] == ["one", "two", "three"]


async def test_a_quiet_client_is_probed_and_used_again(start_host: StartHost, device: dict[str, Any]) -> None:
    host = await start_host(probe_after=0.001)
    for _ in range(3):
        assert "message_id" in await host.send(device, RECIPIENT)
    assert (await host.ask("counts"))["connects"] == 1


async def test_after_the_idle_time_nothing_of_a_device_is_left(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str
) -> None:
    host = await start_host(idle_close=0.5)
    empty = await host.ask("counts")
    assert connections_to(whatsapp.proxy_port) == 0
    devices = [make_device(str(int(fresh_number) + 300_000 + n)) for n in range(5)]
    await asyncio.gather(*(host.send(device, RECIPIENT) for device in devices))
    assert connections_to(whatsapp.proxy_port) > 0
    left = await host.until(open=0, threads=empty["threads"], tasks=empty["tasks"])
    assert left["connects"] == 5
    assert connections_to(whatsapp.proxy_port) == 0


async def test_a_client_whose_server_vanished_is_closed_and_does_not_come_back_by_itself(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    empty = await host.ask("counts")
    await host.send(device, RECIPIENT)
    whatsapp.control.cut()
    await host.until(open=0, threads=empty["threads"])
    assert len(whatsapp.control.events("login", device=device["session"].partition("@")[0])) == 1
    await until_disconnected(whatsapp)
    assert "message_id" in await host.send(device, RECIPIENT)
    assert (await host.ask("counts"))["connects"] == 2


async def test_a_message_that_comes_right_after_its_connection_was_lost_is_sent(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    assert "message_id" in await host.send(device, RECIPIENT)
    whatsapp.control.cut(device["session"].partition("@")[0])
    await until_disconnected(whatsapp)
    told = await host.send(device, RECIPIENT)
    assert "message_id" in told, told


async def test_the_least_recently_used_client_makes_room(
    start_host: StartHost, make_device: MakeDevice, fresh_number: str
) -> None:
    host = await start_host(max_open_clients=2, max_connecting=1)
    first, second, third = (make_device(str(int(fresh_number) + 400_000 + n)) for n in range(3))
    for device in (first, second, first, third):
        assert "message_id" in await host.send(device, RECIPIENT)
        assert (await host.ask("counts"))["open"] <= 2
    assert (await host.ask("counts"))["connects"] == 3
    assert "message_id" in await host.send(first, RECIPIENT)
    assert (await host.ask("counts"))["connects"] == 3
    assert "message_id" in await host.send(second, RECIPIENT)
    assert (await host.ask("counts"))["connects"] == 4


async def test_a_crowd_gets_through_a_narrow_door(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str
) -> None:
    host = await start_host(max_open_clients=4, max_connecting=2)
    devices = [make_device(str(int(fresh_number) + 600_000 + n)) for n in range(24)]
    told = await asyncio.gather(*(host.send(device, RECIPIENT, device["id"]) for device in devices))
    assert all("message_id" in answer for answer in told), told
    seen = await whatsapp.async_control.wait_messages(24, recipient=NUMBER)
    assert sorted(message.text for message in seen) == sorted(device["id"] for device in devices)
    assert (await host.ask("counts"))["open"] <= 4


async def test_a_device_that_does_not_get_in_comes_again_soon(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str
) -> None:
    host = await start_host(max_connecting=1, connect_timeout=0.5)
    devices = [make_device(str(int(fresh_number) + 700_000 + n)) for n in range(3)]
    whatsapp.control.fault("mute", "upgrade", times=None)
    told = await asyncio.gather(*(host.send(device, RECIPIENT) for device in devices))
    kept_out = [answer for answer in told if "for others to connect" in answer["text"]]
    assert kept_out, told
    assert {answer["retry_after"] for answer in kept_out} == {1.0}


async def test_two_jobs_of_one_device_open_one_client(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    told = await asyncio.gather(*(host.send(device, RECIPIENT, str(n)) for n in range(4)))
    assert all("message_id" in answer for answer in told)
    assert len(whatsapp.control.events("login", device=device["session"].partition("@")[0])) == 1


async def test_a_closed_device_opens_again_when_asked(host: HostProcess, device: dict[str, Any]) -> None:
    await host.send(device, RECIPIENT)
    await host.ask("close_device", device=device["id"])
    assert (await host.ask("counts"))["open"] == 0
    assert "message_id" in await host.send(device, RECIPIENT)


async def test_closing_a_device_while_it_sends_never_makes_a_second_client(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    for _ in range(10):
        sending = [asyncio.create_task(host.send(device, RECIPIENT)) for _ in range(3)]
        await asyncio.gather(*(host.ask("close_device", device=device["id"]) for _ in range(3)))
        await asyncio.gather(*sending)
    assert [event for event in host.events if event["event"] == "device_changed"] == []
    await host.ask("close_device", device=device["id"])
    assert (await host.ask("counts"))["open"] == 0


async def test_another_session_of_the_device_replaces_its_client(
    host: HostProcess, device: dict[str, Any], make_device: MakeDevice, fresh_number: str
) -> None:
    await host.send(device, RECIPIENT)
    other = {**make_device(str(int(fresh_number) + 700_000)), "id": device["id"]}
    assert "message_id" in await host.send(other, RECIPIENT)
    counts = await host.ask("counts")
    assert (counts["open"], counts["connects"]) == (1, 2)


async def test_closing_ends_everything(host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess) -> None:
    await host.send(device, RECIPIENT)
    await host.ask("close")
    assert (await host.ask("counts"))["open"] == 0
    assert connections_to(whatsapp.proxy_port) == 0


async def test_what_is_open_and_how_many_more_may_open_is_reported(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str
) -> None:
    host = await start_host(max_open_clients=2, max_connecting=1)
    await host.event("clients_changed", opened=[], closed=[], openings=2)
    first, second = (make_device(str(int(fresh_number) + 700_000 + n)) for n in range(2))
    for device in (first, second):
        await host.send(device, RECIPIENT)
        # A client that is not in use makes room.
        await host.event("clients_changed", opened=[device["id"]], closed=[])
    await host.ask("close_device", device=first["id"])
    await host.event("clients_changed", opened=[], closed=[first["id"]])
    whatsapp.control.fault("ignore", "message", accepted=True, times=2)
    sending = [asyncio.create_task(host.send(device, RECIPIENT)) for device in (first, second)]
    await host.event("clients_changed", openings=0)
    for task in sending:
        task.cancel()


async def test_more_may_connect_at_once_as_the_worker_keeps_up_and_fewer_while_whatsapp_does_not_answer(
    start_host: StartHost, make_device: MakeDevice, whatsapp: ServerProcess, fresh_number: str
) -> None:
    host = await start_host(max_connecting=USUAL)
    # Logins that take long, as over a long way, so that many are connecting at once.
    whatsapp.control.fault("delay", "login", seconds=0.5, times=None)
    devices = [make_device(str(int(fresh_number) + 1_200_000 + n)) for n in range(2 * USUAL)]
    told = await asyncio.gather(*(host.send(device, RECIPIENT) for device in devices))
    assert all("message_id" in answer for answer in told), told
    await host.event("clients_changed", openings=USUAL + AHEAD)
    whatsapp.control.clear_faults()
    whatsapp.control.fault("drop", "login", times=None)
    seen_before = len(host.events)
    others = [make_device(str(int(fresh_number) + 1_300_000 + n)) for n in range(LAST)]
    told = await asyncio.gather(*(host.send(device, RECIPIENT) for device in others))
    assert {answer["text"] for answer in told} == {"the connection to WhatsApp was lost"}
    await host.event("clients_changed", after=seen_before, openings=USUAL // 2 + AHEAD)


async def test_proxies_that_say_nothing_keep_no_other_device_from_connecting(
    start_host: StartHost, make_device: MakeDevice, fresh_number: str
) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as proxy:
        url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        host = await start_host(max_connecting=USUAL, connect_timeout=1.0)
        devices = [make_device(str(int(fresh_number) + 1_400_000 + n)) | {"proxy": url} for n in range(2 * LAST)]
        told = await asyncio.gather(*(host.send(device, RECIPIENT) for device in devices))
        assert all("message_id" not in answer for answer in told)
        async with asyncio.timeout(20):
            while _openings(host) != USUAL + AHEAD:  # noqa: ASYNC110 - the last of several reports
                await asyncio.sleep(0.05)


def _openings(host: HostProcess) -> int:
    return next(seen["openings"] for seen in reversed(host.events) if seen["event"] == "clients_changed")
