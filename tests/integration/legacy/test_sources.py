"""Every source gives the same rows: both databases, and every form of dump."""

from __future__ import annotations

import gzip
import random
import sys
from contextlib import closing
from pathlib import Path
from uuid import UUID

import pytest

from shardd.embedded import binaries
from shardd.errors import DatabaseError, SharddError, SourceError, UsageError
from shardd.legacy.old_system import open_source
from shardd.legacy.tables import MESSAGES, SESSIONS, USER_DEVICES, Row
from tests.fixtures.legacy import OldMysql, OldPostgresql
from tests.support.legacy.mariadb import MariaDb

NASTY = (
    "",
    "Sale — 50% off, don't \"miss\" it; it's `now` $$",
    "two\nlines\r\n\ttab\\n \\. \\",
    "\\.",
    "'",
    "''",
    "');\nINSERT INTO broadcast_messages VALUES ('x');",
    "-- no comment\n/* none */ #",
    "\\N",
    "NULL",
    "{name} {Hi|Hello} $1 $body$ x $body$",
    "😀 ünï ‎ 文字",
    "\b\f\v\x1a\x7f",
    "0x41",
    "_binary 'x'",
    "x" * 60_000,
)
ALPHABET = "ab'\"`\\\n\r\t;,()%_$-/*#N.{}é😀 "
COPIES = (
    (),
    ("--inserts",),
    ("--column-inserts",),
    ("--inserts", "--rows-per-insert=7"),
    ("--format=custom",),
    ("--data-only",),
)
MYSQL_DUMPS = (
    (),
    ("--skip-extended-insert",),
    ("--hex-blob", "--complete-insert"),
    ("--compact",),
    ("--no-create-info", "--complete-insert"),
    ("--skip-quote-names", "--skip-opt"),
)


def messages() -> list[Row]:
    """Rows with all that a text can hold; the same each time."""
    chance = random.Random(4)
    texts = [*NASTY, None, *("".join(chance.choices(ALPHABET, k=chance.randrange(30))) for _ in range(300))]
    return [
        {
            "id": str(UUID(int=number)),
            "device_id": str(UUID(int=7)),
            "recipient_phone": f"60{number:09}",
            "content": text,
            "status": "pending",
            "campaign_id": str(number % 3) if number % 2 else None,
            "scheduled_at": "2026-03-01 09:30:00",
            "group_order": None,
        }
        for number, text in enumerate(texts)
    ]


def devices() -> list[Row]:
    return [{"id": str(UUID(int=7)), "user_id": str(UUID(int=1)), "device_name": "It's; (a) `name`", "jid": ""}]


def read(source: str | Path) -> list[Row]:
    """The messages as they were written, ordered; after a look at the devices, as an import does it."""
    with closing(open_source(str(source))) as old:
        found = [row for _, row in old.scan(USER_DEVICES, SESSIONS)]
        assert [(row["id"], row["device_name"], row["jid"], row["min_delay_seconds"]) for row in found] == [
            (str(UUID(int=7)), "It's; (a) `name`", "", "5")
        ]
        rows = sorted((row for _, row in old.scan(MESSAGES)), key=lambda row: row["id"] or "")
        assert SESSIONS.name not in old.found
        assert MESSAGES.name in old.found
    return [{column: row[column] for column in messages()[0]} for row in rows]


def fill(old: OldPostgresql | OldMysql) -> None:
    old.add("user_devices", devices())
    old.add("broadcast_messages", messages())


def test_postgresql_is_read_as_it_is(old_postgresql: OldPostgresql) -> None:
    fill(old_postgresql)
    assert read(old_postgresql.dsn) == messages()


@pytest.mark.parametrize("options", COPIES, ids=" ".join)
def test_a_dump_of_postgresql_says_the_same(
    old_postgresql: OldPostgresql, tmp_path: Path, options: tuple[str, ...]
) -> None:
    fill(old_postgresql)
    assert read(old_postgresql.dump(tmp_path / "old.dump", *options)) == messages()


def test_mysql_is_read_as_it_is(old_mysql: OldMysql) -> None:
    fill(old_mysql)
    assert read(old_mysql.dsn) == messages()


