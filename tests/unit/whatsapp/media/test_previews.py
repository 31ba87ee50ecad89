"""Previews, made by the real process."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from shardd.transports.whatsapp.media.limited_process import MEMORY
from shardd.transports.whatsapp.media.picture import PREVIEW, Picture
from shardd.transports.whatsapp.media.previews import MAX_IMAGE, Previews
from tests.support.media_files import BLUE, RED, encoded, photo, plain_image, png_chunk, scan_bomb, upright

GOOD = encoded(upright())
NOISE = Image.effect_noise((300, 300), 50)


@pytest.fixture
async def previews() -> AsyncIterator[Previews]:
    previews = Previews(seconds=60.0, patience=60.0)
    yield previews
    await previews.close()


class Process:
    """What the system says of a process."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._folder = Path(f"/proc/{number}")

    def resident(self) -> int:
        return int((self._folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def environment(self) -> set[str]:
        pairs = (self._folder / "environ").read_text().split("\0")
        return {pair.partition("=")[0] for pair in pairs if pair}

    def open_files(self) -> list[str]:
        return [str(link.readlink()) for link in (self._folder / "fd").iterdir()]

    def streams(self) -> list[str]:
        return [str((self._folder / "fd" / number).readlink()) for number in "012"]

    def data_limit(self) -> int:
        return resource.prlimit(self.number, resource.RLIMIT_DATA)[0]

    def lives(self) -> bool:
        try:
            return (self._folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False


def process_of(previews: Previews) -> Process:
    assert previews._process is not None
    return Process(previews._process.pid)


def children() -> list[int]:
    """The preview processes of this one."""
    numbers = [number for list_ in Path("/proc/self/task").glob("*/children") for number in list_.read_text().split()]
    return [int(number) for number in numbers if "preview_process" in Path(f"/proc/{number}/cmdline").read_text()]


def shown(picture: Picture | None) -> Image.Image:
    assert picture is not None
    assert picture.preview is not None
    return Image.open(io.BytesIO(picture.preview))


def near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 30


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
async def test_an_image_is_shown_as_it_was_seen(previews: Previews, kind: str, orientation: int) -> None:
    data = photo(orientation, kind)
    with Image.open(io.BytesIO(data)) as image:
        as_pillow_does = ImageOps.exif_transpose(image)
        assert as_pillow_does.size == (240, 400)
        assert near(as_pillow_does.convert("RGB").getpixel((120, 10)), RED)  # type: ignore[arg-type]
    picture = await previews.make(data)
    assert picture is not None
    assert (picture.width, picture.height) == (240, 400)
    small = shown(picture)
    assert small.size == (43, PREVIEW)
    assert near(small.getpixel((21, 5)), RED)  # type: ignore[arg-type]
    assert near(small.getpixel((21, 67)), BLUE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "data",
    [
        plain_image(300, 200, "PNG", "1"),
        plain_image(300, 200, "PNG", "L"),
        plain_image(300, 200, "PNG", "P"),
        plain_image(300, 200, "PNG", "RGBA"),
        plain_image(300, 200, "PNG", "I;16"),
        plain_image(300, 200, "JPEG", "CMYK"),
        plain_image(300, 200, "GIF", "P"),
        plain_image(300, 200, "MPO"),  # what many phones make of a photo
        plain_image(300, 200, "PNG", save_all=True, append_images=[Image.new("RGB", (300, 200))]),
    ],
    ids=["1", "L", "P", "RGBA", "I;16", "CMYK", "GIF", "MPO", "APNG"],
)
async def test_every_usual_image_has_a_preview(previews: Previews, data: bytes) -> None:
    picture = await previews.make(data)
    assert picture is not None
    assert (picture.width, picture.height, picture.damaged) == (300, 200, False)
    assert shown(picture).size == (PREVIEW, 48)


async def test_a_tiny_or_thin_image_has_one_too(previews: Previews) -> None:
    assert shown(await previews.make(plain_image(1, 1))).size == (1, 1)
    assert shown(await previews.make(plain_image(5000, 1))).size == (PREVIEW, 1)


@pytest.mark.parametrize(
    "data",
    [
        *(encoded(NOISE.convert("P" if kind == "GIF" else "RGB"), kind)[:5000] for kind in ("JPEG", "PNG", "WEBP", "GIF")),
        b"\xff\xd8\xff" + b"x" * 1000,
        b"GIF89a" + b"x" * 100,
        plain_image(9, 9, "TIFF"),
        plain_image(9, 9, "BMP"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
)  # fmt: skip
async def test_what_cannot_be_decoded_is_told(previews: Previews, data: bytes) -> None:
    picture = await previews.make(data)
    assert picture is not None
    assert picture.damaged


async def test_a_large_image_is_decoded_within_the_memory(previews: Previews) -> None:
    assert shown(await previews.make(plain_image(6000, 4000))).size == (PREVIEW, 48)
    assert process_of(previews).resident() < MEMORY
    assert shown(await previews.make(plain_image(10_000, 10_000, "JPEG"))).size == (PREVIEW, PREVIEW)


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (plain_image(9000, 9000), (9000, 9000)),
        (plain_image(20_000, 20_000, "PNG", "1"), (20_000, 20_000)),
        (plain_image(20_000, 20_000, "GIF", "P"), (20_000, 20_000)),
        (plain_image(9000, 9000, "JPEG", progressive=True, subsampling=0), (9000, 9000)),
        (plain_image(9000, 9000, "WEBP"), (0, 0)),
        (plain_image(5000, 4000, "WEBP"), (5000, 4000)),
    ],
    ids=["PNG", "PNG 1", "GIF", "progressive", "WEBP", "WEBP that opens"],
)
async def test_an_image_that_takes_too_much_memory_has_no_preview_and_is_not_called_damaged(
    previews: Previews, data: bytes, size: tuple[int, int]
) -> None:
    assert await previews.make(data) == Picture(*size)
    assert shown(await previews.make(GOOD)).size == (43, PREVIEW)


async def test_metadata_that_takes_too_much_memory_costs_the_preview_only(previews: Previews) -> None:
    png = plain_image(64, 64)
    packed = b"x\0\0" + _zeros(400)
    assert await previews.make(png[:33] + png_chunk(b"zTXt", packed) + png[33:]) == Picture()
    assert await previews.make(png[:33] + png_chunk(b"iCCP", packed) + png[33:]) == Picture()
    assert shown(await previews.make(GOOD)).size == (43, PREVIEW)


def _zeros(megabytes: int) -> bytes:
    import zlib  # noqa: PLC0415 - for this test only

    packer = zlib.compressobj()
    return b"".join([*(packer.compress(bytes(2**20)) for _ in range(megabytes)), packer.flush()])


async def test_an_image_that_takes_too_long_has_no_preview_and_the_next_one_has() -> None:
    previews = Previews(seconds=2.0)
    assert await previews.make(scan_bomb()) is None
    assert previews._process is None
    previews._seconds = 60.0  # on a busy machine, starting the next process may take 2 s
    assert shown(await previews.make(GOOD)).size == (43, PREVIEW)
    await previews.close()


async def test_who_waits_too_long_behind_others_is_not_kept_any_longer() -> None:
    previews = Previews(seconds=4.0, patience=0.5)
    slow = asyncio.create_task(previews.make(scan_bomb()))
    await asyncio.sleep(0)
    assert await previews.make(GOOD) is None
    assert not slow.done()
    assert await slow is None
    await previews.close()


async def test_one_image_is_decoded_at_a_time_by_one_process(previews: Previews) -> None:
    pictures = await asyncio.gather(*(previews.make(plain_image(6000, 4000)) for _ in range(4)))
    assert [shown(picture).size for picture in pictures] == [(PREVIEW, 48)] * 4
    assert children() == [process_of(previews).number]


async def test_an_answer_that_nobody_waits_for_is_not_the_next_ones(previews: Previews) -> None:
    given_up = asyncio.create_task(previews.make(plain_image(6000, 4000)))
    while previews._process is None:  # noqa: ASYNC110 - another task starts it
        await asyncio.sleep(0.01)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    picture = await previews.make(GOOD)
    assert picture is not None
    assert (picture.width, picture.height) == (240, 400)


async def test_a_process_that_dies_costs_one_preview(previews: Previews) -> None:
    await previews.make(GOOD)
    os.kill(process_of(previews).number, signal.SIGSTOP)
    waiting = asyncio.create_task(previews.make(GOOD))
    await asyncio.sleep(0.05)
    os.kill(process_of(previews).number, signal.SIGKILL)
    assert await waiting is None
    assert shown(await previews.make(GOOD)).size == (43, PREVIEW)


async def test_a_process_that_stands_still_is_not_waited_for() -> None:
    previews = Previews(seconds=60.0)
    await previews.make(GOOD)
    previews._seconds = 3.0
    os.kill(process_of(previews).number, signal.SIGSTOP)
    assert await previews.make(GOOD) is None
    previews._seconds = 60.0
    assert shown(await previews.make(GOOD)).size == (43, PREVIEW)
    await previews.close()


async def test_an_image_that_is_too_large_is_not_even_handed_over(previews: Previews) -> None:
    assert await previews.make(bytes(MAX_IMAGE + 1)) is None
    assert previews._process is None


async def test_the_process_knows_nothing_and_ends_with_us(previews: Previews, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDD_DB_PASSWORD", "s3cret")
    channel, other_end = socket.socketpair()
    channel.set_inheritable(True)  # as a worker has it
    await previews.make(GOOD)
    process = process_of(previews)
    assert process.environment() <= {"PATH", "LD_LIBRARY_PATH", "LC_CTYPE"}
    assert set(process.open_files()) <= {*process.streams(), "/dev/null"}
    assert process.data_limit() == MEMORY + MAX_IMAGE
    for polite in (signal.SIGINT, signal.SIGTERM):  # a terminal or systemd tells every process; we decide
        os.kill(process.number, polite)
    assert shown(await previews.make(GOOD)).size == (43, PREVIEW)
    assert process_of(previews).number == process.number
    await previews.close()
    assert not process.lives()
    channel.close()
    other_end.close()


_DIES = """
import asyncio, os, signal, sys
from shardd.transports.whatsapp.media.previews import Previews

async def die():
    previews = Previews()
    await previews.make(open(sys.argv[1], "rb").read())
    print(previews._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(die())
"""


async def test_a_killed_worker_leaves_no_process_behind(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(GOOD)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _DIES, tmp_path / "good.png", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await worker.communicate()
    left = Process(int(output))
    async with asyncio.timeout(20):
        while left.lives():  # noqa: ASYNC110 - nobody tells us of a process that is not our child
            await asyncio.sleep(0.05)
