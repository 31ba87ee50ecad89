import time
from typing import Any

from tests.integration.whatsapp.host_process import HostProcess
from tests.whatsapp_server.launch import ServerProcess

RECIPIENT = "+62 812-3456-7890"
NUMBER = "6281234567890"


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


async def test_a_healthy_client_is_used_again(
    host: HostProcess, device: dict[str, Any], whatsapp: ServerProcess
) -> None:
    for text in ("one", "two", "three"):
        assert "message_id" in await host.send(device, RECIPIENT, text)
    assert (await host.ask("counts"))["connects"] == 1
    assert [m.text for m in await whatsapp.async_control.wait_messages(3, recipient=NUMBER)] == ["one", "two", "three"]
