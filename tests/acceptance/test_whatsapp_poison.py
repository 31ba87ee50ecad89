"""A message whose preparation ends its worker, with the real library and valid messages of other devices."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.fixtures.whatsapp_fleet import Fleet, Phone
from tests.support.daemon import wait_gone
from tests.support.media_files import plain_image


def send_image(fleet: Fleet, phone: Phone) -> int:
    (row,) = fleet.rows(
        "INSERT INTO shardd.jobs (device_id, recipient, kind, media, max_attempts) VALUES (%s, %s, 'image', 'a.png', 1) "
        "RETURNING id",
        *(phone.id, "+" + fleet.stranger()),
    )
    return int(row["id"])


async def test_a_job_whose_preparation_kills_its_worker_fails_and_all_others_are_sent_once(
    fleet: Fleet, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(plain_image(60, 40))
    poisoned, *others = fleet.add(6)
    daemon = fleet.daemon(
        shards=1,
        supervisor={"backoff": {"first": "50ms", "cap": "200ms"}},
        transports={"whatsapp": {"media_dir": str(tmp_path), "answer_timeout": "60s"}},
    )
    # The library uploads the image and gets no answer; that is when its worker is killed.
    fleet.server.control.fault("mute", "upload", device=poisoned.name, times=None)
    await daemon.start()
    job = send_image(fleet, poisoned)
    behind = fleet.send(poisoned, "behind it")
    good = [send_image(fleet, phone) for phone in others]
    seen = 0
    for death in range(1, 4):
        (event,) = await fleet.control.wait_events("fault", device=poisoned.number, after=seen)
        seen = event.number
        if death < 3:
            # It keeps up nobody, until it is prepared alone.
            assert await fleet.finished(len(good)) == {"sent": len(good), "queued": 1, "sending": 1}
        (pid,) = daemon.worker_pids()
        os.kill(pid, signal.SIGKILL)
        await wait_gone(pid)
        good += [fleet.send(phone, f"{phone.id} after {death}") for phone in others]
        await daemon.until(lambda status, n=death: status["shards"][0]["restarts"] == n)  # type: ignore[misc]
    row = await fleet.job_is(job, "failed")
    assert (row["error_class"], row["failures"]) == ("worker", 1)
    assert row["error"] == "its worker died while preparing it, even when it prepared no other job: SIGKILL"
    fleet.server.control.clear_faults()
    assert await fleet.finished(len(good) + 2) == {"sent": len(good) + 1, "failed": 1}
    assert fleet.job(behind)["state"] == "sent"
    arrived = fleet.server.control.messages()
    assert len(arrived) == len(good) + 1
    assert all(len(message.arrivals) == 1 for message in arrived)
    fleet.check_one_client_each()
    (problem,) = (await daemon.status())["problems"]
    assert f"job {job} of device {poisoned.id}" in problem
