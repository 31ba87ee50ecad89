"""Reading the wanted tables' rows out of the SQL of a dump, in one pass.

What is wanted stands in statements that begin a line: COPY … FROM stdin and its data, INSERT … VALUES, and CREATE TABLE for the
columns of an INSERT that names none. Everything else is only passed over, which must still know strings, dollar quotes and
MySQL's DELIMITER, because the body of a function may contain an INSERT that is none of the data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from shardd.errors import SourceError
from shardd.legacy.dump_grammar import (
    ANY_NAME,
    BLANK,
    CODECS,
    COMMENT,
    COPY,
    CREATE,
    DELIMITER,
    INSERT,
    LINE_COMMENT,
    LITERALS,
    NAMES,
    NOT_UTC,
    PASSED,
    ROWS,
    SETTING,
    USE,
    UTC,
    WHOLE,
    bare_name,
    read_columns,
)
from shardd.legacy.dump_text import DumpText
from shardd.legacy.dump_values import Dialect, read_copy_line, read_literal
from shardd.legacy.tables import Row, Table

HEAD: Final = 1 << 16
"""Bytes that the beginning of a statement is looked for in; its list of columns has to fit."""


class DumpScanner:
    """One pass over a dump."""

    def __init__(self, text: DumpText, dialect: Dialect, tables: Mapping[str, Table], name: str) -> None:
        """`tables` by name; `name`: what the dump is called in errors."""
        self._text = text
        self._dialect: Dialect = dialect
        self._tables = tables
        self._name = name
        self._codec = "utf-8"
        self._utc = False
        self._database = ""
        self._homes: dict[str, str] = {}
        self._made: dict[str, list[tuple[str, str]]] = {}
        self.columns: dict[str, tuple[str, ...]] = {}
        """The columns that were read of each table that was found, whether it had rows or none."""

    def rows(self) -> Iterator[tuple[Table, Row]]:
        """The rows of the wanted tables. Raises SourceError."""
        text = self._text
        while self._find_statement():
            # A statement that does not begin a line belongs to the body of a function.
            at_line_start = text.at_line_start
            if at_line_start and (match := text.take(COPY)):
                yield from self._copy(match)
            elif at_line_start and (match := text.take(INSERT)):
                yield from self._insert(match)
            elif at_line_start and (match := text.take(CREATE)):
                self._create(match)
            elif at_line_start and (match := text.take(USE)):
                self._database = bare_name(match[1])
                self._pass_over()
            else:
                if match := SETTING.match(text.data, text.place):
                    self._setting(match[0])
                self._pass_over()

    def _find_statement(self) -> bool:
        """Go to the next statement, past comments and commands of the client; False at the end."""
        text = self._text
        while True:
            while text.take(BLANK) and text.place == len(text.data) and text.fill():
                pass
            text.ensure(HEAD)
            if not text.peek():
                return False
            if text.data.startswith(b"/*", text.place):
                self._comment()
            elif match := text.take(DELIMITER):
                self._other_delimiter(match[1])
            elif text.take(LINE_COMMENT):
                text.skip_through(b"\n")
            else:
                return True

    def _comment(self) -> None:
        # MySQL hides settings in comments.
        match = self._text.await_take(COMMENT)
        if match is None:
            self._text.place = len(self._text.data)
        else:
            self._setting(match[0])

    def _setting(self, statement: bytes) -> None:
        if match := NAMES.search(statement):
            named = (match[1] or match[2]).decode().lower()
            codec = CODECS.get(named.replace("-", ""))
            if codec is None:
                raise SourceError(
                    f"{self._name}: its character set is {named}; make it again in UTF-8 (pg_dump --encoding=UTF8, "
                    "mysqldump --default-character-set=utf8mb4)"
                )
            self._codec = codec
        if NOT_UTC.search(statement):
            self._utc = UTC.search(statement) is not None

    def _other_delimiter(self, mark: bytes) -> None:
        """What stands between DELIMITER ;; and DELIMITER ; is programs, no data."""
        while mark != b";":
            line = self._text.line()
            if line is None:
                return
            if match := DELIMITER.match(line.lstrip()):
                mark = match[1]

    def _pass_over(self) -> None:
        text, pattern = self._text, PASSED[self._dialect]
        while True:
            text.take(pattern)
            if text.place < len(text.data) and text.data[text.place : text.place + 1] == b";":
                text.place += 1
                return
            if not text.fill():
                text.place = len(text.data)
                return

    def _copy(self, head: re.Match[bytes]) -> Iterator[tuple[Table, Row]]:
        text, path = self._text, head["path"]
        table = self._wanted(path)
        if table is None:
            # From the line end of the statement: the data may end before it began.
            text.place -= 1
            text.skip_through(b"\n\\.")
            text.line()
            return
        names = self._list(head["columns"], table, path)
        self._take_home(table, path)
        chosen = self._choose(table, [name for name, _ in names])
        places = [(column, [name for name, _ in names].index(column)) for column in chosen]
        while (line := text.line()) != rb"\.":
            if line is None:
                raise self._cut(table)
            values = read_copy_line(line, self._codec)
            if len(values) < len(names) and not text.peek():
                raise self._cut(table)
            if len(values) != len(names):
                raise SourceError(
                    f"{self._name}: a row of {table.name} before byte {text.offset:,} has {len(values)} fields, "
                    f"not {len(names)}"
                )
            yield table, {column: values[place] for column, place in places}

    def _insert(self, head: re.Match[bytes]) -> Iterator[tuple[Table, Row]]:
        text, dialect, path = self._text, self._dialect, head["path"]
        table = self._wanted(path)
        if table is None:
            self._pass_over()
            return
        names = self._list(head["columns"], table, path)
        self._take_home(table, path)
        chosen = self._choose(table, [name for name, _ in names])
        # mysqldump has the server write moments (TIMESTAMP, not DATETIME) in UTC, unless it was told not to.
        zones = {name for name, kind in self._made.get(table.name, []) if kind == "timestamp"}
        moments = zones if self._utc and dialect == "mysql" else set()
        places = [(column, [name for name, _ in names].index(column)) for column in chosen]
        while True:
            match = text.await_take(ROWS[dialect])
            if match is None:
                raise self._cut(table)
            literals = LITERALS[dialect].findall(match[1])
            if len(literals) != len(names):
                raise SourceError(
                    f"{self._name}: a row of {table.name} before byte {text.offset:,} has {len(literals)} values, "
                    f"not {len(names)}"
                )
            row = {column: read_literal(literals[place], dialect, self._codec) for column, place in places}
            for column in moments & row.keys():
                row[column] = f"{value}+00:00" if (value := row[column]) else value
            yield table, row
            if text.peek() != b",":
                self._pass_over()
                return
            text.place += 1

    def _create(self, head: re.Match[bytes]) -> None:
        table = self._wanted(head["path"])
        if table is None:
            self._pass_over()
            return
        statement = self._text.await_take(WHOLE[self._dialect])
        if statement is None:
            raise self._cut(table)
        self._made[table.name] = list(read_columns(statement[0]))
        self.columns.setdefault(table.name, ())

    def _wanted(self, path: bytes) -> Table | None:
        return self._tables.get(bare_name(ANY_NAME.findall(path)[-1]))

    def _take_home(self, table: Table, path: bytes) -> None:
        """Two schemas or databases in one dump would become one heap of rows."""
        home = ".".join(bare_name(name) for name in ANY_NAME.findall(path)[:-1]) or self._database
        if self._homes.setdefault(table.name, home) != home:
            raise SourceError(
                f"{self._name}: table {table.name} stands in {self._homes[table.name]} and in {home}; make a dump of one of them"
            )

    def _list(self, columns: bytes | None, table: Table, path: bytes) -> list[tuple[str, str]]:
        if columns is not None:
            return [(bare_name(name), "") for name in ANY_NAME.findall(columns)]
        if table.name not in self._made:
            raise SourceError(
                f"{self._name}: the rows of {path.decode(errors='replace')} have no names of columns, and the dump does not "
                "say how the table was made; make it again with pg_dump --column-inserts or mysqldump --complete-insert"
            )
        return self._made[table.name]

    def _choose(self, table: Table, there: list[str]) -> tuple[str, ...]:
        self.columns[table.name] = table.choose(there, self._name)
        return self.columns[table.name]

    def _cut(self, table: Table) -> SourceError:
        return SourceError(
            f"{self._name}: it ends in the middle of table {table.name}, or a row after byte {self._text.offset:,} cannot "
            "be read: make the dump again"
        )
