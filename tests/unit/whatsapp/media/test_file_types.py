import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.errors import ErrorClass, PermanentError
from shardd.ipc import JobSpec
from shardd.transports.whatsapp.media.file_types import MAX_BOXES, is_ogg_opus, sent_as, track_kinds
from shardd.transports.whatsapp.media.memory import Media
from shardd.transports.whatsapp.media.recordings import FORMATS
from tests.support.media_files import HTML, MP3, OPUS, VORBIS, WEBM, box, mp4, ogg, plain_image


def judge(kind: str, data: bytes, *, row: str | None = None, server: str | None = None, name: str | None = None) -> str:
    return sent_as(JobSpec(1, 1, 1, 9, "a", "+628", kind=kind, mime_type=row), Media(data, server, name))


@pytest.mark.parametrize(
    ("kind", "data", "mime_type"),
    [
        ("voice", OPUS, "audio/ogg; codecs=opus"),
        ("audio", OPUS, "audio/ogg"),
        ("audio", VORBIS, "audio/ogg"),
        ("audio", MP3, "audio/mpeg"),
        ("audio", b"ID3\3\0\0\0\0\0\0" + MP3, "audio/mpeg"),
        ("audio", b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(100), "audio/aac"),
        ("audio", b"#!AMR\n" + bytes(50), "audio/amr"),
        ("audio", mp4(b"isom", b"soun"), "audio/mp4"),
        ("audio", mp4(b"mp42", b"soun"), "audio/mp4"),
        ("audio", mp4(b"M4A ", b"soun"), "audio/mp4"),
        ("audio", mp4(b"qt  ", b"soun"), "audio/mp4"),
        ("audio", mp4(b"3gp4", b"soun"), "audio/3gpp"),
        ("audio", mp4(b"3g2a", b"soun"), "audio/3gpp2"),
        ("video", mp4(b"isom", b"vide", b"soun"), "video/mp4"),
        ("video", mp4(b"M4A ", b"soun", b"vide"), "video/mp4"),
        ("video", mp4(b"M4V ", b"vide"), "video/mp4"),
        ("video", mp4(b"3gp5", b"vide"), "video/3gpp"),
        ("video", mp4(b"mp42"), "video/mp4"),  # no track is named: as libmagic says
        ("image", plain_image(9, 9, "PNG"), "image/png"),
        ("image", plain_image(9, 9, "JPEG"), "image/jpeg"),
        ("image", plain_image(9, 9, "WEBP"), "image/webp"),
        ("document", b"%PDF-1.4\n", "application/pdf"),
        ("document", HTML, "text/html"),
        ("document", mp4(b"isom", b"soun"), "audio/mp4"),
        ("document", bytes(50), "application/octet-stream"),
    ],
)
def test_a_file_is_sent_as_what_it_is(kind: str, data: bytes, mime_type: str) -> None:
    assert judge(kind, data) == mime_type
    if kind != "document":
        assert judge(kind, data, row="application/pdf", server="text/html") == mime_type


@pytest.mark.parametrize("data", [b"#!AMR\n" + bytes(50), b"#!AMR-WB\n" + bytes(50)])
def test_the_length_of_amr_is_read_whatever_libmagic_calls_it(data: bytes) -> None:
    """libmagic 5.44 calls both audio/amr; 5.46 says audio/AMR and audio/AMR-WB."""
    assert FORMATS[judge("audio", data)] == "amr"


