"""The transport `whacenter`: text and files through Whacenter, whose devices have a secret id.

POST {base}/api/send, multipart, with `device_id`, `number`, `message`, and `file` (a URL) for an image. Success is JSON
`status: true`, and the id, a number, in `data.id`.

Whacenter publishes no reference of its answers; what is read here is what its clients record: `{"status": true, "message":
"message sent", "data": {"id": 110864596}}`, `"device not connected or not found"`, and 401 with `"Invalid API Key"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from aiohttp import FormData

from shardd.config.transports.platforms import WHACENTER
from shardd.ipc import JobSpec
from shardd.transports.platforms.answers import Context, Reading, message_id_of, read_status
from shardd.transports.platforms.http_exchange import Request
from shardd.transports.platforms.http_platform import HttpPlatform


class WhacenterTransport(HttpPlatform):
    """Device settings: device_id; optional: base."""

    definition: ClassVar = WHACENTER

    def request(self, own: Mapping[str, str], job: JobSpec, number: str) -> Request:
        """A form, multipart."""
        form = {"device_id": own["device_id"], "number": number, "message": job.body}
        if job.kind == "image":
            form["file"] = job.media or ""
        return Request(url=f"{self.base_of(own)}/api/send", body=FormData(form, default_to_multipart=True))

    def read(self, body: Mapping[str, Any], status: int, context: Context) -> Reading:  # noqa: ARG002 - the body suffices
        """`status`, and a sentence."""
        return read_status(body, context, message_id_of(body))
