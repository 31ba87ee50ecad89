"""Loads the fixtures, which are in modules named after what they provide."""

import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.support import facts

# A shell ignores SIGINT in background jobs, which every process of a test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes, or to make one, says nothing on a busy machine. Before the modules that have settings of their own.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Each after those that it imports, so that pytest can rewrite its asserts.
pytest_plugins = [
    "tests.fixtures.browser",
    "tests.fixtures.api",
    "tests.fixtures.command",
    "tests.fixtures.daemon",
    "tests.fixtures.pairing",
    "tests.fixtures.platforms",
    "tests.fixtures.postgres",
    "tests.fixtures.crowded",
    "tests.fixtures.servers",
    "tests.fixtures.legacy",
    "tests.fixtures.producers",
    "tests.fixtures.whatsapp",
    "tests.fixtures.whatsapp_fleet",
    "tests.fixtures.whatsapp_faults",
    "tests.fixtures.webkit",
]


def pytest_itemcollected(item: pytest.Item) -> None:
    facts.record(item)
