"""The errors of this package."""

from __future__ import annotations

from shardd.errors import SharddError


class PgBouncerError(SharddError):
    """PgBouncer cannot be used; the text gives the reason."""


class NotInstalledError(PgBouncerError):
    """There is no such program; the text says how to get it."""
