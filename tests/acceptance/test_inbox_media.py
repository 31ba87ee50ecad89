"""Files of incoming messages with the daemon running: downloaded below a folder within limits, if the config asks for it."""

from __future__ import annotations

import hashlib
import re
import stat
from pathlib import Path
from typing import Any

from tests.acceptance.test_inbox import inbox, online
from tests.fixtures.whatsapp_fleet import Fleet
from tests.support.command import Command

PICTURE = b"\xff\xd8\xff\xe0" + hashlib.shake_256(b"a picture").digest(700_001)


def media_events(fleet: Fleet) -> list[dict[str, Any]]:
    rows = fleet.rows("SELECT data FROM shardd.read_events(NULL, 1000, '{message.media}')")
    return [row["data"] for row in rows]


def content(path: Path) -> bytes:
    return path.read_bytes()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_file_is_stored_with_its_bytes_and_told_and_goes_with_its_row(fleet: Fleet, tmp_path: Path) -> None:
    (phone,) = fleet.add(1)
    person = fleet.stranger()
    folder = tmp_path / "files"
    folder.mkdir()
    daemon = fleet.daemon(inbox={"media": "download", "media_dir": str(folder), "media_max_bytes": "1MiB"})
    await daemon.start()
    await online(fleet, phone, person)
    control = fleet.server.control
    control.write_media(phone.name, person, "image", PICTURE, "image/jpeg", caption="../../etc/cron.d/x")
    await fleet.until(lambda: len(inbox(fleet)) == 1 and inbox(fleet)[0]["media_path"])
    (row,) = inbox(fleet)
    path = Path(row["media_path"])
    assert content(path) == PICTURE
    assert path.parent.parent == folder
    assert re.fullmatch(r"[0-9a-f]{32}\.jpg", path.name)
    assert mode(path) == 0o640
    assert (row["media_error"], row["media_node"]) == (None, path.parent.name)
    (event,) = await fleet.until(lambda: media_events(fleet))
    assert (event["id"], event["media"]["path"]) == (row["id"], str(path))
    assert not list((daemon.state_dir / "inbox").iterdir()), "the key is gone"
    shown = (await Command(daemon.config_file)("inbox", "show", str(row["id"]), "--json")).json
    assert shown["media_path"] == str(path)

    fleet.rows("DELETE FROM shardd.messages")
    await fleet.until(lambda: not files(folder))
    await fleet.until(lambda: not fleet.rows("SELECT 1 FROM shardd.deleted_media"))
    assert await daemon.stop() == 0
