"""The transport `wablas`: text and images through Wablas, whose devices are identified by their tokens.

POST {base}/api/send-message with `phone` and `message`, or {base}/api/send-image with `phone`, `image` (a URL) and `caption`,
both url-encoded; the value of the header Authorization is the token, or `token.secret_key` for an account with a secret key
(wablas.com/documentation/api). Success is JSON `status: true`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiohttp import FormData

from shardd.config.transports.platforms import WABLAS
from shardd.ipc import JobSpec
from shardd.transports.platforms.answers import Context, Reading, message_id_of, read_status
from shardd.transports.platforms.http_exchange import Request
from shardd.transports.platforms.http_platform import HttpPlatform


class WablasTransport(HttpPlatform):
    """Device settings: token; optional: secret_key, base."""

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
            headers={"Authorization": ".".join(filter(None, (own["token"], own.get("secret_key"))))},
        )

    def read(self, body: Mapping[str, Any], status: int, context: Context) -> Reading:  # noqa: ARG002 - the body suffices
        """`status`, and a sentence."""
        return read_status(body, context, message_id_of(body))
