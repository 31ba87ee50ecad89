"""Reads the old system from MySQL or MariaDB: one read-only snapshot, row by row.

The driver is an optional dependency, loaded on first use. Values are read as the server's text: the driver's conversions would
fail on invalid dates and lose zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from shardd.errors import DatabaseError, SourceError, UsageError
from shardd.extras import how_to_install
from shardd.legacy.dump_values import as_text
from shardd.legacy.tables import Row, Source, Table
from shardd.postgres.sql_files import query_text

if TYPE_CHECKING:
    from pymysql.connections import Connection
    from pymysql.cursors import SSCursor

SCHEMES: Final = ("mysql", "mariadb")
CONNECT_TIMEOUT: Final = 10
READ_TIMEOUT: Final = 300
"""Seconds without a byte after which the server counts as unreachable."""
_PARAMETERS: Final = {"unix_socket", "ssl_ca", "charset"}


class MysqlSource(Source):
    """A connection to a MySQL server."""

    def __init__(self, dsn: str) -> None:
        """`dsn`: mysql://user:password@host:port/database?unix_socket=…&ssl_ca=… Raises SharddError."""
        arguments = _read_dsn(dsn)
        where = arguments.get("unix_socket") or f"{arguments['host']}:{arguments['port']}"
        super().__init__(f"MySQL at {where}/{arguments['database']}")
        try:
            import pymysql  # noqa: PLC0415 - an optional dependency
            from pymysql.cursors import SSCursor  # noqa: PLC0415
        except ImportError:
            raise SourceError(
                f"the MySQL driver is not installed: {how_to_install('mysql')}, or import a file of mysqldump"
            ) from None
        self._failures: tuple[type[Exception], ...] = (pymysql.MySQLError, OSError, RuntimeError, UnicodeDecodeError)
        with self._errors():
            self._connection: Connection[SSCursor] = pymysql.connect(
                **arguments,
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT,
                write_timeout=READ_TIMEOUT,
                cursorclass=SSCursor,
                conv={},
                autocommit=True,
                program_name="shardd import",
            )
            for statement in ("mysql_session", "mysql_snapshot"):
                self._ask(query_text("shardd.legacy", statement))

    def scan(self, *tables: Table) -> Iterator[tuple[Table, Row]]:
        """The rows of these tables, table by table."""
        for table in tables:
            with self._errors():
                types = {
                    row[0]: row[1].lower()
                    for row in self._ask(query_text("shardd.legacy", "mysql_columns"), table.name)
                }
                if not types:
                    continue
                columns = table.choose(types, self.name)
                self.found.add(table.name)
                statement = query_text("shardd.legacy", "mysql_rows").format(
                    columns=", ".join(map(_quote, columns)), table=_quote(table.name)
                )
                suffixes = ["+00:00" if types[column] == "timestamp" else "" for column in columns]
                with self._connection.cursor() as cursor:
                    cursor.execute(statement)
                    for values in cursor.fetchall_unbuffered():
                        texts = map(_text, values, suffixes)
                        yield table, dict(zip(columns, texts, strict=True))

    def close(self) -> None:
        """Close the connection, even in the middle of a result."""
        self._connection._force_close()  # type: ignore[attr-defined] # noqa: SLF001 - close() would read the result to its end

    def _ask(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            # The driver's errors are (number, text).
            said = error.args[1] if len(error.args) == 2 and isinstance(error.args[0], int) else str(error)
            raise DatabaseError(f"{self.name}: {' '.join(str(said).split())}") from error


def _read_dsn(dsn: str) -> dict[str, Any]:
    try:
        parts = urlsplit(dsn)
        port = parts.port or 3306
        given = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    except ValueError:
        parts, port, given = urlsplit(""), 0, {}
    database = unquote(parts.path.removeprefix("/"))
    if not database or "/" in database or not parts.username or given.keys() - _PARAMETERS:
        raise UsageError(
            "--from: the value (not shown) is not the address of a MySQL database; write mysql://user:password@host/database "
            f"and, if needed, ?{'=…&'.join(sorted(_PARAMETERS))}=…"
        )
    arguments: dict[str, Any] = {
        "host": parts.hostname or "localhost",
        "port": port,
        "user": unquote(parts.username),
        "password": unquote(parts.password or ""),
        "database": database,
        "charset": given.get("charset", "utf8mb4"),
    }
    if "unix_socket" in given:
        arguments["unix_socket"] = given["unix_socket"]
    if "ssl_ca" in given:
        arguments["ssl"] = {"ca": given["ssl_ca"]}
    return arguments


def _quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _text(value: str | bytes | None, suffix: str) -> str | None:
    if value is None:
        return None
    text = as_text(value) if isinstance(value, bytes) else value
    return text + suffix
