"""Recipients as people write them: a number in any spelling, or an address. No I/O."""

from __future__ import annotations

from shardd.errors import PermanentError, UsageError
from shardd.persons import Recipient
from shardd.phone_numbers import parse_recipient


class Spelling:
    """Reads recipients as the database does."""

    def __init__(self, region: str | None) -> None:
        """`region`: of numbers without a country; None: there is none."""
        self._region = region

    def read(self, text: str) -> str:
        """`+628123…`; `…@lid` and `…@g.us` unchanged. Raises UsageError."""
        recipient = self._parse(text)
        return f"+{recipient.number}" if recipient.number else recipient.jid

    def address(self, text: str) -> str:
        """The same as the database stores it. Raises UsageError."""
        return self._parse(text).address

    def person(self, text: str) -> str:
        """`address` of somebody who writes. Raises UsageError, also for a group."""
        address = self.address(text)
        if address.endswith("@g.us"):
            raise UsageError(f"{text} is a group, not a person: write a phone number such as +4915112345678, or ID@lid")
        return address

    def _parse(self, text: str) -> Recipient:
        try:
            return parse_recipient(text, self._region)
        except PermanentError as error:
            raise UsageError(str(error)) from None
