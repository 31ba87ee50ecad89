"""Recipients as a person types them, read exactly as a worker reads them."""

from __future__ import annotations

import getpass
import os

import phonenumbers

from shardd.config import Config
from shardd.errors import PermanentError, UsageError
from shardd.transports.whatsapp.messages.recipients import parse_recipient


class Spelling:
    """Reads recipients with the default region of the config."""

    def __init__(self, config: Config) -> None:
        self._region = config.transports.whatsapp.default_region

    def read(self, text: str) -> str:
        """`+628123…`, or `…@lid` and `…@g.us` as they are. Raises UsageError."""
        try:
            recipient = parse_recipient(text, self._region)
        except PermanentError as error:
            raise UsageError(str(error)) from None
        return f"+{recipient.number}" if recipient.number else recipient.jid

    def address(self, text: str) -> str:
        """The same as the database keeps it. Raises UsageError."""
        return self.read(text).removeprefix("+")

    @staticmethod
    def others(address: str) -> list[str]:
        """In which digits else a job may name the same phone number: without its country code, or with a 0 after it."""
        if not address.isdecimal():
            return []
        try:
            number = phonenumbers.parse(f"+{address}")
        except phonenumbers.NumberParseException:
            return []
        region = phonenumbers.region_code_for_number(number)
        trunk = phonenumbers.ndd_prefix_for_region(region, True) or "" if region else ""
        code, rest = str(number.country_code), phonenumbers.national_significant_number(number)
        return sorted({rest, f"{trunk}{rest}", f"{code}{trunk}{rest}"} - {address})


def login_name() -> str:
    """Who types."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.getuid()}"
