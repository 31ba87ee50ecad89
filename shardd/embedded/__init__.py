"""The PostgreSQL that shardd runs for itself, in its state folder, when the config names no database."""

from shardd.embedded.server import EmbeddedPostgres, embedded_dsn

__all__ = ["EmbeddedPostgres", "embedded_dsn"]
