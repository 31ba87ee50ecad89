"""Scanning dumps: the rows do not depend on where a read ends, and nothing but data is taken for data."""

from __future__ import annotations

import io
import random
import re
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardd.errors import SourceError
from shardd.legacy import dump_sql, dump_values
from shardd.legacy.dump_sql import DumpScanner
from shardd.legacy.dump_text import DumpText
from shardd.legacy.dump_values import Dialect
from shardd.legacy.tables import Row, Table

NOTES: Final = Table("notes", ("id", "text"), ("extra",))

POSTGRESQL: Final = rb"""-- PostgreSQL database dump
\restrict 3Hv0K
SET client_encoding = 'UTF8';
CREATE FUNCTION public.remember() RETURNS void LANGUAGE plpgsql
    SECURITY DEFINER SET search_path TO 'pg_catalog', 'public' AS $body_1$
-- it's $1, and not $ or $body_2$;
INSERT INTO public.notes (id, text) VALUES ('9', $$no ' data;$$);
$body_1$;
CREATE FUNCTION public.atomic() RETURNS void LANGUAGE sql
    BEGIN ATOMIC
 INSERT INTO public.notes (id, text) VALUES ('9', 'no data');
END;
CREATE TABLE public.notes (
    id integer NOT NULL,
    text character varying(255) DEFAULT 'a, (b'::character varying,
    "Extra" numeric(10,2) DEFAULT 0,
    CONSTRAINT "notes, all" CHECK ((id > 0))
);
COPY public.other (a) FROM stdin;
INSERT INTO public.notes VALUES (9, 'no data', 0);
a line and another one, so that the end of the data lies in a later piece than its beginning\\.
\.
COPY public.nothing (a) FROM stdin;
\.
COPY public.notes (id, text, "Extra") FROM stdin;
1	it's; \\. \\N	\N
2	two\nlines\ttab \x41\101	0.50
\.
INSERT INTO public.other VALUES ('it''s;
INSERT INTO public.notes VALUES (9, ''no data'', 0);'), (E'\';'), (E'a''b\';');
INSERT INTO public.notes VALUES (3, 'a''b);
INSERT', -1.5e3), (4, E'tab\t\'\\', NULL);
INSERT INTO public.notes ("Extra", text, id) OVERRIDING SYSTEM VALUE VALUES
	(1, '\n', 5),
	(2, '', 6) ON CONFLICT DO NOTHING;
\unrestrict 3Hv0K
"""
FROM_POSTGRESQL: Final[list[Row]] = [
    {"id": "1", "text": "it's; \\. \\N", "Extra": None},
    {"id": "2", "text": "two\nlines\ttab AA", "Extra": "0.50"},
    {"id": "3", "text": "a'b);\nINSERT", "Extra": "-1.5e3"},
    {"id": "4", "text": "tab\t'\\", "Extra": None},
    {"id": "5", "text": "\\n", "Extra": "1"},
    {"id": "6", "text": "", "Extra": "2"},
]

MYSQL: Final = rb"""/*M!999999\- enable the sandbox mode */
-- MySQL dump 10.13
/*!40101 SET NAMES utf8mb4 */;
/*!40103 SET TIME_ZONE='+00:00' */;
USE `old`;
CREATE TABLE `notes` (
  `id` int NOT NULL AUTO_INCREMENT COMMENT 'it''s, \'(first',
  `text` varchar(255) COLLATE utf8mb4_bin DEFAULT 'a, (b',
  `Extra` timestamp NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  PRIMARY KEY (`id`), KEY `k` (`text`(10),`Extra`)
) ENGINE=InnoDB /*!50100 PARTITION BY HASH (`id`) */;
CREATE TABLE `other` (a int DEFAULT 4/2) /*!50100 PARTITION BY it;
INSERT INTO `notes` VALUES (9, 'no data', NULL); */;
LOCK TABLES `other` WRITE;
INSERT INTO `other` VALUES ('it\'s;\nINSERT INTO `notes` VALUES (9);',"\";",_binary '\0\\');
DELIMITER ;;
/*!50003 CREATE*/ /*!50003 TRIGGER t BEFORE INSERT ON other FOR EACH ROW BEGIN
INSERT INTO `notes` VALUES (9, 'no data', NULL); END */;;
CREATE PROCEDURE p() BEGIN
INSERT INTO `notes` VALUES (9, 'no data', NULL);
END ;;
DELIMITER ;
INSERT INTO `notes` VALUES (1,'it\'s \"q\" \\ \n\r\t\0\Z 100\% ''x''','2026-01-01 00:00:00'),(2,_utf8mb4'a',NULL);
INSERT IGNORE INTO `notes` (`Extra`, `id`, `text`) VALUES
('2026-01-02 00:00:00', 3, 0x4142),
(NULL, 4, _binary 'A\'\\') ON DUPLICATE KEY UPDATE `id` = 1;
REPLACE INTO `notes` VALUES (5, X'FF00', NULL), (b'110', N'n', NULL);
# the end
"""
FROM_MYSQL: Final[list[Row]] = [
    {"id": "1", "text": "it's \"q\" \\ \n\r\t\0\x1a 100\\% 'x'", "Extra": "2026-01-01 00:00:00+00:00"},
    {"id": "2", "text": "a", "Extra": None},
    {"id": "3", "text": "AB", "Extra": "2026-01-02 00:00:00+00:00"},
    {"id": "4", "text": "A'\\", "Extra": None},
    {"id": "5", "text": "ff00", "Extra": None},
    {"id": "6", "text": "n", "Extra": None},
]
WANTED: Final = Table("notes", ("id", "text"), ("Extra",))