@pytest.mark.parametrize(
    ("kind", "data", "complaint"),
    [
        (
            "voice",
            MP3,
            r"the media is audio/mpeg; phones play only Ogg with Opus as voice: convert it, .*ffmpeg -i FILE",
        ),
        ("voice", VORBIS, "the media is audio/ogg; phones play only"),
        ("voice", mp4(b"isom", b"soun"), "the media is audio/mp4; phones"),
        ("voice", WEBM, "the media is video/webm; phones"),
        ("voice", HTML, "the media is text/html, perhaps a page that the server sent instead of the file; phones"),
        (
            "audio",
            HTML,
            "the media is text/html, perhaps a page that the server sent instead of the file; send it as a document",
        ),
        ("audio", b'{"error": "not found"}', "the media is application/json, perhaps"),
        ("audio", b"Not Found", "the media is text/plain, perhaps"),
        ("audio", b"%PDF-1.4\n", "the media is application/pdf; send it as a document"),
        ("audio", mp4(b"isom", b"vide", b"soun"), "the media is video/mp4; send it as video, or as a document"),
        ("audio", plain_image(9, 9), "the media is image/png; send it as image, or as a document"),
        ("video", mp4(b"isom", b"soun"), "the media is audio/mp4; send it as audio, or as a document"),
        ("video", HTML, "the media is text/html, perhaps"),
        (
            "image",
            HTML,
            "the media is text/html, perhaps a page that the server sent instead of the file; send JPEG or PNG",
        ),
        ("image", b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", r"the media is image/svg\+xml; send JPEG or PNG"),
        ("image", b"II*\0" + bytes(100), "the media is image/tiff; send JPEG or PNG"),
        ("audio", bytes(50), "type of the media is not recognised: set mime_type"),
        ("image", b"", "the media is empty"),
        ("document", b"", "the media is empty"),
    ],
)
def test_what_is_something_else_is_refused_with_the_fix(kind: str, data: bytes, complaint: str) -> None:
    for claims in ({}, {"row": "audio/ogg; codecs=opus"}, {"server": "audio/ogg"}):
        if "not recognised" in complaint and claims:
            continue
        with pytest.raises(PermanentError, match=complaint) as caught:
            judge(kind, data, **claims)
        assert caught.value.error_class is ErrorClass.CONTENT
        if data:
            assert str(caught.value).startswith(f"kind is '{kind}', but")


@pytest.mark.parametrize(
    ("claims", "mime_type"),
    [
        ({"row": "audio/mpeg"}, "audio/mpeg"),
        ({"server": "audio/mpeg"}, "audio/mpeg"),
        ({"name": "song.mp3"}, "audio/mpeg"),
        ({"row": "application/octet-stream", "server": "audio/aac", "name": "song.mp3"}, "audio/aac"),
    ],
)
def test_bytes_that_say_nothing_are_what_they_are_said_to_be(claims: dict[str, str], mime_type: str) -> None:
    assert judge("audio", bytes(50), **claims) == mime_type


def test_a_row_may_say_it_more_exactly() -> None:
    assert judge("audio", OPUS, row="audio/ogg; codecs=opus") == "audio/ogg; codecs=opus"


def test_a_document_is_what_the_row_then_the_server_says() -> None:
    assert judge("document", b"a,b\n", row="text/csv", server="text/html") == "text/csv"
    assert judge("document", b"a,b\n", server="text/csv") == "text/csv"
    assert judge("document", b"a,b\n", server="binary/octet-stream") == "text/plain"
    assert judge("document", b"a,b\n", server="no type\r\n") == "text/plain"


@pytest.mark.parametrize("mime_type", ["pdf", "a/b\r\nX: y", "a/b\x1b[2J", "/", "a/" + "b" * 200, "a/b; ☃"])
def test_what_is_no_mime_type_is_told(mime_type: str) -> None:
    with pytest.raises(PermanentError, match=r"mime_type .* is not a MIME type; write one such as application/pdf"):
        judge("document", b"%PDF-", row=mime_type)


@pytest.mark.parametrize("data", [b"", b"OggS", OPUS[:30], ogg(b"OpusHead", flags=0), b"x" + OPUS, ogg(b"OpusTags")])
def test_what_only_looks_like_opus_is_none(data: bytes) -> None:
    assert not is_ogg_opus(data)


def test_boxes_whose_sizes_lie_end_the_look() -> None:
    assert track_kinds(struct.pack(">I4s", 4, b"moov") * 1000) == set()
    assert track_kinds(struct.pack(">I4sQ", 1, b"moov", 2**63)) == set()
    assert track_kinds(struct.pack(">I4sQ", 1, b"moov", 0)) == set()
    assert track_kinds(struct.pack(">I4s", 0, b"moov")) == set()
    big = mp4(b"isom", b"soun")
    at = big.index(b"moov") - 4
    assert track_kinds(big[:at] + struct.pack(">I", 4) + big[at:]) == set()  # a box that ends within its own header
    wide = struct.pack(">I4sQ", 1, b"moov", len(big) - at + 8) + big[at + 8 :]
    assert track_kinds(big[:at] + wide) == {b"soun"}  # sizes of 64 bits
    assert track_kinds(big[:at] + bytes(4) + big[at + 4 :]) == {b"soun"}  # up to the end of the file


def test_no_more_boxes_are_looked_at_than_a_file_has() -> None:
    assert track_kinds(box(b"free") * MAX_BOXES + mp4(b"isom", b"soun")) == set()


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(0, 100))
def test_whatever_the_bytes_are_they_are_something(junk: bytes, at: int, cut: int) -> None:
    data = mp4(b"isom", b"soun", b"vide")
    start = data.index(b"moov") - 4
    damaged = data[: start + at] + junk + data[start + at + cut :]
    track_kinds(damaged)
    is_ogg_opus(OPUS[:at] + junk)
