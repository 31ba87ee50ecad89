"""Reading the system that shardd replaces: its database or a dump of it, and what becomes of its rows."""
