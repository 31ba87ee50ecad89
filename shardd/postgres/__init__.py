"""Connections to PostgreSQL, as everything in shardd needs them: to the primary, with fixed settings, every wait bounded."""
