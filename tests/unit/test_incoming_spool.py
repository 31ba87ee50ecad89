"""The spool of incoming messages: a file for each, which costs only itself whatever happens to it."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from shardd import incoming_spool
from shardd.errors import UnsafeFileError
from shardd.incoming import Incoming
from shardd.incoming_spool import OPT_OUT, IncomingSpool


def message(number: int = 0, *, opt_out: bool = False, text: str = "Stop ☝\n\0") -> Incoming:
    addresses = (f"+62811000{number:04}", "77@lid")
    return Incoming(device_id="d1", message_id=f"A{number}", addresses=addresses, text=text, at=5.5, opt_out=opt_out)


def test_what_is_written_by_many_threads_is_read_in_its_order(tmp_path: Path) -> None:
    spool = IncomingSpool(tmp_path)
    assert spool.names() == []
    messages = [message(number) for number in range(40)]
    threads = [
        threading.Thread(target=lambda part: [spool.keep(one) for one in part], args=(messages[n::4],))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = IncomingSpool(tmp_path).names()
    found = [spool.read(name) for name in names]
    assert sorted(found, key=lambda one: one.message_id if one else "") == sorted(
        messages, key=lambda one: one.message_id
    )
    assert {(spool.folder / name).stat().st_mode & 0o777 for name in names} == {0o600}
    for name in names:
        spool.delete(name)
    spool.delete(names[0])
    assert spool.names() == []


def test_a_part_of_a_history_is_synced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync, file_system = os.fsync, incoming_spool._sync_file_system

    def sync_file(fd: int) -> None:
        synced.append("file")
        fsync(fd)

    def sync_all(fd: int) -> None:
        assert len(spool.names()) == 1000  # all are written by then
        synced.append("file system")
        file_system(fd)

    monkeypatch.setattr(os, "fsync", sync_file)
    monkeypatch.setattr(incoming_spool, "_sync_file_system", sync_all)
    spool = IncomingSpool(tmp_path)
    messages = [message(number) for number in range(1000)]
    names = spool.keep_all(messages)
    assert synced == ["file system"]
    assert [spool.read(name) for name in names] == messages

    spool.keep_all(messages[:2])
    assert synced == ["file system", "file", "file", "file"]  # the last one is the folder


def test_an_error_of_the_sync_of_many_is_raised() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        incoming_spool._sync_file_system(-1)


def test_the_name_shows_an_opt_out(tmp_path: Path) -> None:
    spool = IncomingSpool(tmp_path)
    assert [spool.keep(message(opt_out=True)).endswith(OPT_OUT), spool.keep(message()).endswith(OPT_OUT)] == [
        True,
        False,
    ]


def test_a_flipped_bit_is_noticed_and_the_file_set_aside(tmp_path: Path) -> None:
    spool = IncomingSpool(tmp_path)
    name = spool.keep(message(opt_out=True))
    file = spool.folder / name
    whole = file.read_bytes()
    for place in range(len(whole) * 8):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        file.write_bytes(data)
        os.utime(file, (1, 1))
        assert spool.read(name) in (None, message(opt_out=True))
        for damaged in spool.damaged():
            damaged.unlink()
    assert spool.read(name) is None


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    spool = IncomingSpool(tmp_path)
    name = spool.keep(message())
    file = spool.folder / name
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    assert spool.read(name) is None
    file.write_bytes(whole)
    assert spool.read(name) == message()
    file.write_bytes(whole[:-9])
    os.utime(file, (1, 1))
    assert spool.read(name) is None
    assert [path.name for path in spool.damaged()] == [f"{name}.damaged"]


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    spool = IncomingSpool(tmp_path)
    name = spool.keep(message())
    elsewhere = tmp_path / "elsewhere"
    (spool.folder / name).rename(elsewhere)
    (spool.folder / name).symlink_to(elsewhere)
    assert spool.read(name) is None
    assert spool.names() == []
    spool.folder.rename(tmp_path / "other")
    spool.folder.symlink_to(tmp_path / "other")
    with pytest.raises(UnsafeFileError):
        spool.keep(message())
    assert "is not a folder" in str(spool.check())


def test_a_probe_that_an_earlier_process_did_not_end_is_no_error(tmp_path: Path) -> None:
    spool = IncomingSpool(tmp_path)
    spool.keep(message())
    left = spool.folder / f"probe-{os.getpid()}"
    left.touch()
    assert spool.probe() is None
    assert not left.exists()


def test_a_disk_without_room_takes_only_opt_outs_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = IncomingSpool(tmp_path)
    monkeypatch.setattr(incoming_spool, "SPARE", 1 << 62)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        spool.keep(message())
    assert str(spool.check()).endswith(os.strerror(errno.ENOSPC))
    name = spool.keep(message(opt_out=True))
    assert spool.names() == [name]
    assert spool._error is not None
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        spool.keep(message())
    monkeypatch.setattr(incoming_spool, "SPARE", 0)
    assert spool.check() is None
    assert [path.name for path in spool.folder.iterdir()] == [name]
