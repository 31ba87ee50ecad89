"""The installed command `shardd`: first what `early` does, then all that the command line loads."""

from __future__ import annotations

from shardd.cli.early import watch


def main() -> None:
    """Run the command line and exit."""
    watch()
    from shardd.cli.main import main as run  # noqa: PLC0415  # loads a hundred modules

    run()
