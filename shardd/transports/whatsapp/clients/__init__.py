"""Clients of the library: one for each device that sends, refreshed on demand."""
