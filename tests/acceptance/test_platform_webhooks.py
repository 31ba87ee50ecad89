"""What Wablas and Whacenter report, through the daemon: opt-outs, replies and statuses, at the secret path of each device."""

from __future__ import annotations

from typing import Any

import aiohttp

from tests.acceptance.test_platforms import MakeDaemon, add_device, insert, platforms_config, row, until
from tests.integration.inbound.test_cloud_webhook import free_port
from tests.platform_server.server import PlatformServer
from tests.support.command import Command
from tests.support.daemon import Producer
from tests.unit.inbound.test_platform_reports import TRACKING, WABLAS, WHACENTER

SECRET = "secret-of-the-paths"


async def test_opt_outs_replies_and_statuses_are_heard_at_the_path_of_a_device(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    address = f"127.0.0.1:{free_port()}"
    webhook = {"listen": address, "secret": SECRET}
    daemon = make_daemon(
        **platforms_config(
            platforms.base, wablas={"webhook": webhook, "default_region": "ID"}, whacenter={"webhook": dict(webhook)}
        )
    )
    daemon.write_config()
    shardd = Command(daemon.config_file)
    add_device(producer, "wablas", "w1", {"token": "wablas-token"})
    add_device(producer, "wablas", "w2", {"token": "wablas-token-2"})
    add_device(producer, "whacenter", "c1", {"device_id": "whacenter-id"})
    jobs = {name: insert(producer, name, "hello") for name in ("w1", "w2", "c1")}
    await daemon.start()
    await producer.until_finished(daemon, 3)
    printed = await shardd("device", "webhook", "w1", "w2", "c1", "--json")
    paths = {one["id"]: one["path"] for one in printed.json}
    assert len(set(paths.values())) == 3
    producer.add_devices(1)
    assert "only those of wablas and whacenter have a path" in (await shardd("device", "webhook", "d1")).err
    assert (await shardd("device", "webhook", "nobody")).code == 64

    async with aiohttp.ClientSession() as http:

        async def post(path: str, **how: Any) -> tuple[int, str]:
            async with http.post(f"http://{address}{path}", **how) as answer:
                return answer.status, await answer.text()

        read = {**TRACKING, "id": row(producer, jobs["w1"])["message_id"]}
        assert await post(paths["w1"], json=read) == (200, "")
        rejected = {**TRACKING, "id": row(producer, jobs["w2"])["message_id"], "status": "reject"}
        assert await post(paths["w2"], data=rejected) == (200, "")
        reply = {**WABLAS, "id": "M1", "phone": "6281234567891", "message": "yes please, send me two"}
        assert await post(paths["w1"], json=reply) == (200, "")
        assert await post(paths["w1"], json=reply) == (200, "")
        assert await post(paths["c1"], json={**WHACENTER, "message": "Stop"}) == (200, "")
        # A sender without country code, and one who cannot be read.
        local = {**WABLAS, "id": "M3", "phone": "0812 3456 7893", "messageType": "conversation", "message": "stop"}
        assert await post(paths["w1"], json=local) == (200, "")
        assert await post(paths["w1"], json={**WABLAS, "id": "M4", "phone": "Budi", "message": "stop"}) == (200, "")
        # Who does not know a path reports nothing.
        wrong = paths["w1"][:-1] + ("0" if paths["w1"][-1] != "0" else "1")
        stop = {**WABLAS, "phone": "6281234567892"}
        for path in (wrong, "/wablas/", "/", paths["w1"].replace("wablas", "whacenter")):
            assert (await post(path, json=stop))[0] == 404
        assert (await post(paths["w1"], data=b"[]"))[0] == 400
        assert (await post(paths["w1"], data=b"{"))[0] == 400

        # A disk that takes nothing: the platform is told to repeat, and the status says so until that is over.
        inbox, receipts = daemon.home / "inbox", daemon.home / "receipts.spool"
        await until(daemon, lambda: not receipts.exists() and not any(inbox.iterdir()))
        inbox.rename(daemon.home / "inbox.away")
        inbox.touch()
        receipts.mkdir()
        late = {**WABLAS, "id": "M2", "phone": "6281234567891", "message": "and one for me"}
        assert (await post(paths["w1"], json=late))[0] == 503
        assert (await post(paths["w1"], json=read))[0] == 503

        def refused(status: dict[str, Any]) -> list[str]:
            return [text for text in status["problems_by_kind"].get("inbox", []) if "are refused" in text]

        await daemon.until(lambda status: len(refused(status)) == 2)
        inbox.unlink()
        (daemon.home / "inbox.away").rename(inbox)
        receipts.rmdir()
        await daemon.until(lambda status: not refused(status))
        assert await post(paths["w1"], json=late) == (200, "")

    await until(daemon, lambda: row(producer, jobs["w1"])["read_at"] is not None)
    await until(daemon, lambda: row(producer, jobs["w2"])["state"] == "failed")
    assert row(producer, jobs["w2"])["error"] == "Wablas reports: reject"
    await until(daemon, lambda: len(producer.execute("SELECT 1 FROM shardd.opt_outs")) == 2)
    listed = producer.execute("SELECT address, source FROM shardd.opt_outs ORDER BY address")
    assert listed == [("6281234567890", "message"), ("6281234567893", "message")]
    stopped = insert(producer, "w1", "more", "+6281234567890")
    assert row(producer, stopped)["state"] == "opted_out"
    await until(daemon, lambda: len(producer.execute("SELECT 1 FROM shardd.messages")) == 5)
    events = producer.execute("SELECT data FROM shardd.events WHERE kind = 'message.received' ORDER BY id")
    told = {(data["device_id"], data["sender"], data["text"]) for (data,) in events}
    assert told == {
        ("w1", "+6281234567891", "yes please, send me two"),
        ("w1", "+6281234567891", "and one for me"),
        ("c1", "+6281234567890", "Stop"),
        ("w1", "+6281234567893", "stop"),
        ("w1", "", "stop"),
    }
    assert len(events) == 5
    assert daemon.log_file.read_text().count("the sender of a message cannot be read") == 1
    assert await daemon.stop() == 0
    log = daemon.log_file.read_text()
    assert SECRET not in log
    assert not [path for path in paths.values() if path in log]
