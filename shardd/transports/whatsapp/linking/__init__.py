"""Linking a phone (`pairing`) and unlinking it (`unlinking`), each in a child process that exits with it.

`hearing`: what people write to the device meanwhile.
"""
