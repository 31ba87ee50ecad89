"""Linking a phone (`pairing`) and unlinking it (`unlinking`), each in a child process that exits with it."""
