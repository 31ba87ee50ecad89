"""Audio and video, read by the real process."""

from __future__ import annotations

import io
import os
import random
import resource
import signal
import struct
import sys
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shardd.cli.config import config_group
from shardd.transports.whatsapp.media.file_types import detect_type
from shardd.transports.whatsapp.media.limited_process import MEMORY
from shardd.transports.whatsapp.media.picture import PREVIEW
from shardd.transports.whatsapp.media.recording import BARS, NOT_INSTALLED, Recording, is_installed
from shardd.transports.whatsapp.media.recordings import FORMATS, MAX_RECORDING, Recordings
from tests.support.media_files import BLUE, HTML, MP3, OPUS, RED, WEBM, box, mp4, upright
from tests.support.recordings import film, film_apart, patched, sound, turned

DAY = 24 * 3600
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.fixture
async def recordings() -> AsyncIterator[Recordings]:
    recordings = Recordings(seconds=60.0, patience=60.0)
    yield recordings
    await recordings.close()


def process_of(recordings: Recordings) -> int:
    assert recordings._process is not None
    return recordings._process.pid


async def look(recordings: Recordings, data: bytes, kind: str, mime_type: str | None = None) -> Recording:
    found = await recordings.read(data, kind, mime_type or detect_type(data))
    assert found is not None
    return found


def shown(found: Recording) -> Image.Image:
    assert found.preview is not None
    return Image.open(io.BytesIO(found.preview))


