"""The transport `cloud_api`: the official WhatsApp Business Cloud API.

POST {base}/{version}/{phone_number_id}/messages with JSON; the token stands in the header Authorization as Bearer. Success is
200 and an id in `messages[0]`. What becomes of a message afterwards comes through the webhook
(`shardd.supervisor.inbound.cloud_webhook`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from shardd.config.transports.cloud_api import CLOUD_API, CloudApiConfig
from shardd.ipc import JobSpec
from shardd.transports.platforms.cloud_errors import read_error
from shardd.transports.platforms.cloud_messages import message_of
from shardd.transports.platforms.http_answers import Accepted, Context, Said, Silent
from shardd.transports.platforms.http_exchange import Request
from shardd.transports.platforms.http_platform import HttpPlatform

_encode = msgspec.json.Encoder().encode


class CloudApiTransport(HttpPlatform):
    """Settings of a device: phone_number_id, token, and maybe version and base."""

    definition: ClassVar = CLOUD_API
    _config: CloudApiConfig

    def request(self, own: Mapping[str, str], job: JobSpec, number: str, proxy: str | None) -> Request:
        """JSON."""
        version = own.get("version", self._config.version)
        return Request(
            url=f"{self.base_of(own)}/{version}/{own['phone_number_id']}/messages",
            body=_encode(message_of(job, number)),
            headers={"Authorization": f"Bearer {own['token']}", "Content-Type": "application/json"},
            proxy=proxy,
        )

    def read(self, said: Mapping[str, Any], status: int, context: Context) -> Said:
        """An error, or the id of the message."""
        error, messages = said.get("error"), said.get("messages")
        first = messages[0] if isinstance(messages, list) and messages else None
        message_id = first.get("id") if isinstance(first, dict) else None
        if isinstance(message_id, str) and message_id:
            if status == 200 and error is None:
                return Accepted(message_id)
            return Silent(f"the id of a message with status {status} or an error beside it", mixed=True)
        if isinstance(error, dict):
            return read_error(error, status, context)
        return Silent("JSON with neither an error nor the id of a message")