@pytest.mark.parametrize("options", MYSQL_DUMPS, ids=" ".join)
def test_a_dump_of_mysql_says_the_same(old_mysql: OldMysql, tmp_path: Path, options: tuple[str, ...]) -> None:
    fill(old_mysql)
    assert read(old_mysql.dump(tmp_path / "old.sql", *options)) == messages()


def test_a_gzipped_dump_is_read_too(old_postgresql: OldPostgresql, old_mysql: OldMysql, tmp_path: Path) -> None:
    for old in (old_postgresql, old_mysql):
        fill(old)
        packed = tmp_path / "old.sql.gz"
        packed.write_bytes(gzip.compress(old.dump(tmp_path / "old.sql").read_bytes()))
        assert read(packed) == messages()


def test_moments_keep_their_zone(old_postgresql: OldPostgresql, old_mysql: OldMysql, tmp_path: Path) -> None:
    """`created_at` is a moment in both, whatever zone a session has; `scheduled_at` names none."""
    old_postgresql.execute("ALTER ROLE shardd SET timezone = 'Asia/Jakarta'")
    old_postgresql.execute(
        "INSERT INTO broadcast_messages (created_at, scheduled_at) VALUES ('2026-03-01 00:00:00+00', '2026-03-01 09:30:00')"
    )
    old_mysql.execute(
        "SET time_zone = '+00:00'; INSERT INTO broadcast_messages (id, created_at, scheduled_at) "
        "VALUES ('1', '2026-03-01 00:00:00', '2026-03-01 09:30:00'), ('2', NULL, '0000-00-00')"
    )
    try:
        for source, no_zone in (
            (old_postgresql.dsn, False),
            (old_postgresql.dump(tmp_path / "old.pg"), False),
            (old_mysql.dsn, False),
            (old_mysql.dump(tmp_path / "old.my"), False),
            (old_mysql.dump(tmp_path / "local.my", "--skip-tz-utc"), True),
        ):
            with closing(open_source(str(source))) as old:
                first = next(row for _, row in old.scan(MESSAGES) if row["id"] != "2")
            # Without UTC the dump has the server's own clock, and does not say which that is.
            wanted = {"2026-03-01 07:00:00"} if no_zone else {"2026-03-01 00:00:00+00", "2026-03-01 00:00:00+00:00"}
            if source != str(old_postgresql.dsn) and "pg" in str(source)[-2:]:
                wanted = {"2026-03-01 07:00:00+07"}  # the same moment, as pg_dump's own session writes it
            assert first["created_at"] in wanted, source
            assert first["scheduled_at"] == "2026-03-01 09:30:00"
    finally:
        old_postgresql.execute("ALTER ROLE shardd RESET timezone")


def test_the_rows_that_programs_hold_are_no_data(old_mysql: OldMysql, tmp_path: Path) -> None:
    old_mysql.execute("DROP TABLE user_devices")
    dump = old_mysql.dump(tmp_path / "old.sql")
    assert "not; data" in dump.read_text(errors="replace")
    with closing(open_source(str(dump))) as old:
        assert list(old.scan(USER_DEVICES, MESSAGES)) == []
        assert old.found == {MESSAGES.name}


def test_a_missing_column_is_named(old_postgresql: OldPostgresql, tmp_path: Path) -> None:
    old_postgresql.execute("ALTER TABLE broadcast_messages DROP COLUMN media_url")  # may be missing
    old_postgresql.add("broadcast_messages", [{"content": "x"}])
    with closing(open_source(old_postgresql.dsn)) as old:
        assert [row["content"] for _, row in old.scan(MESSAGES)] == ["x"]
    old_postgresql.execute("ALTER TABLE broadcast_messages RENAME recipient_phone TO phone")
    for source in (old_postgresql.dsn, old_postgresql.dump(tmp_path / "old.sql")):
        with closing(open_source(str(source))) as old, pytest.raises(SourceError) as failed:
            list(old.scan(MESSAGES))
        assert "table broadcast_messages has no column recipient_phone; it has id, " in str(failed.value)


