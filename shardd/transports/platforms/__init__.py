"""Transports that send through somebody's HTTP API."""
