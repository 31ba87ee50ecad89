"""What commands need to reach a daemon or its database, from a file that may have errors elsewhere.

A file that a reload refused must not keep anybody from asking the daemon, which goes on with the old one. But no command may
reach another database or daemon than the file means: where an error could touch a needed option, the file is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from shardd.config.issues import Path as Keys
from shardd.config.issues import config_error
from shardd.config.load import check_document, read_text
from shardd.config.model import Config
from shardd.config.source import Document, read_document
from shardd.config.values import closest
from shardd.errors import ConfigError

TO_ASK_THE_DAEMON: Final[Collection[Keys]] = (("state_dir",), ("control", "socket"))
TO_REACH_THE_DATABASE: Final[Collection[Keys]] = (("state_dir",), ("database", "dsn"))
_TOP_LEVEL: Final = re.compile(r"^(?=[^\s#])", re.MULTILINE)
_WORD: Final = re.compile(r"[A-Za-z_]+")


@dataclass(frozen=True, slots=True)
class Readable:
    """A config whose wrong options have their defaults."""

    config: Config
    refused: ConfigError | None
    """All errors of the file; None: it has none."""


def load_readable(path: Path, needed: Collection[Keys], environ: Mapping[str, str] | None = None) -> Readable:
    """Read as much of a config file as can be read. Raises ConfigError when a `needed` option may be wrong or unknown."""
    return parse_readable(read_text(path), str(path), needed, os.environ if environ is None else environ)


def parse_readable(text: str, name: str, needed: Collection[Keys], environ: Mapping[str, str]) -> Readable:
    """As `load_readable`, from the text of a file; `name`: as in `parse_config`."""
    document = read_document(text, environ)
    issues, lost = list(document.issues), ""
    if not document.readable:
        text, lost = _without_broken_parts(text, environ)
        document = read_document(text, environ)
        issues += [issue for issue in document.issues if issue not in issues]
    if not document.readable or not _is_config(document) or _mentions(lost, needed):
        raise (
            config_error(name, issues)
            if issues
            else ConfigError(f"{name}: this is not a config; write lines such as `shards: 8`")
        )
    before = len(document.issues)
    config, wrong = check_document(document, name, environ)
    issues += document.issues[before:]
    if any(_touches(keys, option) for keys in wrong for option in needed):
        raise config_error(name, issues)
    return Readable(config, config_error(name, issues) if issues else None)


def _is_config(document: Document) -> bool:
    return document.data is None or isinstance(document.data, dict)


def _touches(wrong: Keys, option: Keys) -> bool:
    return option[: len(wrong)] == wrong


def _without_broken_parts(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The text with the top-level sections blanked that are no YAML by themselves, and the text of those; line numbers stay."""
    kept, lost = [], []
    for part in _parts(text):
        document = read_document(part, environ)
        if document.readable and _is_config(document):
            kept.append(part)
        else:
            lost.append(part)
            kept.append("\n" * part.count("\n"))
    return "".join(kept), "".join(lost)


def _parts(text: str) -> Iterator[str]:
    starts = [0, *(match.start() for match in _TOP_LEVEL.finditer(text)), len(text)]
    for start, end in pairwise(starts):
        if end > start:
            yield text[start:end]


def _mentions(lost: str, needed: Collection[Keys]) -> bool:
    """Whether a part that cannot be read might hold a needed option, also misspelt."""
    sections = list({option[0] for option in needed})
    return any(word in sections or closest(word.lower(), sections) for word in _WORD.findall(lost))
