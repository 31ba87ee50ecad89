"""Linking and unlinking a phone, each in a process of its own."""
