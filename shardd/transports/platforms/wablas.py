"""The transport `wablas`: text and images through Wablas, whose devices are identified by their tokens.

POST {base}/api/send-message with `phone` and `message`, or {base}/api/send-image with `phone`, `image` (a URL) and `caption`,
both url-encoded; the token is the value of the header Authorization. Success is JSON `status: true`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiohttp import FormData

from shardd.config.transports.platforms import WABLAS
from shardd.ipc import JobSpec
from shardd.transports.platforms.answers import Context, Reading, read_status
from shardd.transports.platforms.http_exchange import Request
from shardd.transports.platforms.http_platform import HttpPlatform


class WablasTransport(HttpPlatform):
    """Device settings: token; optional: base."""

    definition: ClassVar = WABLAS

    def request(self, own: Mapping[str, str], job: JobSpec, number: str) -> Request:
        """A form, url-encoded."""
        if job.kind == "image":
            path, form = "send-image", {"phone": number, "image": job.media or "", "caption": job.body}
        else:
            path, form = "send-message", {"phone": number, "message": job.body}
        return Request(
            url=f"{self.base_of(own)}/api/{path}",
            body=FormData(form),
            headers={"Authorization": own["token"]},
        )

    def read(self, body: Mapping[str, Any], status: int, context: Context) -> Reading:  # noqa: ARG002 - the body suffices
        """`status`, and a sentence in `message`."""
        return read_status(body, "message", context, _message_id(body))


def _message_id(body: Mapping[str, Any]) -> str | None:
    """The id in an answer, if any: data.messages[0].id, or data.id."""
    data = body.get("data")
    messages = data.get("messages") if isinstance(data, dict) else None
    for place in (messages[0] if isinstance(messages, list) and messages else None, data):
        if isinstance(place, dict) and isinstance(place.get("id"), str) and place["id"]:
            return str(place["id"])
    return None
