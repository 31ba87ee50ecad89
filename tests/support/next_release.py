"""A later release of shardd: a copy of the package in which something is changed, for PYTHONPATH."""

from __future__ import annotations

import shutil
from pathlib import Path

import shardd
from shardd.queue.migrate import load_migrations

GROW = """
DO $$
DECLARE
    one regclass;
BEGIN
    FOR one IN SELECT c.oid FROM pg_class c
                WHERE c.relnamespace = 'shardd'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition LOOP
        EXECUTE format('ALTER TABLE %s ADD COLUMN mood text', one);
    END LOOP;
END $$;
"""
"""Adds a column to every table."""


class NextRelease:
    """The package below a folder."""

    def __init__(self, folder: Path, version: str) -> None:
        self.version = version
        self._folder = folder
        self._package = folder / "shardd"
        # With the times of the files, and so with what is compiled.
        shutil.copytree(Path(shardd.__file__).parent, self._package)
        self.replace("__init__.py", f'"{shardd.__version__}"', f'"{version}"')

    @property
    def environ(self) -> dict[str, str]:
        """For its processes, wherever they are started."""
        return {"PYTHONPATH": str(self._folder), "PYTHONSAFEPATH": "1"}

    def replace(self, file: str, old: str, new: str) -> None:
        """Change a file of the package."""
        path = self._package / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} has {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def append(self, file: str, text: str) -> None:
        """Add to a file of the package."""
        with (self._package / file).open("a", encoding="utf-8") as end:
            end.write(text)

    def migrate(self, name: str, text: str) -> str:
        """Add the next migration; returns the name of its file."""
        folder = self._package / "queue" / "migrations"
        file = f"{len(load_migrations(folder)) + 1:04}_{name}.sql"
        (folder / file).write_text(text, encoding="utf-8")
        return file
