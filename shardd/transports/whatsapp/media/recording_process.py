"""The child process that reads audio and video: started by `recordings`, given one file after the other.

It reads the whole file, but decodes only what is needed: the first key frame of a video, and the sound of a voice message. So
`seconds` are those of the packets that are really in the file, whatever its header claims.

FFmpeg has hundreds of formats, some of which name other files to open. Here it gets the format that the file's own bytes show, a
short list of decoders, and no permission to open anything.
"""

from __future__ import annotations

import importlib
import io
import time
from array import array
from collections.abc import Iterator
from typing import Any, Final

import av
import av.logging
from PIL import Image

from shardd.transports.whatsapp.media.limited_child import serve
from shardd.transports.whatsapp.media.picture import PREVIEW
from shardd.transports.whatsapp.media.recording import BARS, Recording

DECODERS: Final = frozenset(
    {"av1", "libdav1d", "h263", "h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "opus", "theora", "vp8", "vp9"}
)
"""Of the first frame of a video, and of a voice message."""
PROBED: Final = DECODERS | {"aac", "amrnb", "amrwb", "flac", "mp3float", "vorbis"}
"""FFmpeg decodes the first packets of these when a header does not say enough."""
OPTIONS: Final = {"codec_whitelist": ",".join(sorted(PROBED)), "protocol_whitelist": "none"}
MAX_PIXELS: Final = 4096 * 4096
"""Of a frame: for this many the memory suffices, and 4K video has half as many."""
DECODER_OPTIONS: Final = {"max_pixels": str(MAX_PIXELS), "threads": "1"}
"""FFmpeg checks the pixels before it allocates a frame."""
MAX_SECONDS: Final = 24 * 3600
LEAST_RATE: Final = 25
"""Bytes of a second: silence in AMR, the least of what phones record, has 37. A file that claims to be longer is not believed."""
LONGEST_SOUND: Final = 1.0
"""Seconds in a packet of sound: codecs have a small part of this."""
MAX_KEY_FRAMES: Final = 5
"""Key frames that are tried for the preview."""
WAVE_RATE: Final = 8000
BLOCK: Final = WAVE_RATE // 100
"""Samples whose loudness is summed up: 10 ms."""
DECODING: Final = 4.0
"""Seconds of CPU time for a waveform: about half an hour of sound. A longer voice message has none."""


def look(data: bytes, hint: str) -> Recording:
    """Read one file. `hint`: the job's kind and FFmpeg's name of the format. Nothing that a file causes is raised."""
    kind, _, file_format = hint.partition(" ")
    found = _Reader(kind, len(data))
    error = ""
    try:
        with av.open(
            io.BytesIO(data),
            format=file_format,
            container_options=OPTIONS,
            options=DECODER_OPTIONS,
            metadata_errors="replace",  # tags of old files are not UTF-8
        ) as container:
            found.read(container)
    except Exception as cause:  # noqa: BLE001 - decoders raise anything; all of it means a bad file
        error = _words(cause)
    return found.result(error)


class _Reader:
    """What was found so far, so that a file that is damaged further on still has it."""

    def __init__(self, kind: str, size: int) -> None:
        self._kind = kind
        self._size = size
        self._first: float | None = None
        self._last = 0.0
        self._shown: tuple[int, int, bytes] | None = None
        self._tries = 0
        self._blocks = array("d")
        self._wave = kind == "voice"
        self._errors: list[str] = []

    def read(self, container: Any) -> None:
        """All packets of the streams that matter."""
        videos = [one for one in container.streams.video if self._kind == "video" and not _is_cover(one)][:1]
        sounds = list(container.streams.audio[:1])
        resampler = av.AudioResampler(format="s16", layout="mono", rate=WAVE_RATE)
        started = time.process_time()
        for stream in videos:
            if stream.codec_context is not None:
                stream.codec_context.options = DECODER_OPTIONS
                stream.codec_context.skip_frame = "NONKEY"
        for packet in container.demux(*videos, *sounds):
            self._measure(packet)
            if packet.stream.type == "video":
                self._show(packet)
            elif self._wave:
                self._listen(packet, resampler)
                if time.process_time() - started > DECODING:
                    self._wave = False
                    self._errors.append("too long for a waveform")

    def result(self, error: str) -> Recording:
        """What is known; `error`: what ended the reading."""
        errors = [error] if error else self._errors
        seconds = 0 if self._first is None else self._last - self._first
        if not 0 < seconds <= min(MAX_SECONDS, self._size / LEAST_RATE):
            if seconds:
                errors = [*errors, f"{self._size} bytes cannot be {seconds:.0f} seconds"]
            seconds = 0
        width, height, preview = self._shown or (0, 0, None)
        if self._kind == "video" and preview is None:
            errors = [*errors, "no frame could be decoded"]
        wave = waveform(self._blocks) if self._wave and seconds else None
        return Recording(max(1, round(seconds)) if seconds else 0, width, height, preview, wave, "; ".join(errors))

    def _measure(self, packet: Any) -> None:
        at = packet.pts if packet.pts is not None else packet.dts
        if at is None or packet.size == 0:
            return
        start, length = float(at * packet.time_base), float((packet.duration or 0) * packet.time_base)
        if packet.stream.type == "audio":
            length = min(length, LONGEST_SOUND)
        self._first = start if self._first is None else min(self._first, start)
        self._last = max(self._last, start + length)

    def _show(self, packet: Any) -> None:
        """The first key frame, as soon as there is one."""
        if self._shown is not None or self._tries >= MAX_KEY_FRAMES or not packet.is_keyframe:
            return
        self._tries += 1
        decoder = packet.stream.codec_context
        if decoder is None or decoder.name not in DECODERS:
            self._tries = MAX_KEY_FRAMES
            return
        try:
            frame = next(_frames(decoder, packet), None)
            self._shown = frame and _picture(frame)
        except (av.FFmpegError, ValueError, MemoryError) as error:
            self._errors.append(_words(error))
        finally:
            decoder.flush_buffers()

    def _listen(self, packet: Any, resampler: Any) -> None:
        decoder = packet.stream.codec_context
        if decoder is None or decoder.name not in DECODERS:
            self._wave = False
            return
        try:
            frames = decoder.decode(packet)
        except av.FFmpegError:
            return  # as a player, which goes on with the next packet
        for frame in frames:
            for even in resampler.resample(frame):
                samples = array("h", bytes(even.planes[0])[: 2 * even.samples])
                self._blocks.extend(
                    sum(map(abs, samples[at : at + BLOCK])) / BLOCK for at in range(0, len(samples), BLOCK)
                )


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _frames(decoder: Any, packet: Any) -> Iterator[Any]:
    """Frames of one packet, without the wait for those that would follow."""
    yield from decoder.decode(packet)
    yield from decoder.decode(None)


def _picture(frame: Any) -> tuple[int, int, bytes]:
    """Width, height and preview of a frame, as shown."""
    width, height = frame.width, frame.height
    scale = max(1.0, max(width, height) / PREVIEW)
    small = frame.to_image(width=max(1, round(width / scale)), height=max(1, round(height / scale)))
    turns = round(frame.rotation / 90) % 4
    if turns:
        small = small.transpose(
            (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)[turns - 1]
        )
    if turns % 2:
        width, height = height, width
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=60)
    return width, height, out.getvalue()


def waveform(blocks: array[float]) -> bytes | None:
    """The loudness of a recording in `BARS` steps, the loudest of which is 100; None without sound."""
    if not blocks:
        return None
    bars = []
    for bar in range(BARS):
        start = bar * len(blocks) // BARS
        part = blocks[start : max(start + 1, (bar + 1) * len(blocks) // BARS)]
        bars.append(sum(part) / len(part))
    most = max(bars)
    return bytes(int(100 * bar / most) if most else 0 for bar in bars)


if __name__ == "__main__":
    av.logging.set_level(av.logging.PANIC)
    # Pillow and PyAV load some of their modules when they are needed, which is too late here.
    importlib.import_module("av.subtitles.stream")
    Image.preinit()
    _picture(av.VideoFrame.from_image(Image.new("RGB", (16, 16))))
    serve(look, may_open=False)