def near(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 30


async def test_the_duration_of_every_usual_sound_is_known(recordings: Recordings) -> None:
    made = {"ogg": "libopus", "mp3": "libmp3lame", "mp4": "aac", "adts": "aac", "wav": "pcm_s16le", "flac": "flac"}
    for form, codec in made.items():
        for seconds in (0.3, 2.6, *([61.0] if form == "ogg" else [])):
            found = await look(recordings, sound(seconds, form, codec), "audio")
            assert found == Recording(seconds=max(1, round(seconds))), (form, seconds)
    amr = b"#!AMR\n" + (b"\x3c" + bytes(31)) * 250  # 12.2 kbit/s in frames of 20 ms (RFC 4867, 5.3)
    assert (await look(recordings, amr, "audio")).seconds == 5


async def test_every_usual_video_has_duration_size_and_preview(recordings: Recordings) -> None:
    made = {
        ("mp4", "libx264"), ("mp4", "libx265"), ("mov", "libx264"), ("3gp", "mpeg4"), ("webm", "libvpx"), ("webm", "libvpx-vp9"),
        ("mp4", "libsvtav1"), ("matroska", "libx264"), ("avi", "mpeg4"),
    }  # fmt: skip
    for form, codec in made:
        make = film_apart if codec == "libsvtav1" else film
        found = await look(recordings, make(2.0, form, codec), "video")
        assert (found.seconds, found.width, found.height, found.error) == (2, 240, 400, ""), (form, codec)
        with shown(found) as preview:
            assert preview.size == (43, PREVIEW)
            assert near(preview.getpixel((21, 5)), RED)  # type: ignore[arg-type]
            assert near(preview.getpixel((21, 67)), BLUE)  # type: ignore[arg-type]
    assert (
        os.sched_getscheduler(0) == os.SCHED_OTHER
    )  # no encoder changed the priority of this process and of those it starts


async def test_a_video_is_shown_as_it_was_seen(recordings: Recordings) -> None:
    stored = upright().transpose(Image.Transpose.ROTATE_90)
    found = await look(recordings, turned(film(1.0, image=stored)), "video")
    assert (found.width, found.height) == (240, 400)
    with shown(found) as preview:
        assert near(preview.getpixel((21, 5)), RED)  # type: ignore[arg-type]


async def test_a_voice_message_has_a_waveform_and_audio_has_none(recordings: Recordings) -> None:
    voice = sound(4.0, loudness=lambda second: 0.1 if second < 2 else 0.8)
    found = await look(recordings, voice, "voice")
    assert (found.seconds, found.error) == (4, "")
    assert found.waveform is not None
    assert len(found.waveform) == BARS
    assert max(found.waveform[:31]) < 20
    assert min(found.waveform[33:62]) > 80
    assert (await look(recordings, voice, "audio")).waveform is None
    silence = await look(recordings, sound(1.0, loudness=lambda _: 0.0), "voice")
    assert (silence.seconds, silence.waveform) == (1, bytes(BARS))


@given(st.lists(st.floats(min_value=0, max_value=32768), max_size=1000))
def test_a_waveform_is_64_values_up_to_100(loudness: list[float]) -> None:
    from shardd.transports.whatsapp.media.recording_process import waveform  # noqa: PLC0415 - it needs PyAV

    bars = waveform(array("d", loudness))
    if not loudness:
        assert bars is None
        return
    assert bars is not None
    assert len(bars) == BARS
    assert max(bars) in {0, 99, 100}
    assert (max(bars) == 0) == (max(loudness) == 0)


async def test_tags_in_old_encodings_do_not_matter(recordings: Recordings) -> None:
    title = b"\0Caf\xe9 \xff\xfe\x80"  # ID3v2.3, said to be Latin-1
    frame = b"TIT2" + struct.pack(">I", len(title)) + bytes(2) + title
    tag = b"ID3\3\0\0" + struct.pack(">I", len(frame)) + frame
    assert await look(recordings, tag + sound(2.0, "mp3", "libmp3lame"), "audio") == Recording(seconds=2)
    clip = film(2.0).replace(b"Lavf", b"\xff\xfe\xe9\x80")
    assert (await look(recordings, clip, "video")).seconds == 2


async def test_what_a_header_claims_is_not_believed(recordings: Recordings) -> None:
    claim = struct.pack(">I", 10**9)
    clip = film(2.0)
    for header, place in ((b"mvhd", 16), (b"tkhd", 20), (b"mdhd", 16)):
        clip = patched(clip, header, place, claim)
    found = await look(recordings, clip, "video")
    assert (found.seconds, found.width, found.error) == (2, 240, "")
    wav = sound(1.0, "wav", "pcm_s16le")
    at = wav.index(b"data") + 4
    assert (await look(recordings, wav[:at] + b"\xff\xff\xff\x7f" + wav[at + 4 :], "audio")).seconds == 1


async def test_a_duration_that_the_file_cannot_have_is_left_out(recordings: Recordings) -> None:
    """The table of sample durations (ISO/IEC 14496-12, 8.6.1.2) says so; the picture is right all the same."""
    clip, song = film(2.0), sound(1.0, "mp4", "aac")
    for delta in (10**6, 10**9, 2**31, 2**32 - 1):
        value = struct.pack(">I", delta)
        found = await look(recordings, patched(song, b"stts", 12, value), "audio")
        assert found.seconds <= 2, (delta, found)
        found = await look(recordings, patched(clip, b"stts", 12, value), "video")
        assert (found.width, found.height) == (240, 400)
        assert found.seconds <= len(clip) / 25, (delta, found)
    found = await look(recordings, patched(clip, b"stts", 12, struct.pack(">I", 10**9)), "video")
    assert (found.seconds, "cannot be" in found.error) == (0, True)


async def test_an_hour_in_a_file_of_1_kb_is_not_passed_on(recordings: Recordings) -> None:
    voice = bytearray(sound(0.1, loudness=lambda _: 0.0))
    last = voice.rindex(b"OggS")
    voice[last + 6 : last + 14] = struct.pack("<q", 3600 * 48_000)  # the granule position (RFC 7845, 4)
    assert len(voice) < 1024
    found = await look(recordings, bytes(voice), "voice")
    assert found.seconds <= 1


@pytest.mark.parametrize(
    ("data", "kind", "mime_type"),
    [
        (b"", "video", "video/mp4"),
        (os.urandom(5000), "video", "video/mp4"),
        (HTML, "video", "video/mp4"),
        (PLAYLIST, "video", "video/mp4"),
        (PLAYLIST, "audio", "audio/mpeg"),
        (MP3, "voice", "audio/ogg; codecs=opus"),
        (OPUS, "voice", "audio/ogg; codecs=opus"),
        (OPUS, "video", "video/mp4"),
        (WEBM, "video", "video/webm"),
        (mp4(b"mp42", b"vide", b"soun"), "video", "video/mp4"),
        (box(b"ftyp", b"mp42") + struct.pack(">I4sQ", 1, b"moov", 2**63), "video", "video/mp4"),
    ],
)
async def test_a_file_that_cannot_be_read_has_nothing(
    recordings: Recordings, data: bytes, kind: str, mime_type: str
) -> None:
    found = await recordings.read(data, kind, mime_type)
    assert found is not None
    assert (found.seconds, found.width, found.height, found.preview, found.waveform) == (0, 0, 0, None, None)
    assert found.error
    assert (await look(recordings, sound(1.0), "voice")).seconds == 1


async def test_a_truncated_file_has_what_is_left_of_it(recordings: Recordings) -> None:
    song = sound(4.0, "mp3", "libmp3lame")
    assert (await look(recordings, song[: len(song) // 2], "audio", "audio/mpeg")).seconds == 2
    clip = film(4.0, header_first=True, image=Image.effect_noise((320, 240), 80).convert("RGB"), g="10")
    half = await look(recordings, clip[: len(clip) // 2], "video")
    assert (half.width, half.height) == (320, 240)
    assert shown(half).size == (PREVIEW, 54)
    assert half.seconds == 2
    for length in range(100, len(clip), len(clip) // 7):
        assert (await look(recordings, clip[:length], "video", "video/mp4")).seconds <= 4


async def test_a_video_of_an_unknown_codec_keeps_its_duration(recordings: Recordings) -> None:
    unknown = film(2.0).replace(b"avc1", b"zzzz")
    found = await look(recordings, unknown, "video")
    assert (found.seconds, found.width, found.preview) == (2, 0, None)
    assert found.error == "no frame could be decoded"


async def test_a_size_that_takes_too_much_memory_costs_the_preview(recordings: Recordings) -> None:
    """VP8 says its size in each key frame, 14 bits each (RFC 6386, 9.1): 16383 by 16383 pixels take 400 MB."""
    clip = film(1.0, "webm", "libvpx")
    start = b"\x9d\x01\x2a"
    at = clip.index(start) + len(start)
    found = await look(recordings, clip[:at] + b"\xff\x3f\xff\x3f" + clip[at + 4 :], "video")
    assert (found.seconds, found.width, found.height, found.preview) == (1, 0, 0, None)
    # Matroska's own statement of the size (elements B0 and BA) is not even looked at.
    claimed = clip.replace(b"\xb0\x81\xf0", b"\xb0\x81\xff").replace(b"\xba\x82\x01\x90", b"\xba\x82\xff\xff")
    assert claimed != clip
    found = await look(recordings, claimed, "video")
    assert (found.width, found.height) == (240, 400)
    large = await look(recordings, film(0.2, image=Image.new("RGB", (5120, 4096)), preset="ultrafast"), "video")
    assert (large.width, large.preview) == (0, None)


async def test_4k_video_is_decoded_within_the_memory(recordings: Recordings) -> None:
    found = await look(recordings, film(0.5, image=Image.new("RGB", (3840, 2160)), preset="ultrafast"), "video")
    assert (found.width, found.height, found.error) == (3840, 2160, "")
    assert resource.prlimit(process_of(recordings), resource.RLIMIT_DATA)[0] == MEMORY + MAX_RECORDING


async def test_random_damage_ends_no_process_and_invents_nothing(recordings: Recordings) -> None:
    files = {
        ("voice", "audio/ogg"): sound(2.0),
        ("audio", "audio/mp4"): sound(2.0, "mp4", "aac"),
        ("video", "video/mp4"): film(2.0),
        ("video", "video/webm"): film(2.0, "webm", "libvpx"),
    }
    chance = random.Random(11)
    for (kind, mime_type), data in files.items():
        for _ in range(15):
            damaged = bytearray(data)
            for _ in range(chance.choice([1, 5, 50])):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            found = await recordings.read(bytes(damaged), kind, mime_type)
            assert found is not None
            assert found.seconds <= len(data) / 25
            assert found.waveform is None or len(found.waveform) == BARS
            assert (found.preview is None) == (found.width == 0)


async def test_a_file_that_takes_too_long_has_nothing_and_the_next_one_has() -> None:
    """An AMR file of empty frames: one byte is 20 ms, and each is a packet."""
    recordings = Recordings(seconds=3.0, patience=60.0)
    endless = b"#!AMR\n" + b"\x7c" * (MAX_RECORDING - 6)
    assert await recordings.read(endless, "audio", "audio/amr") is None
    assert recordings._process is None
    recordings._seconds = 60.0
    assert (await look(recordings, sound(1.0), "voice")).waveform
    await recordings.close()


async def test_a_process_that_dies_or_stands_still_costs_one_file() -> None:
    recordings = Recordings(seconds=3.0, patience=60.0)
    recordings._seconds = 60.0
    await look(recordings, sound(1.0), "voice")
    recordings._seconds = 3.0
    os.kill(process_of(recordings), signal.SIGSTOP)
    assert await recordings.read(OPUS, "voice", "audio/ogg") is None
    recordings._seconds = 60.0
    assert (await look(recordings, sound(1.0), "voice")).seconds == 1
    await recordings.close()


async def test_a_file_of_an_unknown_type_or_too_large_is_not_even_handed_over(recordings: Recordings) -> None:
    assert await recordings.read(bytes(MAX_RECORDING + 1), "video", "video/mp4") is None
    assert await recordings.read(b"#EXTM3U", "video", "application/vnd.apple.mpegurl") is None
    assert await recordings.read(b"ffconcat", "video", "text/plain") is None
    assert recordings._process is None


async def test_the_process_opens_nothing_and_has_no_library_of_whatsapp(recordings: Recordings) -> None:
    await look(recordings, sound(1.0), "voice")
    number = process_of(recordings)
    assert resource.prlimit(number, resource.RLIMIT_NOFILE) == (3, 3)
    assert resource.prlimit(number, resource.RLIMIT_CORE) == (0, 0)
    with open(f"/proc/{number}/maps", encoding="utf-8") as maps:  # noqa: PTH123, ASYNC230 - of the kernel
        loaded = maps.read()
    assert "libavcodec" in loaded
    assert "neonize" not in loaded


async def test_without_pyav_nothing_is_started_and_config_check_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "shards.yaml").write_text("")
    monkeypatch.setitem(sys.modules, "av", None)
    assert not is_installed()
    recordings = Recordings()
    assert await recordings.read(OPUS, "voice", "audio/ogg") is None
    assert recordings._process is None
    checked = CliRunner().invoke(config_group, ["check", str(tmp_path / "shards.yaml")])
    assert (checked.exit_code, checked.stderr) == (0, f"note: {NOT_INSTALLED}\n")
    monkeypatch.undo()
    checked = CliRunner().invoke(config_group, ["check", str(tmp_path / "shards.yaml")])
    assert (checked.exit_code, checked.stderr) == (0, "")


def test_every_format_is_one_that_ffmpeg_has() -> None:
    import av  # noqa: PLC0415 - the support of the extra

    assert set(FORMATS.values()) <= set(av.formats_available)
