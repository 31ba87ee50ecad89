"""These tests run on both event loops, too."""

from tests.unit.whatsapp.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
