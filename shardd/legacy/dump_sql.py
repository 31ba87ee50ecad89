"""Reads the rows of the wanted tables from the SQL of a dump, in one pass over its bytes.

The data is in statements that start a line: COPY … FROM stdin with its lines, INSERT … VALUES, and CREATE TABLE, which names the
columns of an INSERT without a list. Everything else is skipped. Skipping has to understand strings, dollar quotes and MySQL's
DELIMITER, because the body of a function may contain an INSERT that is not data.

The grammar is written by hand, as regular expressions over bytes. sqlglot 30 and sqlparse 0.6 were tried: both need the whole
text in memory, decoded; neither knows the data lines of COPY, commands of psql, or DELIMITER; and both read 2 to 3 MB/s where
this reads 20. A PostgreSQL dump could be restored into a scratch database, but that runs whatever SQL the file contains, needs
its size again on disk, and does not help with MySQL.

A pattern takes time in proportion to the text: a quantifier that could match long text is possessive, or repeats alternatives of
which only one can match at a place. No group is possessive or atomic: before 3.11.5 (Debian 12 has 3.11.2) Python moves past the
beginning of a repetition that fails (gh-106052).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sized
from typing import Final

from shardd.errors import SourceError
from shardd.legacy.dump_text import DumpText
from shardd.legacy.dump_values import VALUES, Dialect, read_copy_line, read_literal
from shardd.legacy.tables import Row, Table

HEAD: Final = 1 << 16
"""Bytes in which the start of a statement is recognised; its list of columns has to fit."""

_NAME: Final = rb'(?:`(?:[^`]|``)+`|"(?:[^"]|"")+"|[A-Za-z_][\w$]*)'
_PATH: Final = rb"(?P<path>" + _NAME + rb"(?:\s*\.\s*" + _NAME + rb")*)"
_LIST: Final = rb"\s*(?:\((?P<columns>(?:[^()\"`]|\"[^\"]*\"|`[^`]*`)*)\))?"
ANY_NAME: Final = re.compile(_NAME)
BLANK: Final = re.compile(rb"[\s;]*+")
LINE_COMMENT: Final = re.compile(rb"(?:--|#|\\)[^\n]*+")  # a backslash starts a command of psql
COMMENT: Final = re.compile(rb"/\*.*?\*/", re.DOTALL)
DELIMITER: Final = re.compile(rb"DELIMITER[ \t]+(\S+)", re.IGNORECASE)
USE: Final = re.compile(rb"USE\s+(" + _NAME + rb")", re.IGNORECASE)
COPY: Final = re.compile(rb"COPY\s+" + _PATH + _LIST + rb"\s+FROM\s+stdin\b[^;\n]*;[^\n]*\n", re.IGNORECASE)
INSERT: Final = re.compile(
    rb"(?:INSERT(?:\s+IGNORE)?|REPLACE)\s+INTO\s+"
    + _PATH
    + _LIST
    + rb"\s*(?:OVERRIDING\s+\w+\s+VALUE\s+)?VALUES?(?=[\s(])",
    re.IGNORECASE,
)
CREATE: Final = re.compile(rb"CREATE\s+(?:\w+\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?" + _PATH + rb"\s*\(", re.IGNORECASE)
_COLUMN: Final = re.compile(rb"\s*(?P<name>" + _NAME + rb")\s+(?P<type>\w+)")
_NO_COLUMN: Final = frozenset(
    {b"primary", b"key", b"unique", b"constraint", b"foreign", b"index", b"fulltext", b"spatial", b"check", b"exclude"}
    | {b"period", b"like"}
)
NAMES: Final = re.compile(rb"\bSET\s+NAMES\s+'?(\w+)|\bclient_encoding\s*=\s*'?([\w-]+)", re.IGNORECASE)
UTC: Final = re.compile(rb"\bTIME_ZONE\s*=\s*'\+00:00'", re.IGNORECASE)
SETTING: Final = re.compile(rb"SET\s[^;]*", re.IGNORECASE)
TIME_ZONE_SET: Final = re.compile(rb"\bTIME_ZONE\s*=", re.IGNORECASE)

_DOLLARS: Final = rb"\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|\$(?!\w*\$|\w*\Z)"
_PIECES: Final[dict[Dialect, bytes]] = {
    "postgresql": rb"(?:[^;'\"$]++|(?<=\W[eE])'(?:[^'\\]++|\\.|'')*'(?!'|\Z)|(?<!\W[eE])'[^']*+'|\"[^\"]*+\"|"
    + _DOLLARS
    + rb")",
    "mysql": rb"(?:[^;'\"`/]++|'(?:[^'\\]++|\\.)*'|\"(?:[^\"\\]++|\\.)*\"|`[^`]*+`|/\*.*?\*/|/(?!\*|\Z))",
}
"""The parts of a statement; a part that is not read completely does not match."""
SKIPPED: Final = {dialect: re.compile(piece + rb"{1,1000}", re.DOTALL) for dialect, piece in _PIECES.items()}
"""So many parts at once, because a repeated group takes memory for each repetition."""
WHOLE: Final = {
    # The lookahead is what an atomic group would be.
    dialect: re.compile(rb"(?=(?P<parts>" + piece + rb"*))(?P=parts);", re.DOTALL)
    for dialect, piece in _PIECES.items()
}
ROWS: Final[dict[Dialect, re.Pattern[bytes]]] = {
    dialect: re.compile(rb"\s*+\(\s*+(" + value + rb"(?:\s*+,\s*+" + value + rb")*)\s*+\)\s*+", re.DOTALL)
    for dialect, value in VALUES.items()
}
LITERALS: Final = {dialect: re.compile(value, re.DOTALL) for dialect, value in VALUES.items()}

CODECS: Final[Mapping[str, str]] = {
    "utf8": "utf-8",
    "utf8mb3": "utf-8",
    "utf8mb4": "utf-8",
    "unicode": "utf-8",
    "binary": "utf-8",
    "sql_ascii": "utf-8",
    "ascii": "ascii",
    "latin1": "cp1252",  # MySQL's latin1 is Windows-1252
    "win1252": "cp1252",
    "latin9": "iso8859-15",
}
"""The supported encodings, by their names in the two databases. In all of them the bytes of ASCII mean ASCII."""


class DumpScanner:
    """One pass over a dump."""

    def __init__(self, text: DumpText, dialect: Dialect, tables: Mapping[str, Table], name: str) -> None:
        """`tables` by name; `name`: the dump's name in errors."""
        self._text = text
        self._dialect: Dialect = dialect
        self._tables = tables
        self._name = name
        self._codec = "utf-8"
        self._utc = False
        self._database = ""
        self._homes: dict[str, str] = {}
        self._created: dict[str, dict[str, str]] = {}
        """Types of columns, by table and column."""
        self.found: set[str] = set()
        """Names of the tables in the dump, also of empty ones."""

    def rows(self) -> Iterator[tuple[Table, Row]]:
        """The rows of the wanted tables. Raises SourceError."""
        text = self._text
        while self._find_statement():
            # A statement in the middle of a line is in the body of a function.
            at_line_start = text.at_line_start
            if at_line_start and (match := text.take(COPY)):
                yield from self._copy(match)
            elif at_line_start and (match := text.take(INSERT)):
                yield from self._insert(match)
            elif at_line_start and (match := text.take(CREATE)):
                self._create(match)
            elif at_line_start and (match := text.take(USE)):
                self._database = bare_name(match[1])
                self._skip_statement()
            else:
                if match := SETTING.match(text.data, text.place):
                    self._setting(match[0])
                self._skip_statement()

    def _find_statement(self) -> bool:
        """Skip to the next statement, past comments and commands of the client; False at the end."""
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
                self._skip_programs(match[1])
            elif text.take(LINE_COMMENT):
                text.skip_through(b"\n")
            else:
                return True

    def _comment(self) -> None:
        # MySQL writes settings as comments.
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
                    f"{self._name}: its character set is {named}; dump again in UTF-8 (pg_dump --encoding=UTF8, "
                    "mysqldump --default-character-set=utf8mb4)"
                )
            self._codec = codec
        if TIME_ZONE_SET.search(statement):
            self._utc = UTC.search(statement) is not None

    def _skip_programs(self, mark: bytes) -> None:
        """Skip from DELIMITER ;; to DELIMITER ; which contains programs, not data."""
        while mark != b";":
            line = self._text.line()
            if line is None:
                return
            if match := DELIMITER.match(line.lstrip()):
                mark = match[1]

    def _skip_statement(self) -> None:
        text, pattern = self._text, SKIPPED[self._dialect]
        while True:
            if text.take(pattern) is not None:
                continue
            if text.data.startswith(b";", text.place):
                text.place += 1
                return
            if not text.fill():
                text.place = len(text.data)
                return

    def _copy(self, head: re.Match[bytes]) -> Iterator[tuple[Table, Row]]:
        text = self._text
        table = self._wanted(head["path"])
        if table is None:
            # From the end of the statement's own line, because there may be no data at all.
            text.place -= 1
            text.skip_through(b"\n\\.")
            text.line()
            return
        count, places = self._layout(table, head)
        while (line := text.line()) != rb"\.":
            if line is None:
                raise self._cut(table)
            values = read_copy_line(line, self._codec)
            if len(values) < count and not text.peek():
                raise self._cut(table)
            self._check_length(table, values, count)
            yield table, {column: values[place] for column, place in places.items()}

    def _insert(self, head: re.Match[bytes]) -> Iterator[tuple[Table, Row]]:
        text, dialect = self._text, self._dialect
        table = self._wanted(head["path"])
        if table is None:
            self._skip_statement()
            return
        count, places = self._layout(table, head)
        # By default mysqldump has the server write TIMESTAMP columns (not DATETIME) in UTC.
        types = self._created.get(table.name, {}) if self._utc and dialect == "mysql" else {}
        moments = [column for column in places if types.get(column) == "timestamp"]
        while True:
            match = text.await_take(ROWS[dialect])
            if match is None:
                raise self._cut(table)
            literals = LITERALS[dialect].findall(match[1])
            self._check_length(table, literals, count)
            row = {column: read_literal(literals[place], dialect, self._codec) for column, place in places.items()}
            for column in moments:
                row[column] = f"{value}+00:00" if (value := row[column]) else value
            yield table, row
            if text.peek() != b",":
                self._skip_statement()
                return
            text.place += 1

    def _create(self, head: re.Match[bytes]) -> None:
        table = self._wanted(head["path"])
        if table is None:
            self._skip_statement()
            return
        statement = self._text.await_take(WHOLE[self._dialect])
        if statement is None:
            raise self._cut(table)
        self._created[table.name] = dict(read_columns(statement[0]))
        self.found.add(table.name)

    def _wanted(self, path: bytes) -> Table | None:
        return self._tables.get(bare_name(ANY_NAME.findall(path)[-1]))

    def _layout(self, table: Table, head: re.Match[bytes]) -> tuple[int, dict[str, int]]:
        """How many values a row has in the statement that begins with `head`, and the place of each column to read."""
        self._check_home(table, head["path"])
        if head["columns"] is not None:
            names = [bare_name(name) for name in ANY_NAME.findall(head["columns"])]
        elif table.name in self._created:
            names = list(self._created[table.name])
        else:
            raise SourceError(
                f"{self._name}: the rows of {head['path'].decode(errors='replace')} have no column names, and the dump has no "
                "CREATE TABLE for them; dump again with pg_dump --column-inserts or mysqldump --complete-insert"
            )
        self.found.add(table.name)
        return len(names), {column: names.index(column) for column in table.choose(names, self._name)}

    def _check_length(self, table: Table, values: Sized, count: int) -> None:
        if len(values) != count:
            raise SourceError(
                f"{self._name}: a row of {table.name} before byte {self._text.offset:,} has {len(values)} values, not {count}"
            )

    def _check_home(self, table: Table, path: bytes) -> None:
        """Refuse a table that is in two schemas or databases: their rows would be mixed."""
        home = ".".join(bare_name(name) for name in ANY_NAME.findall(path)[:-1]) or self._database
        if self._homes.setdefault(table.name, home) != home:
            raise SourceError(
                f"{self._name}: table {table.name} is in {self._homes[table.name]} and in {home}; dump only one of them"
            )

    def _cut(self, table: Table) -> SourceError:
        return SourceError(
            f"{self._name}: it ends in the middle of table {table.name}, or a row after byte {self._text.offset:,} cannot "
            "be read: dump again"
        )


