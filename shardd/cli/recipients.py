"""Recipients as a person types them, read exactly as a worker reads them."""

from __future__ import annotations

import getpass
import os

from shardd.config import Config
from shardd.errors import PermanentError, UsageError
from shardd.phone_numbers import Recipient, parse_recipient


class Spelling:
    """Reads recipients with the default region of the config."""

    def __init__(self, config: Config) -> None:
        self._region = config.transports.whatsapp.default_region

    def read(self, text: str) -> str:
        """`+628123…`, or `…@lid` and `…@g.us` as they are. Raises UsageError."""
        recipient = self._parse(text)
        return f"+{recipient.number}" if recipient.number else recipient.jid

    def address(self, text: str) -> str:
        """The same as the database keeps it. Raises UsageError."""
        return self._parse(text).address

    def _parse(self, text: str) -> Recipient:
        try:
            return parse_recipient(text, self._region)
        except PermanentError as error:
            raise UsageError(str(error)) from None


def login_name() -> str:
    """Who types."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}"
