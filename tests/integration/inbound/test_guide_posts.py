"""The shell blocks of the guide that rehearse what Meta and Wablas post, run as they are against listeners of this test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from shardd import ipc
from shardd.config import CloudWebhookConfig
from shardd.incoming import Incoming
from shardd.supervisor.inbound.cloud_webhook import CloudWebhook
from shardd.supervisor.inbound.path_webhook import PathWebhook
from shardd.supervisor.inbound.unattributed import UnattributedReports
from tests.integration.inbound.test_cloud_webhook import free_port
from tests.support.guide import blocks

SECRET = "app-secret-of-this-test"
PATH = f"/wablas/{'0f' * 20}"


class Kept:
    """What was passed on."""

    def __init__(self) -> None:
        self.receipts: list[ipc.Receipt] = []
        self.messages: list[Incoming] = []

    async def keep(self, receipts: Sequence[ipc.Receipt]) -> None:
        self.receipts += receipts

    async def incoming(self, messages: Sequence[Incoming]) -> None:
        self.messages += messages


async def run(heading: str, tmp_path: Path, **replaced: str) -> int:
    """The exit code of a section's block; `replaced`: addresses by their port in the guide."""
    (block,) = (one for one in blocks("platforms") if one.heading == heading and one.language == "sh")
    text = block.text
    for port, address in replaced.items():
        assert f"127.0.0.1:{port[1:]}" in text
        text = text.replace(f"127.0.0.1:{port[1:]}", address)
    shardd = tmp_path / "shardd"
    shardd.write_text(f"#!/bin/sh\necho 'jakarta-1  {PATH}'\n")
    shardd.chmod(0o755)
    environ = {**os.environ, "META_APP_SECRET": SECRET, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    process = await asyncio.create_subprocess_exec("bash", "-ec", text, env=environ)
    return await process.wait()


async def test_a_signed_notification_is_believed(tmp_path: Path) -> None:
    kept, address = Kept(), f"127.0.0.1:{free_port()}"
    webhook = CloudWebhook(
        CloudWebhookConfig(listen=address, app_secret=SECRET, verify_token="a-token-of-this-test"),
        lambda numbers: {number: ["support"] if number == "1234567890" else [] for number in numbers},
        receipts=kept.keep,
        incoming=kept.incoming,
        unavailable=lambda device_id, error, at: None,
        unattributed=UnattributedReports(),
    )
    await webhook.start()
    try:
        assert await run("What Meta posts", tmp_path, p8081=address) == 0
    finally:
        await webhook.close()
    (message,) = kept.messages
    assert (message.device_id, message.addresses, message.text) == ("support", ("+4915112345678",), "stop")
    assert (message.name, message.at) == ("Ada", 1700000000.0)


async def test_a_post_to_the_path_of_a_device_is_its(tmp_path: Path) -> None:
    kept, address = Kept(), f"127.0.0.1:{free_port()}"
    webhook = PathWebhook(
        address,
        "transports.wablas.webhook.listen",
        lambda path: ("wablas", "jakarta-1") if path == PATH else None,
        regions={},
        receipts=kept.keep,
        incoming=kept.incoming,
        unattributed=UnattributedReports(),
    )
    await webhook.start()
    try:
        assert await run("What Wablas and Whacenter post", tmp_path, p8082=address) == 0
    finally:
        await webhook.close()
    (message,) = kept.messages
    assert (message.device_id, message.addresses, message.text, message.name) == (
        "jakarta-1", ("+4915112345678",), "stop", "Ada",
    )  # fmt: skip
    (receipt,) = kept.receipts
    assert (receipt.message_ids, receipt.kind) == (["the message_id of a job"], "read")
