"""Each kind of job at each platform that supports it: what arrives, and what is refused before sending."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shardd.errors import ErrorClass, PermanentError
from tests.fixtures.platforms import MakeDevice
from tests.platform_server.server import PlatformServer
from tests.support.platform_device import NUMBER, key_of

TEXT = "selamat pagi ☀ {name}\n *bold* & https://example.com/?a=1&b=ü — 'quoted' \"\\n\" %41+"
LINK = "https://files.example.com/a%20b.jpg?signature=x&y=1"
PLATFORMS = ["wablas", "whacenter", "cloud_api"]


@pytest.mark.parametrize("transport", PLATFORMS)
async def test_a_text_arrives_as_it_was_written(
    platforms: PlatformServer, make_platform_device: MakeDevice, transport: str
) -> None:
    device = await make_platform_device(transport)
    sent = await device.send(body=TEXT)
    (received,) = platforms.received
    assert (received.platform, received.key, received.recipient) == (transport, key_of(device.settings), NUMBER)
    text = received.content["text"]["body"] if transport == "cloud_api" else received.content["message"]
    assert text == TEXT
    ids = {"whacenter": str(110_000_000 + received.number)}
    assert sent.message_id == ids.get(transport, f"{transport}.{received.number}")


@pytest.mark.parametrize("user", ["US.13491208655302741918", "US.ENT.11815799212886844830"])
async def test_a_business_scoped_id_is_in_a_field_of_its_own(
    platforms: PlatformServer, make_platform_device: MakeDevice, user: str
) -> None:
    """The ids are the examples of Meta's page; in `to`, its digits would be taken for a number, and nothing delivered."""
    await (await make_platform_device("cloud_api")).send(recipient=f"{user}@bsuid", body=TEXT)
    (received,) = platforms.received
    assert received.content["recipient"] == user
    assert "to" not in received.content


@pytest.mark.parametrize(
    ("transport", "content"),
    [
        ("wablas", {"phone": NUMBER, "image": LINK, "caption": TEXT}),
        ("whacenter", {"number": NUMBER, "file": LINK, "message": TEXT}),
        ("cloud_api", {"type": "image", "image": {"link": LINK, "caption": TEXT}}),
    ],
)
async def test_an_image_goes_by_its_url(
    platforms: PlatformServer, make_platform_device: MakeDevice, transport: str, content: dict[str, Any]
) -> None:
    await (await make_platform_device(transport)).send(kind="image", media=LINK, body=TEXT)
    (received,) = platforms.received
    assert received.content.items() >= content.items()


@pytest.mark.parametrize(
    ("job", "kind", "content"),
    [
        ({"kind": "video", "media": LINK}, "video", {"link": LINK}),
        ({"kind": "audio", "media": LINK, "body": "no caption"}, "audio", {"link": LINK}),
        ({"kind": "voice", "media": LINK}, "audio", {"link": LINK, "voice": True}),
        (
            {"kind": "document", "media": LINK, "file_name": "a.pdf", "body": "look"},
            "document",
            {"link": LINK, "filename": "a.pdf", "caption": "look"},
        ),
        (
            {"kind": "location", "details": {"latitude": -6.2, "longitude": 106, "name": "Jakarta"}},
            "location",
            {"latitude": -6.2, "longitude": 106.0, "name": "Jakarta"},
        ),
        (
            {"kind": "contact", "details": {"name": "Ada", "phone": "+6281234567"}},
            "contacts",
            [
                {
                    "name": {"formatted_name": "Ada", "first_name": "Ada"},
                    "phones": [{"phone": "+6281234567", "wa_id": "6281234567", "type": "CELL"}],
                }
            ],
        ),
        (
            {"kind": "template", "details": {"name": "hello", "language": "id"}},
            "template",
            {"name": "hello", "language": {"code": "id"}},
        ),
        (
            {"kind": "template", "details": {"name": "hello", "language": "id", "components": [{"type": "body"}]}},
            "template",
            {"name": "hello", "language": {"code": "id"}, "components": [{"type": "body"}]},
        ),
    ],
)
async def test_what_the_cloud_api_has_beside_text_and_images(
    platforms: PlatformServer, make_platform_device: MakeDevice, job: dict[str, Any], kind: str, content: Any
) -> None:
    await (await make_platform_device("cloud_api")).send(**job)
    (received,) = platforms.received
    assert (received.content["type"], received.content[kind]) == (kind, content)


