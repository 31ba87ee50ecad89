"""Files of the state folder: links are not followed, and anything but our own regular files is refused with the fix."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from shardd.errors import UnsafeFileError
from shardd.state_files import (
    ID_FILE,
    Start,
    last_start,
    open_file,
    open_folder,
    open_state_folder,
    record_start,
    state_id,
)

WRITE = os.O_RDWR | os.O_CREAT | os.O_TRUNC
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to another account")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of ours that lies elsewhere, and must stay as it is."""
    file = tmp_path / "victim"
    file.write_text("precious")
    return file


def test_files_and_their_folders_are_private(folder: Path) -> None:
    os.close(open_file(folder, "journal/a", WRITE))
    os.close(open_file(folder, "b", WRITE))
    modes = [path.stat().st_mode & 0o777 for path in (folder / "journal", folder / "journal" / "a", folder / "b")]
    assert modes == [0o700, 0o600, 0o600]


def test_nothing_is_made_for_whoever_only_reads(folder: Path) -> None:
    for name in ("a", "journal/a"):
        with pytest.raises(FileNotFoundError):
            open_file(folder, name, os.O_RDONLY)
    assert list(folder.iterdir()) == []


def test_a_file_is_emptied_only_when_that_is_asked(folder: Path) -> None:
    (folder / "a").write_text("old")
    (folder / "a").chmod(0o600)
    os.close(open_file(folder, "a", os.O_RDWR | os.O_CREAT))
    assert (folder / "a").read_text() == "old"
    os.close(open_file(folder, "a", WRITE))
    assert (folder / "a").read_text() == ""


def _link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def _dangling(place: Path, victim: Path) -> None:
    place.symlink_to(victim.with_name("nowhere"))


def _hard_link(place: Path, victim: Path) -> None:
    place.hardlink_to(victim)


def _folder(place: Path, victim: Path) -> None:
    place.mkdir()


def _pipe(place: Path, victim: Path) -> None:
    os.mkfifo(place)


def _socket(place: Path, victim: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(place))


def _shared(place: Path, victim: Path) -> None:
    place.write_text("")
    place.chmod(0o620)


PLANTS: dict[Callable[[Path, Path], None], str] = {
    _link: "is a symbolic link, and shardd follows none here: remove it",
    _dangling: "is a symbolic link, and shardd follows none here: remove it",
    _hard_link: "has another name somewhere (a hard link): move it away",
    _folder: "is not a plain file: move it away",
    _pipe: "is not a plain file: move it away",
    _socket: "is not a plain file: move it away",
    _shared: "is writable by others (mode 620): chown it to ",
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", ["a", "journal/a"])
@pytest.mark.parametrize("flags", [WRITE, os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT])
def test_what_is_not_a_plain_file_of_our_own_is_refused(
    folder: Path, victim: Path, plant: Callable[[Path, Path], None], name: str, flags: int
) -> None:
    place = folder / name
    place.parent.mkdir(0o700, exist_ok=True)
    plant(place, victim)
    with pytest.raises(UnsafeFileError) as caught:
        open_file(folder, name, flags)
    assert str(caught.value).startswith(f"{place} {PLANTS[plant]}")
    assert victim.read_text() == "precious"
    assert not victim.with_name("nowhere").exists()


@as_root
@pytest.mark.parametrize("name", ["a", "journal/a", "journal"])
def test_what_belongs_to_somebody_else_is_refused(folder: Path, name: str) -> None:
    os.close(open_file(folder, "a", WRITE))
    os.close(open_file(folder, "journal/a", WRITE))
    os.chown(folder / name, 65534, 65534)
    wanted = "journal/a" if name == "journal" else name
    with pytest.raises(
        UnsafeFileError, match=rf"{folder / name} belongs to nobody, and shardd runs as root: chown it to root"
    ):
        open_file(folder, wanted, WRITE)


@as_root
def test_root_keeps_no_files_in_the_folder_of_another_account(folder: Path) -> None:
    os.chown(folder, 65534, 65534)
    with pytest.raises(UnsafeFileError, match="belongs to nobody, and shardd runs as root: run shardd as nobody"):
        open_state_folder(folder)


@as_root
def test_a_device_in_a_files_place_is_refused(folder: Path) -> None:
    try:
        os.mknod(folder / "a", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:  # a container: only this device, which is none, may be made
        os.mknod(folder / "a", 0o600 | stat.S_IFCHR, os.makedev(0, 0))
    with pytest.raises(UnsafeFileError, match="is not a plain file"):
        open_file(folder, "a", WRITE)


def test_a_link_in_a_folders_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "journal").symlink_to(elsewhere)
    with pytest.raises(UnsafeFileError, match="/journal is not a folder: move it away"):
        open_file(folder, "journal/a", WRITE)
    assert list(elsewhere.iterdir()) == []


def test_a_folder_that_everybody_writes_to_is_refused(folder: Path) -> None:
    os.close(open_folder(folder, "journal", make=True))
    (folder / "journal").chmod(0o777)
    with pytest.raises(UnsafeFileError, match=r"/journal is writable by others \(mode 777\)"):
        open_folder(folder, "journal")
    folder.chmod(0o777)
    with pytest.raises(UnsafeFileError, match="is writable by everybody: chmod o-w"):
        open_state_folder(folder)


def test_the_state_folder_itself_may_be_reached_by_a_link(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    os.close(open_file(link, "journal/a", WRITE))
    assert (folder / "journal" / "a").is_file()


def test_no_descriptor_is_left_open_or_inherited(folder: Path, victim: Path) -> None:
    (folder / "link").symlink_to(victim)
    before = _open_files()
    fd = open_file(folder, "journal/a", WRITE)
    assert not os.get_inheritable(fd)
    os.close(fd)
    for name in ("link", "journal"):
        with pytest.raises(UnsafeFileError):
            open_file(folder, name, WRITE)
    assert _open_files() == before


def _open_files() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


# ---- the id


def test_a_state_folder_gets_an_id_and_keeps_it(folder: Path, tmp_path: Path) -> None:
    made = state_id(folder)
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert state_id(folder) == made
    assert (folder / ID_FILE).read_text() == made + "\n"
    other = tmp_path / "other"
    other.mkdir()
    assert state_id(other) != made


@pytest.mark.parametrize("content", [b"", b"\0" * 33, b"x" * 1000, b"\xff\n", b"0" * 31 + b"\n", b"0" * 32])
def test_an_id_that_cannot_be_read_is_replaced(folder: Path, content: bytes) -> None:
    (folder / ID_FILE).write_bytes(content)
    (folder / ID_FILE).chmod(0o600)
    made = state_id(folder)
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert state_id(folder) == made


def test_an_id_is_not_read_through_a_link(folder: Path, victim: Path) -> None:
    (folder / ID_FILE).symlink_to(victim)
    with pytest.raises(UnsafeFileError):
        state_id(folder)
    assert victim.read_text() == "precious"


def test_the_last_start_on_a_folder_is_known(folder: Path) -> None:
    assert last_start(folder) is None
    state = state_id(folder)
    assert last_start(folder) is None
    first, second = uuid4(), uuid4()
    for incarnation in (first, second):
        record_start(folder, incarnation)
        assert last_start(folder) == Start(folder, state, incarnation)
    (folder / ID_FILE).unlink()
    (folder / ID_FILE).symlink_to("/etc/passwd")
    assert last_start(folder) is None
