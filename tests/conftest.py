"""Loads the fixtures, each of which lives in a module named for what it provides."""

import signal

# Whoever starts the tests in the background of a shell lets SIGINT be ignored, which every process of a test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Each after those that it imports, or pytest could not explain its asserts.
pytest_plugins = [
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
]