class ShortReads(io.BytesIO):
    """Gives a few bytes at a time, however many are asked for."""

    def __init__(self, content: bytes, seed: int, most: int) -> None:
        super().__init__(content)
        self._chance = random.Random(seed)
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(self._chance.randint(1, self._most))


def scan(content: bytes, dialect: Dialect, seed: int = 0, most: int = 1 << 20) -> list[Row]:
    text = DumpText(ShortReads(content, seed, most))
    return [row for _, row in DumpScanner(text, dialect, {"notes": WANTED}, "old.sql").rows()]


@pytest.mark.parametrize(
    ("content", "dialect", "rows"), [(POSTGRESQL, "postgresql", FROM_POSTGRESQL), (MYSQL, "mysql", FROM_MYSQL)]
)
def test_rows_are_the_same_wherever_a_read_ends(
    content: bytes, dialect: Dialect, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scan(content, dialect) == rows
    # As little ahead as the longest beginning of a statement here needs, so that everything is cut somewhere.
    monkeypatch.setattr(dump_sql, "HEAD", 90)
    for seed in range(150):
        assert scan(content, dialect, seed, 1 + seed % 40) == rows


TEXTS = st.text(st.sampled_from("ab'\"`\\\n\r\t;,()$-/*#é{}_%\x00"), max_size=12)


@settings(max_examples=300)
@given(st.lists(TEXTS, min_size=1, max_size=6), st.integers(0, 1000))
def test_any_text_comes_back_from_mysql(texts: list[str], seed: int) -> None:
    def quote(text: str) -> str:
        for letter, escape in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\x00", "\\0")):
            text = text.replace(letter, escape)
        return f"'{text}'"

    others = ",".join(f"({quote(text)})" for text in texts)
    rows = ",".join(f"({number},{quote(text)})" for number, text in enumerate(texts))
    dump = f"INSERT INTO `other` VALUES {others};\nINSERT INTO `notes` (`id`, `text`) VALUES {rows};\n"
    assert [row["text"] for row in scan(dump.encode(), "mysql", seed, 9)] == texts


@settings(max_examples=300)
@given(st.lists(TEXTS.map(lambda text: text.replace("\x00", "")), min_size=1, max_size=6), st.integers(0, 1000))
def test_any_text_comes_back_from_postgresql(texts: list[str], seed: int) -> None:
    def quote(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    others = ",".join(f"({quote(text)})" for text in texts)
    rows = ",".join(f"({number},{quote(text)})" for number, text in enumerate(texts))
    dump = f"INSERT INTO other VALUES {others};\nINSERT INTO notes (id, text) VALUES {rows};\n"
    assert [row["text"] for row in scan(dump.encode(), "postgresql", seed, 9)] == texts


def test_memory_stays_flat_over_what_is_passed_over() -> None:
    """A statement and a table of 30 MB that nobody wants, and rows that one does: no more is held than two reads."""
    passed = [b"INSERT INTO `other` VALUES (1)", *[b",('" + b"x" * 997 + b"')"] * 30_000, b";\n"]
    copied = [b"COPY other (a) FROM stdin;\n", *[b"x" * 999 + b"\n"] * 30_000, b"\\.\n"]
    wanted = [b"INSERT INTO `notes` (id, text) VALUES (0,'a')", *[b",(1,'" + b"x" * 995 + b"')"] * 30_000, b";\n"]
    held: list[int] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            held.append(len(text.data))
            return super().read(size)

    text = DumpText(Watched(b"".join([*passed, *copied, *wanted])))
    assert sum(1 for _ in DumpScanner(text, "mysql", {"notes": WANTED}, "old.sql").rows()) == 30_001
    assert len(held) > 80
    assert max(held) < 4 << 20


def test_a_row_without_an_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardd.legacy.dump_text.LONGEST", 4 << 20)
    dump = b"INSERT INTO notes (id, text) VALUES (1, 'a" + b"x" * (20 << 20)
    with pytest.raises(SourceError, match="no end of a value or row after byte"):
        scan(dump, "mysql")


def test_no_pattern_needs_a_possessive_or_atomic_group() -> None:
    """Before 3.11.5, Python moves past the beginning of a repetition that fails (gh-106052); Debian 12 has 3.11.2."""
    patterns = [
        pattern
        for module in (dump_sql, dump_values)
        for value in vars(module).values()
        for pattern in (value.values() if isinstance(value, dict) else [value])
        if isinstance(pattern, re.Pattern)
    ]
    assert len(patterns) > 20
    assert not [
        pattern.pattern for pattern in patterns if re.search(rb"\)[*+?]\+|\)\{[\d,]+\}\+|\(\?>", pattern.pattern)
    ]
