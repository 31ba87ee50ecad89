"""Loads the fixtures, each of which lives in a module named for what it provides."""

pytest_plugins = [
    "tests.fix_command",
    "tests.fix_daemon",
    "tests.fix_pairing",
    "tests.fix_postgres",
    "tests.fix_whatsapp",
    "tests.whatsapp_fleet",
]
