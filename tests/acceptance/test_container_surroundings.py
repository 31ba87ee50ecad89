"""shardd within a restriction of the container manifests: a read-only root file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fixtures.whatsapp_fleet import Fleet
from tests.support.media_files import plain_image

# /proc and /dev are mounts of each container's own. /tmp is read-only here, though the manifests have a tmpfs there: the tests'
# state folders are below it.
READ_ONLY = r"""
state=$1
shift
mount --bind "$state" "$state"
findmnt --raw --noheadings --output TARGET | while read -r target; do
    target=$(printf '%b' "$target")
    case $target in
        "$state" | /proc | /proc/* | /dev | /dev/*) ;;
        *) mount -o remount,bind,ro "$target" || test ! -e "$target" ;;
    esac
done
for folder in / /tmp /var/tmp "$HOME"; do
    if ( : > "$folder/written" ) 2> /dev/null; then
        echo "$folder is writable" >&2
        exit 1
    fi
done
# The tests' PostgreSQL belongs to another account, in a folder that only that account and this capability may enter.
exec setpriv --no-new-privs --bounding-set=-all,+dac_override --inh-caps=-all "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make mounts read-only for itself")
async def test_sends_with_a_read_only_root(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(plain_image(400, 300))
    daemon = fleet.daemon(transports={"whatsapp": {"media_dir": str(tmp_path), "link_preview": True}})
    mounts = ("unshare", "--mount", "--propagation=private", "sh", "-e", "-c", READ_ONLY, "sh", str(daemon.home))
    daemon.inside = mounts
    await daemon.start()
    phone, *_ = fleet.add(1)
    fleet.send(phone, "hello")
    fleet.rows(
        "INSERT INTO shardd.jobs (device_id, recipient, kind, media) VALUES (%s, %s, 'image', 'image.png')",
        *(phone.id, "+" + fleet.stranger()),
    )
    assert await fleet.finished(2) == {"sent": 2}
    assert all(message.media is None or message.media.thumbnail for message in fleet.server.control.messages())
    assert (await daemon.status())["healthy"]

    # Its journals are read by the next start.
    daemon.kill()
    await daemon.wait_end()
    await daemon.start()
    fleet.send(phone, "again")
    assert await fleet.finished(3) == {"sent": 3}
    assert await daemon.stop() == 0
