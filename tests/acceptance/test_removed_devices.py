"""What people write to devices that are not there any more: whoever asks for no more messages is heard all the same."""

from __future__ import annotations

import time
from typing import Any

import aiohttp

from tests.acceptance.test_cloud_statuses import Meta
from tests.acceptance.test_metrics import read_metrics
from tests.acceptance.test_platforms import MakeDaemon, add_device, insert, row, until
from tests.integration.inbound.test_cloud_webhook import free_port
from tests.platform_server.server import PlatformServer
from tests.support.command import Command
from tests.support.daemon import Producer
from tests.unit.inbound.test_platform_reports import WABLAS


def said(message_id: str, sender: str, text: str) -> dict[str, Any]:
    now = str(int(time.time()))
    return {"id": message_id, "from": sender, "timestamp": now, "type": "text", "text": {"body": text}}


async def test_a_stop_to_a_device_that_is_removed_or_unknown_counts(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    address = f"127.0.0.1:{free_port()}"
    meta = Meta(make_daemon, platforms, opt_outs={"confirm": "You get no more messages."})
    daemon = meta.daemon
    paths = {"wablas": {"webhook": {"listen": address, "secret": "secret-of-the-paths"}}}
    daemon.write_config(transports=paths, control={"metrics": f"127.0.0.1:{free_port()}"})
    shardd = Command(daemon.config_file)
    add_device(producer, "cloud_api", "support", {"phone_number_id": "1", "token": "token-1"})
    add_device(producer, "cloud_api", "other", {"phone_number_id": "2", "token": "token-2"})
    add_device(producer, "wablas", "jakarta-1", {"token": "wablas-token"})
    path = (await shardd("device", "webhook", "jakarta-1", "--json")).json[0]["path"]
    job = insert(producer, "support", "hello", "+6281234567801")
    await daemon.start()
    await producer.until_finished(daemon, 1)
    removed = await shardd("device", "remove", "support", "jakarta-1")
    assert removed.out.startswith("removed 2 devices\n")
    assert "who asks for no more messages is heard for as long as the platform reports" in removed.out

    async with aiohttp.ClientSession() as http:

        async def post(to: str, sender: str, text: str) -> int:
            async with http.post(
                f"http://{address}{to}", json={**WABLAS, "id": sender, "phone": sender, "message": text}
            ) as answer:
                return answer.status

        # The daemon learns of the removal by a notification: until then all is stored as before.
        await daemon.until(lambda status: status["totals"]["devices"] == 1)
        assert await post(path, "6281234567802", "stop") == 200
        assert await post(path, "6281234567803", "hello?") == 200
        # A path of another secret, and what no platform asks for.
        assert await post("/wablas/" + "0" * 40, "6281234567804", "stop") == 404
        assert await post("/favicon.ico", "6281234567804", "stop") == 404
    assert (
        await meta.post(
            "1", messages=[said("wamid.1", "6281234567805", "Stop"), said("wamid.2", "6281234567806", "hm")]
        )
        == 200
    )
    # A number that no device ever had.
    assert (
        await meta.post(
            "999", messages=[said("wamid.3", "6281234567807", "Stop"), said("wamid.4", "6281234567808", "hm")]
        )
        == 200
    )
    # What Meta reports of a message that the removed device had sent.
    await meta.report("1", row(producer, job)["message_id"], "failed", errors=[{"code": 131026, "title": "no"}])
    await until(daemon, lambda: row(producer, job)["state"] == "failed")

    stopped = {"6281234567802": "jakarta-1", "6281234567805": "support", "6281234567807": "phone_number_id 999"}
    await until(daemon, lambda: len(producer.execute("SELECT 1 FROM shardd.opt_outs")) == 3)
    assert dict(producer.execute("SELECT address, device_id FROM shardd.opt_outs")) == stopped
    for address in stopped:
        late = insert(producer, "other", "more", f"+{address}")
        assert row(producer, late)["state"] == "opted_out"
    shown = await shardd("opt-out", "show", "+6281234567807")
    assert "phone_number_id 999" in shown.out
    inbox = producer.execute("SELECT device_id, text FROM shardd.messages ORDER BY device_id")
    assert inbox == [("jakarta-1", "stop"), ("phone_number_id 999", "Stop"), ("support", "Stop")]
    assert len(platforms.received) == 1, "no removed device confirms"

    # The two messages of the unknown number, and the post to the path.
    status = (await shardd("status", "--json")).json
    assert (status["unattributed_reports"], status["healthy"]) == (3, True)
    assert [note for note in status["notes"] if note.startswith("platforms posted 3 reports for no device")]
    assert (await read_metrics(daemon))["shardd_unattributed_reports_total", ""] == 3
    log = daemon.log_file.read_text()
    assert log.count("a platform reports for no device") == 2
    assert "0" * 40 not in log
    assert await daemon.stop() == 0