def read_columns(definitions: bytes) -> Iterator[tuple[str, str]]:
    """Name and type of each column of a CREATE TABLE; `definitions` follows its first parenthesis."""
    for item in _split(definitions):
        match = _COLUMN.match(item)
        if match is not None and match["name"].lower() not in _NO_COLUMN:
            yield bare_name(match["name"]), match["type"].decode().lower()


def bare_name(name: bytes) -> str:
    """A table's or column's name without its quotes; an unquoted name in lower case."""
    mark = name[:1]
    if mark in {b"`", b'"'}:
        return name[1:-1].replace(mark * 2, mark).decode(errors="replace")
    return name.decode().lower()


_PIECE: Final = re.compile(rb"'(?:[^'\\]|''|\\.)*'|`[^`]*`|\"[^\"]*\"|[^'`\"(),]+|.", re.DOTALL)


def _split(statement: bytes) -> Iterator[bytes]:
    """The items between the commas of a list, up to the parenthesis that ends it."""
    depth, item = 0, b""
    for piece in _PIECE.findall(statement):
        if piece == b")" and depth == 0:
            break
        depth += {b"(": 1, b")": -1}.get(piece, 0)
        if piece == b"," and depth == 0:
            yield item
            item = b""
        else:
            item += piece
    yield item
