"""What platforms answer according to their owners and other clients, through the daemon: who waits, who fails, who goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.acceptance.test_platforms import MakeDaemon, add_device, insert, platforms_config, row, until
from tests.platform_server import server as steps
from tests.platform_server.server import Connection, PlatformServer, Step, says
from tests.support.daemon import Producer


def error(code: int, status: int = 400) -> Step:
    """An error of the Cloud API, as Meta's list of errors has it: code, message, details."""
    data = {"messaging_product": "whatsapp", "details": "and so"}
    return says(
        status,
        {"error": {"message": f"(#{code}) So it is", "type": "OAuthException", "code": code, "error_data": data}},
    )


REFUSED_NUMBER = "6281200000099"
FATES: Mapping[str, Step] = {
    # by the key of the device
    "whacenter-offline": says(200, {"status": False, "message": "device not connected or not found"}),
    "whacenter-wrong": says(401, {"status": False, "message": "Invalid API Key"}),
    "wablas-token.wrong": says(200, {"status": False, "message": "secret key invalid"}),
    "wablas-gone": says(403, {"status": False, "message": "device not found"}),
    "cloud-unpaid": error(131042),
    "cloud-enforced": error(131064),
    "cloud-session": error(102, 401),
}


async def test_answers_of_each_platform_as_their_owners_publish_them(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    throttled = iter([error(130429, 429)])

    async def by_device(connection: Connection) -> None:
        received = await connection.read()
        assert received is not None
        step = FATES.get(received.key, steps.good)
        if received.recipient == REFUSED_NUMBER:
            step = error(130497, 403)
        elif received.content.get("phone_number_id") == "31":
            step = next(throttled, steps.good)
        await step(connection)

    platforms.otherwise = by_device
    daemon = make_daemon(**platforms_config(platforms.base))
    devices: dict[str, tuple[str, dict[str, Any]]] = {
        "offline": ("whacenter", {"device_id": "whacenter-offline"}),
        "wrong": ("whacenter", {"device_id": "whacenter-wrong"}),
        "right": ("whacenter", {"device_id": "whacenter-right"}),
        "wrong-key": ("wablas", {"token": "wablas-token", "secret_key": "wrong"}),
        "gone": ("wablas", {"token": "wablas-gone"}),
        "unpaid": ("cloud_api", {"phone_number_id": "1", "token": "cloud-unpaid"}),
        "enforced": ("cloud_api", {"phone_number_id": "2", "token": "cloud-enforced"}),
        "session": ("cloud_api", {"phone_number_id": "3", "token": "cloud-session"}),
        "abroad": ("cloud_api", {"phone_number_id": "4", "token": "cloud-abroad"}),
        "fast": ("cloud_api", {"phone_number_id": "31", "token": "cloud-shared"}),
        "sibling": ("cloud_api", {"phone_number_id": "32", "token": "cloud-shared"}),
    }
    for name, (transport, settings) in devices.items():
        add_device(producer, transport, name, settings)
    jobs = {name: [insert(producer, name, f"{name} {n}") for n in range(3)] for name in devices if name != "abroad"}
    jobs["abroad"] = [insert(producer, "abroad", "no", f"+{REFUSED_NUMBER}")]
    jobs["abroad"] += [insert(producer, "abroad", f"yes {n}") for n in range(10)]
    voice = insert(producer, "sibling", "", kind="voice", media="https://files.example.com/a.ogg")
    await daemon.start()

    def states(name: str) -> list[str]:
        return [str(row(producer, job)["state"]) for job in jobs[name]]

    def device(name: str) -> str:
        return str(producer.execute("SELECT state FROM shardd.devices WHERE id = %s", name)[0][0])

    await until(daemon, lambda: states("abroad") == ["failed", *["sent"] * 10])
    await until(daemon, lambda: states("right") == states("sibling") == ["sent"] * 3)
    dead = ("wrong", "wrong-key", "gone", "session")
    await until(daemon, lambda: all(device(name) == "logged_out" for name in dead))
    waiting = ("offline", "unpaid", "enforced", "fast")
    await until(daemon, lambda: all(row(producer, jobs[name][0])["error"] for name in waiting))
    # One refusal is enough: none of the others was tried, and none failed.
    for name in (*dead, *waiting):
        assert states(name) == ["queued"] * 3, name
        assert device(name) == ("logged_out" if name in dead else "ready")
    tries = [received.key for received in platforms.received]
    assert {key: tries.count(key) for key in FATES} == dict.fromkeys(FATES, 1)
    classes = {name: row(producer, jobs[name][0])["error_class"] for name in (*waiting, "abroad")}
    assert classes == {
        "offline": "device", "unpaid": "account", "enforced": "account", "fast": "rate_limit", "abroad": "recipient",
    }  # fmt: skip
    assert row(producer, jobs["right"][0])["message_id"].startswith("110")
    await until(daemon, lambda: row(producer, voice)["state"] == "sent")
    (sent,) = [received.content for received in platforms.received if received.content.get("type") == "audio"]
    assert sent["audio"] == {"link": "https://files.example.com/a.ogg", "voice": True}