def test_two_databases_in_one_dump_are_not_mixed(old_mysql: OldMysql, mariadb: MariaDb, tmp_path: Path) -> None:
    fill(old_mysql)
    other = OldMysql(mariadb, "other")
    fill(other)
    file = tmp_path / "both.sql"
    file.write_bytes(mariadb.dump("old", "--databases", "other"))
    with (
        closing(open_source(str(file))) as old,
        pytest.raises(SourceError, match="is in other and in old"),
    ):
        list(old.scan(MESSAGES))


def test_what_is_no_source_is_told_in_one_line(old_postgresql: OldPostgresql, mariadb: MariaDb, tmp_path: Path) -> None:
    fill(old_postgresql)
    whole = old_postgresql.dump(tmp_path / "whole.sql").read_bytes()
    archive = old_postgresql.dump(tmp_path / "archive", "--format=custom").read_bytes()
    middle = whole.index(b"\n\\.", whole.index(b"COPY public.broadcast_messages")) - 5000
    files = {
        "cut.sql": (whole[:middle], "ends in the middle of table broadcast_messages"),
        "cut.gz": (gzip.compress(whole)[:-4000], "cannot be read to its end"),
        "utf16.sql": (whole.decode().encode("utf-16"), "is written in UTF-16"),
        "latin.sql": (
            whole.replace(b"SET client_encoding = 'UTF8'", b"SET client_encoding = 'BIG5'"),
            "character set is big5",
        ),
        "wrong.sql": (whole.replace("ü".encode(), b"\xfc"), "the dump declares utf-8, but contains byte 0xfc"),
        "empty.sql": (b"", "is empty"),
        "photo.jpg": (bytes(range(256)) * 20, "is not a dump of PostgreSQL or MySQL"),
        "cut.dump": (archive[: len(archive) // 2], "pg_restore cannot read it"),
        "packed.gz": (gzip.compress(archive), "is a gzipped archive of pg_dump"),
        "bare.sql": (
            b"INSERT INTO broadcast_messages VALUES (1);",
            "pg_dump --column-inserts or mysqldump --complete-insert",
        ),
    }
    cases: list[tuple[str, type[SharddError], str]] = []
    for name, (content, error) in files.items():
        (tmp_path / name).write_bytes(content)
        cases.append((str(tmp_path / name), SourceError, error))
    cases += [
        ("nowhere.sql", UsageError, "--from: nowhere.sql does not exist; write postgresql://"),
        (str(tmp_path), UsageError, "is not a file"),
        ("oracle://scott:tiger@x/y", UsageError, "is not the address of a database"),
        ("mysql://root:tiger@localhost", UsageError, "is not the address of a MySQL database"),
        ("mysql://root:tiger@localhost:x/y", UsageError, "is not the address of a MySQL database"),
        ("mysql://root:tiger@127.0.0.1:1/old", DatabaseError, "MySQL at 127.0.0.1:1/old: "),
        ("postgresql://me:tiger@127.0.0.1:1/old", DatabaseError, "nothing answers at 127.0.0.1:1"),
        (mariadb.dsn("missing"), DatabaseError, "Unknown database 'missing'"),
        (mariadb.dsn("old", "nobody", "tiger"), DatabaseError, "Access denied"),
    ]
    for source, kind, error in cases:
        with pytest.raises(kind) as failed, closing(open_source(source)) as old:
            list(old.scan(USER_DEVICES, MESSAGES))
        assert error in str(failed.value), source
        assert "tiger" not in str(failed.value)
        assert "\n" not in str(failed.value)


def test_what_is_not_installed_is_named(
    old_postgresql: OldPostgresql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = old_postgresql.dump(tmp_path / "archive", "--format=custom")
    monkeypatch.delenv(binaries.BIN_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries, "_packaged", lambda: iter(()))
    monkeypatch.setattr(binaries, "_in_wheel", lambda: iter(()))
    with (
        closing(open_source(str(archive))) as old,
        pytest.raises(SourceError, match="pg_restore is not installed"),
    ):
        list(old.scan(MESSAGES))
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(SourceError, match=r"pip install 'PyMySQL\[rsa\]"):
        open_source("mysql://root@localhost/old")
