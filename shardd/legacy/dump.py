"""Dump files: plain SQL of PostgreSQL or MySQL, gzipped or not, and pg_dump's own archive formats through pg_restore.

A dump has its tables in any order, so each scan reads it from the beginning.
"""

from __future__ import annotations

import gzip
import io
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from shardd.errors import SourceError
from shardd.legacy.dump_sql import DumpScanner
from shardd.legacy.dump_text import DumpText, Stream
from shardd.legacy.dump_values import Dialect
from shardd.legacy.tables import Row, Table

LOOK: Final = 1 << 20
"""Bytes from which the kind of a dump is told."""

_GZIP: Final = b"\x1f\x8b"
_ARCHIVE: Final = b"PGDMP"
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_MYSQL: Final = re.compile(
    rb"^-- (?:MySQL|MariaDB|phpMyAdmin)|^/\*[!M]|^(?:INSERT INTO|CREATE TABLE)[^\n]*`", re.MULTILINE
)
_POSTGRESQL: Final = re.compile(
    rb"^-- PostgreSQL|^COPY .* FROM stdin|^SET client_encoding|^SELECT pg_catalog", re.MULTILINE
)


class Dump:
    """A dump file as a source."""

    def __init__(self, file: Path) -> None:
        self.name = str(file)
        self._file = file
        self._columns: dict[str, tuple[str, ...]] = {}

    def scan(self, *tables: Table) -> Iterator[tuple[Table, Row]]:
        """The rows of these tables, in the order of the dump."""
        with self._open(tables) as stream:
            text = DumpText(stream)
            try:
                text.ensure(LOOK)
                head = text.data[:LOOK]
                self._check(head)
                text.place = len(_UTF8_MARK) if head.startswith(_UTF8_MARK) else 0
                scanner = DumpScanner(text, _dialect(head), {table.name: table for table in tables}, self.name)
                yield from scanner.rows()
            except (OSError, EOFError, zlib.error) as error:
                raise SourceError(f"{self.name} cannot be read to its end: {error}; make or copy it again") from error
        self._columns |= scanner.columns

    def columns(self, table: Table) -> tuple[str, ...] | None:
        """The columns that a finished scan found; None: no such table."""
        return self._columns.get(table.name)

    def close(self) -> None:
        """Each scan closes what it opened."""

    @contextmanager
    def _open(self, tables: tuple[Table, ...]) -> Iterator[Stream]:
        try:
            with self._file.open("rb") as file:
                head = file.read(len(_ARCHIVE))
                file.seek(0)
                if head.startswith(_ARCHIVE):
                    with self._restore(tables) as stream:
                        yield stream
                elif head.startswith(_GZIP):
                    with gzip.GzipFile(fileobj=file) as unpacked:
                        yield io.BufferedReader(cast("io.RawIOBase", unpacked), LOOK)
                else:
                    yield file
        except OSError as error:
            raise SourceError(f"{self.name} cannot be read: {error.strerror or error}") from error

    @contextmanager
    def _restore(self, tables: tuple[Table, ...]) -> Iterator[IO[bytes]]:
        """Have pg_restore write the archive as SQL."""
        program = shutil.which("pg_restore")
        if program is None:
            raise SourceError(
                f"{self.name} is an archive of pg_dump, and pg_restore is not installed here: install PostgreSQL's client "
                "programs, or make a plain dump (pg_dump --format=plain)"
            )
        chosen = [f"--table={table.name}" for table in tables]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(
                [program, "--file=-", *chosen, self._file],
                stdout=subprocess.PIPE,
                stderr=said,
                stdin=subprocess.DEVNULL,
            )
            assert process.stdout is not None
            try:
                yield process.stdout
            finally:
                # Closed first: if it is still writing, this ends it.
                process.stdout.close()
                code = process.wait()
                # Its own exit codes are positive. It tells better what is wrong than the end of its output does.
                if code > 0:
                    said.seek(0)
                    words = " ".join(said.read().decode(errors="replace").split())
                    raise SourceError(f"{self.name}: pg_restore cannot read it: {words or f'exit code {code}'}")

    def _check(self, head: bytes) -> None:
        mend = ""
        if head.startswith(_UTF16_MARKS):
            mend = (
                "is written in UTF-16, as PowerShell's > does; let the dump program write the file itself "
                "(pg_dump --file, mysqldump --result-file)"
            )
        elif not head:
            mend = "is empty"
        elif head.startswith(_ARCHIVE):
            mend = "is a gzipped archive of pg_dump: unpack it first (gunzip)"
        elif b"\0" in head[:512] or not (_MYSQL.search(head) or _POSTGRESQL.search(head) or b"INSERT INTO" in head):
            mend = "is no dump of PostgreSQL or MySQL: no statement of theirs is in its first megabyte"
        if mend:
            raise SourceError(f"{self.name} {mend}")


def _dialect(head: bytes) -> Dialect:
    return "mysql" if _MYSQL.search(head) and not _POSTGRESQL.search(head) else "postgresql"
