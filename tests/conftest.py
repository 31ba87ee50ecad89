"""Loads the fixtures, each of which lives in a module named for what it provides."""

import signal

# Whoever starts the tests in the background of a shell lets SIGINT be ignored, which every process of a test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Each after those that it imports, or pytest could not explain its asserts.
pytest_plugins = [
    "tests.fix_command",
    "tests.fix_daemon",
    "tests.fix_pairing",
    "tests.fix_platforms",
    "tests.fix_postgres",
    "tests.fix_crowded",
    "tests.fix_servers",
    "tests.fix_legacy",
    "tests.fix_producers",
    "tests.fix_whatsapp",
    "tests.whatsapp_fleet",
    "tests.whatsapp_faults",
]