async def test_a_link_is_previewed_as_the_job_says(platforms: PlatformServer, make_platform_device: MakeDevice) -> None:
    """Meta's page on text messages: `text.preview_url`."""
    device = await make_platform_device("cloud_api")
    for details in ('{"link_preview": true}', '{"link_preview": false}', "{}"):
        await device.send(body="https://toko.example", details=details)
    assert [received.content["text"].get("preview_url") for received in platforms.received] == [True, False, None]


async def test_an_answer_quotes_the_message_that_it_answers(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    """Meta's page on contextual replies: `context.message_id`."""
    quote = json.dumps({"id": "wamid.7", "sender": "+6281234567890", "text": "?", "kind": "text"})
    device = await make_platform_device("cloud_api")
    await device.send(body="yes", quote=quote)
    await device.send(body="no quote", quote="{}")
    answer, other = platforms.received
    assert answer.content["context"] == {"message_id": "wamid.7"}
    assert "context" not in other.content


async def test_a_devices_own_version_and_base_come_first(
    platforms: PlatformServer, make_platform_device: MakeDevice
) -> None:
    own = {"phone_number_id": "42", "token": "own-token", "version": "v21.0", "base": f"{platforms.base}/"}
    await (await make_platform_device("cloud_api", "http://127.0.0.1:1", settings=own)).send(body="hello")
    (received,) = platforms.received
    assert (received.content["version"], received.content["phone_number_id"]) == ("v21.0", "42")


@pytest.mark.parametrize(
    ("transport", "job", "what"),
    [
        ("wablas", {"kind": "video", "media": LINK}, ("one of text, image", ErrorClass.CONTENT)),
        ("whacenter", {"kind": "template"}, ("one of text, image", ErrorClass.CONTENT)),
        ("cloud_api", {"kind": "sticker"}, ("one of text, image, video", ErrorClass.CONTENT)),
        ("wablas", {"kind": "image", "media": "data:image/png;base64,AAAA"}, ("by URL only", ErrorClass.CONTENT)),
        ("whacenter", {"kind": "image", "media": "/srv/a.png"}, ("by URL only", ErrorClass.CONTENT)),
        ("cloud_api", {"kind": "document", "media": "https://"}, ("by URL only", ErrorClass.CONTENT)),
        ("cloud_api", {"kind": "image", "media": "https://a.example/\r\nx"}, ("by URL only", ErrorClass.CONTENT)),
        ("cloud_api", {"kind": "template"}, ("needs details.name and details.language", ErrorClass.CONTENT)),
        (
            "cloud_api",
            {"kind": "template", "details": {"name": "a", "language": "id", "components": {}}},
            ("components of a template is not a list", ErrorClass.CONTENT),
        ),
        *(
            (
                "cloud_api",
                {"kind": "contact", "details": {"name": "Ada", **phone}},
                ("details.phone", ErrorClass.CONTENT),
            )
            for phone in ({}, {"phone": "0811 222"}, {"phone": "+0811222333"}, {"phone": 62811222333})
        ),
        (
            "cloud_api",
            {"kind": "location", "details": {"latitude": "x"}},
            ("details.latitude is 'x'", ErrorClass.CONTENT),
        ),
        ("wablas", {"recipient": "120363000@g.us"}, ("sends to phone numbers only", ErrorClass.RECIPIENT)),
        ("cloud_api", {"recipient": "12345678@lid"}, ("sends to phone numbers only", ErrorClass.RECIPIENT)),
        ("wablas", {"recipient": "US.1349@bsuid"}, ("sends to phone numbers only", ErrorClass.RECIPIENT)),
    ],
)
async def test_what_cannot_be_told_a_platform_fails_before_anything_leaves(
    platforms: PlatformServer,
    make_platform_device: MakeDevice,
    transport: str,
    job: dict[str, Any],
    what: tuple[str, ErrorClass],
) -> None:
    complaint, error_class = what
    error = await (await make_platform_device(transport)).fail(**job)
    assert isinstance(error, PermanentError)
    assert complaint in str(error)
    assert error.error_class == error_class
    assert platforms.connections == 0


async def test_prepare_opens_no_connection(platforms: PlatformServer, make_platform_device: MakeDevice) -> None:
    device = await make_platform_device("wablas")
    prepared = await device.prepare(body="hello")
    assert platforms.connections == 0
    await device.hand_over(prepared)
    assert (platforms.connections, len(platforms.received)) == (1, 1)
