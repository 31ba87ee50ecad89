"""Dump files: SQL of PostgreSQL or MySQL, possibly gzipped, and pg_dump's archive formats, read through pg_restore.

The tables of a dump are in any order, so each scan reads it from the start.
"""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from shardd.embedded.binaries import find_newest_client
from shardd.errors import SourceError
from shardd.legacy.dump_sql import DumpScanner
from shardd.legacy.dump_text import DumpText, Stream
from shardd.legacy.dump_values import Dialect
from shardd.legacy.tables import Row, Source, Table

LOOK: Final = 1 << 20
"""Bytes in which the kind of a dump is recognised."""

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


class Dump(Source):
    """A dump file as a source."""

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self._file = file

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
                raise SourceError(f"{self.name} cannot be read to its end: {error}; dump or copy it again") from error
        self.found |= scanner.found

    def close(self) -> None:
        """Nothing to close: each scan closes its files."""

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
        """The archive as SQL, converted by pg_restore."""
        program = find_newest_client("pg_restore")
        if program is None:
            raise SourceError(
                f"{self.name} is an archive of pg_dump, and pg_restore is not installed: install PostgreSQL's client "
                "programs, or dump with pg_dump --format=plain"
            )
        chosen = [f"--table={table.name}" for table in tables]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [program, "--file=-", *chosen, self._file],
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
            )
            assert process.stdout is not None
            try:
                yield process.stdout
            finally:
                # Closing the pipe first ends pg_restore if it is still writing.
                process.stdout.close()
                code = process.wait()
                # Negative: ended by a signal, because the pipe was closed. Its own error is clearer than a truncated output.
                if code > 0:
                    errors.seek(0)
                    text = " ".join(errors.read().decode(errors="replace").split())
                    raise SourceError(f"{self.name}: pg_restore cannot read it: {text or f'exit code {code}'}")

    def _check(self, head: bytes) -> None:
        problem = ""
        if head.startswith(_UTF16_MARKS):
            problem = (
                "is written in UTF-16, as by > in PowerShell; let the dump program write the file "
                "(pg_dump --file, mysqldump --result-file)"
            )
        elif not head:
            problem = "is empty"
        elif head.startswith(_ARCHIVE):
            problem = "is a gzipped archive of pg_dump: unpack it first (gunzip)"
        elif b"\0" in head[:512] or not (_MYSQL.search(head) or _POSTGRESQL.search(head) or b"INSERT INTO" in head):
            problem = "is not a dump of PostgreSQL or MySQL: its first megabyte contains no statement of either"
        if problem:
            raise SourceError(f"{self.name} {problem}")


def _dialect(head: bytes) -> Dialect:
    return "mysql" if _MYSQL.search(head) and not _POSTGRESQL.search(head) else "postgresql"
