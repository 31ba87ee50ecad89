"""Damage to files between two starts, as by disks or operators; seeded, so that it can be repeated."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

PAGE = 4096

Files = dict[Path, bytes | None]
"""The content of each file; None: it does not exist."""


class Damager:
    """Damages a set of files in one to three ways."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self.done: list[str] = []

    def damage(self, files: Files) -> Files:
        """The damaged files; `done` lists the changes."""
        files = dict(files)
        for _ in range(self._random.randint(1, 3)):
            path = self._random.choice(sorted(files))
            way = self._random.choice(WAYS)
            way(self, files, path)
            self.done.append(f"{way.__name__.strip('_')} {path.name}")
        return files

    def _flip_a_bit(self, files: Files, path: Path) -> None:
        if data := bytearray(files[path] or b""):
            data[self._random.randrange(len(data))] ^= 1 << self._random.randrange(8)
            files[path] = bytes(data)

    def _overwrite(self, files: Files, path: Path) -> None:
        data = bytearray(files[path] or b"")
        start = self._random.randrange(len(data) + 1)
        length = self._random.choice((1, 2, 8, 64))
        data[start : start + length] = self._random.randbytes(min(length, len(data) - start))
        files[path] = bytes(data)

    def _insert(self, files: Files, path: Path) -> None:
        data = files[path] or b""
        start = self._random.randrange(len(data) + 1)
        what = self._random.choice((b"\n", b"\0" * 100, b"\xff\xfe", b"{", self._random.randbytes(30)))
        files[path] = data[:start] + what + data[start:]

    def _cut_the_end(self, files: Files, path: Path) -> None:
        data = files[path] or b""
        files[path] = data[: self._random.randrange(len(data) + 1)]

    def _cut_lines_from_the_end(self, files: Files, path: Path) -> None:
        lines = self._lines(files, path)
        files[path] = b"".join(lines[: self._random.randrange(len(lines) + 1)])

    def _cut_the_beginning(self, files: Files, path: Path) -> None:
        data = files[path] or b""
        files[path] = data[self._random.randrange(len(data) + 1) :]

    def _lose_a_line(self, files: Files, path: Path) -> None:
        lines = self._lines(files, path)
        if lines:
            del lines[self._random.randrange(len(lines))]
        files[path] = b"".join(lines)

    def _lose_some_lines(self, files: Files, path: Path) -> None:
        lines = self._lines(files, path)
        start = self._random.randrange(len(lines) + 1)
        del lines[start : start + self._random.randint(2, 6)]
        files[path] = b"".join(lines)

    def _repeat_a_line(self, files: Files, path: Path) -> None:
        lines = self._lines(files, path)
        if lines:
            lines.insert(self._random.randrange(len(lines) + 1), self._random.choice(lines))
        files[path] = b"".join(lines)

    def _swap_two_lines(self, files: Files, path: Path) -> None:
        lines = self._lines(files, path)
        if len(lines) > 1:
            a, b = self._random.sample(range(len(lines)), 2)
            lines[a], lines[b] = lines[b], lines[a]
        files[path] = b"".join(lines)

    def _shuffle(self, files: Files, path: Path) -> None:
        lines = self._lines(files, path)
        self._random.shuffle(lines)
        files[path] = b"".join(lines)

    def _take_a_line_of_another(self, files: Files, path: Path) -> None:
        lines, others = self._lines(files, path), self._lines(files, self._random.choice(sorted(files)))
        if lines and others:
            place = self._random.randrange(len(lines))
            lines[place : place + self._random.randint(0, 1)] = [self._random.choice(others)]
        files[path] = b"".join(lines)

    def _take_the_same_line_of_another(self, files: Files, path: Path) -> None:
        lines, others = self._lines(files, path), self._lines(files, self._random.choice(sorted(files)))
        if both := min(len(lines), len(others)):
            place = self._random.randrange(both)
            lines[place] = others[place]
        files[path] = b"".join(lines)

    def _zero_a_page(self, files: Files, path: Path) -> None:
        data = files[path] or b""
        start = self._random.randrange(len(data) // PAGE + 1) * PAGE
        length = min(self._random.choice((512, PAGE)), len(data) - start)
        files[path] = data[:start] + b"\0" * length + data[start + length :]

    def _zero_a_sector_within(self, files: Files, path: Path) -> None:
        data = files[path] or b""
        start = self._random.randrange(len(data) // 64 + 1) * 64
        length = min(self._random.choice((64, 512)), len(data) - start)
        files[path] = data[:start] + b"\0" * length + data[start + length :]

    def _zero_the_end(self, files: Files, path: Path) -> None:
        data = files[path] or b""
        start = self._random.randrange(len(data) + 1)
        files[path] = data[:start] + b"\0" * (len(data) - start)

    def _append_zeros(self, files: Files, path: Path) -> None:
        files[path] = (files[path] or b"") + b"\0" * self._random.choice((1, 100, PAGE))

    def _append_itself(self, files: Files, path: Path) -> None:
        files[path] = (files[path] or b"") * 2

    def _empty(self, files: Files, path: Path) -> None:
        files[path] = b""

    def _delete(self, files: Files, path: Path) -> None:
        files[path] = None

    def _swap_with_another(self, files: Files, path: Path) -> None:
        other = self._random.choice(sorted(files))
        files[path], files[other] = files[other], files[path]

    def _replace_by_another(self, files: Files, path: Path) -> None:
        files[path] = files[self._random.choice(sorted(files))]

    def _replace_by_garbage(self, files: Files, path: Path) -> None:
        files[path] = self._random.randbytes(self._random.choice((1, 100, 5000)))

    def _replace_by_an_earlier_version_of_the_format(self, files: Files, path: Path) -> None:
        files[path] = b'{"boot":"x","pid":7,"shard":0,"fsync":true,"s":null,"o":null}\n{"s":[1,1,1]}\n'

    @staticmethod
    def _lines(files: Files, path: Path) -> list[bytes]:
        return (files[path] or b"").splitlines(keepends=True)


Way = Callable[[Damager, Files, Path], None]
WAYS: tuple[Way, ...] = tuple(
    way
    for name, way in vars(Damager).items()
    if name.startswith("_") and callable(way) and name not in ("__init__", "_lines")
)


def load(*paths: Path) -> Files:
    """The content of these files."""
    return {path: path.read_bytes() if path.exists() else None for path in paths}


def store(files: Files) -> None:
    """Write them where they are: in place, as a disk does. A file that was deleted comes back as the same one."""
    for path, data in files.items():
        gone = path.with_name(f"{path.name}.gone")
        if gone.exists():
            gone.replace(path)
        if data is None:
            if path.exists():
                path.replace(gone)
        elif path.exists():
            with path.open("r+b") as file:
                # Not the other way about: ext4 flushes a file that was emptied, and 10,000 flushes take minutes.
                file.write(data)
                file.truncate()
        else:
            path.write_bytes(data)
            path.chmod(0o600)
