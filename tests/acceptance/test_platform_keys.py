"""A key that a platform refuses, with a running daemon: the device stops, and the key is never shown."""

from __future__ import annotations

import json

from tests.acceptance.test_platforms import MakeDaemon, insert, platforms_config, row, until
from tests.platform_server.server import PlatformServer, says
from tests.support.command import Command
from tests.support.daemon import Producer


async def test_a_dead_token_stops_the_device_and_no_secret_is_anywhere(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    token = "EAAB-very-secret-token"
    platforms.next(says(401, {"error": {"code": 190, "message": f"Error validating access token {token}"}}))
    daemon = make_daemon(**platforms_config(platforms.base), log={"level": "debug"})
    daemon.environ["CLOUD_TOKEN_OF_TEST"] = token
    daemon.write_config()
    shardd = Command(daemon.config_file)
    settings = {"phone_number_id": "42", "token": token}
    added = await shardd("device", "add", "p1", "--transport", "cloud_api", "--settings", json.dumps(settings))
    assert "added 1 cloud_api device" in added.out, added
    settings["token"] = "${CLOUD_TOKEN_OF_TEST}"
    of_another = json.dumps(settings | {"phone_number_id": "43"})
    await shardd("device", "add", "p2", "--transport", "cloud_api", "--settings", of_another)
    job = insert(producer, "p1", "hello")
    await daemon.start()

    def device_state() -> str:
        return str(producer.execute("SELECT state FROM shardd.devices WHERE id = 'p1'")[0][0])

    await until(daemon, lambda: device_state() == "logged_out")
    other = insert(producer, "p2", "hello")
    await producer.until_finished(daemon, 1)
    assert (row(producer, job)["state"], row(producer, other)["state"]) == ("queued", "sent")
    assert [received.key for received in platforms.received] == [token, token]
    shown = [
        await shardd("device", "show", "p1"),
        await shardd("device", "show", "p1", "--json"),
        await shardd("device", "show", "p2"),
        await shardd("device", "list", "--json"),
        await shardd("job", "show", str(job)),
        await shardd("status", "--json"),
    ]
    assert "give it another: shardd device set p1" in " ".join(shown[0].out.split())
    assert "CLOUD_TOKEN_OF_TEST" in shown[2].out
    written = str(producer.execute("SELECT reason FROM shardd.devices UNION ALL SELECT error FROM shardd.outcomes"))
    assert "Error validating access token ***" in written
    assert token not in written
    settings["token"] = "EAAB-another-secret-token"
    changed = await shardd("device", "set", "p1", "--settings", json.dumps(settings))
    assert changed.code == 0, changed.err
    await until(daemon, lambda: row(producer, job)["state"] == "sent")
    assert [received.key for received in platforms.received][2:] == [settings["token"]]
    assert await daemon.stop() == 0
    everything = "".join(one.out + one.err for one in shown) + daemon.log_file.read_text()
    assert token not in everything


async def test_a_device_that_backs_off_says_so_and_is_tried_at_once_when_its_settings_are_corrected(
    make_daemon: MakeDaemon, producer: Producer, platforms: PlatformServer
) -> None:
    daemon = make_daemon(**platforms_config(platforms.base))
    daemon.write_config()
    shardd = Command(daemon.config_file)
    settings = {"phone_number_id": "42", "token": "${NOT_SET_IN_TESTS}"}
    await shardd("device", "add", "p1", "--transport", "cloud_api", "--settings", json.dumps(settings))
    job = insert(producer, "p1", "hello")
    await daemon.start()
    await daemon.until(lambda status: any("p1: " in note for note in status["notes"]))

    shown = " ".join((await shardd("device", "show", "p1")).out.split())
    assert "to do nothing yet: it is backing off after the error below and tries again" in shown
    assert "nothing to do" not in shown
    assert "NOT_SET_IN_TESTS" in (await shardd("device", "show", "p1", "--json")).json["error"]

    settings["token"] = "EAAB-right"
    assert (await shardd("device", "set", "p1", "--settings", json.dumps(settings))).code == 0
    await until(daemon, lambda: row(producer, job)["state"] == "sent")
    assert (await shardd("device", "show", "p1", "--json")).json["error"] is None
