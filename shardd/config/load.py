"""From a config file to the model, or to one error with every issue in it.

A running daemon goes on with its old config when a reload refuses the file, so commands that only ask the daemon or the database
accept a file with errors elsewhere (`load_readable`). But no command may reach another database or daemon than the file means: if
an error could touch a needed option, the file is refused.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from shardd.config.fields import ANY_NAME, Keys, Section, extra_of, named_type, reader_of, section_type, walk
from shardd.config.model import Config, default_state_dir
from shardd.config.on_host import wrong_on_this_host
from shardd.config.rules import Broken, broken_rules
from shardd.config.source import ConfigIssue, Document, config_error, read_document
from shardd.config.values import Reader, closest
from shardd.errors import ConfigError
from shardd.urls import scrub_urls
from shardd.visible import visible

TO_ASK_THE_DAEMON: Final[Collection[Keys]] = (("state_dir",), ("control", "socket"))
TO_REACH_THE_DATABASE: Final[Collection[Keys]] = (("state_dir",), ("database", "dsn"))

MAX_SIZE: Final = 256 * 1024
"""Bytes: fifty times the sample, and little enough that a wrong file is refused at once."""

_FIELDS: Final[dict[Keys, FieldInfo]] = dict(walk(Config))
_MISSING_DSN: Final = (
    "has no dsn; write `dsn: postgresql://…` below it, or delete the line to use the embedded PostgreSQL"
)
_TOP_LEVEL: Final = re.compile(r"^(?=[^\s#])", re.MULTILINE)
_WORD: Final = re.compile(r"[A-Za-z_]+")


@dataclass(frozen=True, slots=True)
class Readable:
    """A config whose wrong options have their defaults."""

    config: Config
    refused: ConfigError | None
    """All errors of the file; None: it has none."""


def load_config(path: Path, *, on_this_host: bool = False) -> Config:
    """Read a config file. Raises ConfigError with all issues in it, one a line.

    `on_this_host`: also whether its paths lead to what they should.
    """
    return parse_config(_read_text(path), str(path), os.environ, on_this_host=on_this_host)


def parse_config(text: str, name: str, environ: Mapping[str, str], *, on_this_host: bool = False) -> Config:
    """Read the text of a config file.

    `name`: path of the file, for messages; relative paths in the text start at its folder. `on_this_host`: as in `load_config`.
    Raises ConfigError with all issues.
    """
    document = read_document(text, environ)
    if not document.readable:
        raise config_error(name, document.issues)
    config, wrong = _check_document(document, name, environ)
    if on_this_host:
        _note_broken(wrong_on_this_host(config), wrong, document)
    if document.issues:
        raise config_error(name, document.issues)
    return config


def load_readable(path: Path, needed: Collection[Keys]) -> Readable:
    """Read as much of a config file as can be read. Raises ConfigError when a `needed` option may be wrong or unknown."""
    return parse_readable(_read_text(path), str(path), needed, os.environ)


def parse_readable(text: str, name: str, needed: Collection[Keys], environ: Mapping[str, str]) -> Readable:
    """As `load_readable`, from the text of a file; `name`: as in `parse_config`."""
    document = read_document(text, environ)
    issues, lost = document.issues, ""
    if not document.readable and isinstance(document.data, dict):
        text, lost = _without_broken_parts(text, environ)
        document = read_document(text, environ)
        document.issues += [issue for issue in issues if issue not in document.issues]
    if not document.readable or _mentions(lost, needed):
        raise config_error(name, document.issues)
    config, wrong = _check_document(document, name, environ)
    error = config_error(name, document.issues) if document.issues else None
    if error and any(option[: len(keys)] == keys for keys in wrong for option in needed):
        raise error
    return Readable(config, error)


def _without_broken_parts(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The text with each top-level section blanked that is not YAML by itself, and the text of those; line numbers stay."""
    kept, lost = [], []
    for part in _parts(text):
        if read_document(part, environ).readable:
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
    """Whether a part that cannot be read might contain a needed option, also misspelt."""
    sections = list({option[0] for option in needed})
    return any(word in sections or closest(word.lower(), sections) for word in _WORD.findall(lost))


def _check_document(document: Document, name: str, environ: Mapping[str, str]) -> tuple[Config, set[Keys]]:
    """The model of what is right in a readable document, and the options that are wrong, with those that were probably meant.

    What is wrong is added to the document's issues. `name`: as in `parse_config`.
    """
    data, issues = document.data, document.issues
    source = Path(name).absolute()
    context: dict[str, Any] = {"base": source.parent, "source": source}
    wrong: set[Keys] = {issue.path for issue in issues if issue.path}
    issues[:] = map(_with_default, issues)
    _open_empty_sections(data, Config)
    if "state_dir" not in data:
        if default := default_state_dir(environ):
            data["state_dir"] = default
        else:
            text = "is missing, and without HOME there is no default; write state_dir: /var/lib/shardd"
            issues.append(ConfigIssue(1, ("state_dir",), text))
            wrong.add(("state_dir",))
    try:
        config = Config.model_validate(data, context=context)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            # pydantic marks a name that cannot be one with "[key]" behind it.
            keys = tuple(str(key) for key in details["loc"] if key != "[key]")
            wrong.add(keys)
            if keys not in document.unknown:
                issues.append(_issue(keys, details, document))
                if details["type"] == "extra_forbidden" and (near := _near(keys)):
                    wrong.add((*keys[:-1], near))  # what was meant for it is not known either
        # Once more without what is wrong: only then can the rules between the options be checked.
        for keys in wrong:
            _take_out(data, keys)
        config = Config.model_validate(data, context=context)
    _note_broken(broken_rules(config), wrong, document)
    return config, wrong


def _note_broken(found: Iterable[Broken], wrong: Collection[Keys], document: Document) -> None:
    """Add the broken rules to the issues, but for options that are wrong by themselves."""
    for broken in found:
        if not any(keys == option[: len(keys)] for keys in wrong for option in broken.fields):
            blamed = next((option for option in broken.fields if option in document.places), broken.fields[0])
            document.issues.append(ConfigIssue(document.line(blamed), broken.fields[0], broken.text, broken.value))


def _read_text(path: Path) -> str:
    """The text of a file. Raises ConfigError: also a folder, or a pipe that may never end, is refused, not waited for."""
    name = visible(str(path))
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{name}: is a folder; name the config file in it, such as {name}/shards.yaml")
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{name}: is not a regular file; write the config to a file")
        if status.st_size > MAX_SIZE:
            raise ConfigError(f"{name}: has {status.st_size} bytes, so it is not a config; name another file")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            f"{name}: there is no such file; name yours with --config or $SHARDD_CONFIG, or begin with the output of "
            "`shardd config sample`"
        ) from None
    except PermissionError:
        raise ConfigError(
            f"{name}: user {os.geteuid()} may not read it; change the owner or mode of the file"
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"{name}: cannot be read: {reason}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        byte = content[error.start]
        raise ConfigError(f"{name}:{line}: is not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8") from None


def _open_empty_sections(data: dict[str, Any], model: type[Section]) -> None:
    """A section whose options are all commented out is None in YAML; it means its defaults."""
    for name in data.keys() & model.model_fields.keys():
        inner, each = section_type(model.model_fields[name]), named_type(model.model_fields[name])
        if inner or each:
            data[name] = {} if data[name] is None else data[name]
        if not isinstance(data[name], dict):
            continue
        if inner:
            _open_empty_sections(data[name], inner)
        elif each:
            for key, value in data[name].items():
                data[name][key] = {} if value is None else value
                if isinstance(data[name][key], dict):
                    _open_empty_sections(data[name][key], each)


def _issue(keys: Keys, details: Any, document: Document) -> ConfigIssue:
    """What one finding of pydantic means in the file."""
    field = _field(keys)
    reader = reader_of(field) if field else None
    place = document.places.get(keys)
    value = None if place is None or reader is None or reader.secret else place.shown and scrub_urls(place.shown)
    line, kind = document.line(keys), details["type"]
    if kind == "extra_forbidden":
        return ConfigIssue(line, keys, _unknown(keys))
    if kind == "missing":
        is_dsn = keys == ("database", "dsn")
        return ConfigIssue(line, keys[:-1] if is_dsn else keys, _MISSING_DSN if is_dsn else "is missing; write it")
    if field and (each := named_type(field)):
        name, options = extra_of(field, "sample"), ", ".join(each.model_fields)
        text = (
            f"is not a section; write a name below it, indented, such as {name}:, and below that its options: {options}"
        )
        return ConfigIssue(line, keys, text)
    if kind != "value_error" and (inner := _section(keys)):
        options = ", ".join(inner.model_fields)
        return ConfigIssue(line, keys, f"is not a section; write its options below it, indented: {options}")
    if details["input"] is None:
        return ConfigIssue(line, keys, f"is null; {_instead_of_null(field, reader)}")
    error = details.get("ctx", {}).get("error")
    return ConfigIssue(line, keys, str(error) if error else f"is not valid ({details['msg']})", value)


def _with_default(issue: ConfigIssue) -> ConfigIssue:
    """A variable without a value may have a default, but a secret does not belong in the file."""
    field = _field(issue.path)
    reader = reader_of(field) if field else None
    if issue.lacks is None or reader is None or reader.secret:
        return issue
    return replace(issue, text=f"{issue.text}, or write ${{{issue.lacks}:-default}}")


def _instead_of_null(field: FieldInfo | None, reader: Reader | None) -> str:
    if field is None or reader is None or field.default_factory or field.is_required():
        return "write a value, or delete the line"
    return f"delete the line for the default ({field.default}), or write a value"


def _general(keys: Keys) -> Keys:
    """The path as `_FIELDS` knows it, whatever the names of named sections are."""
    for index in range(1, len(keys)):
        if (field := _FIELDS.get(keys[:index])) and named_type(field):
            keys = (*keys[:index], ANY_NAME, *keys[index + 1 :])
    return keys


def _field(keys: Keys) -> FieldInfo | None:
    return _FIELDS.get(_general(keys))


def _section(keys: Keys) -> type[Section] | None:
    """The section that belongs at this path, if one does."""
    field, above = _field(keys), _field(keys[:-1])
    return section_type(field) if field else named_type(above) if above else None


def _siblings(keys: Keys) -> list[str]:
    above = _general(keys)[:-1]
    return [path[-1] for path in _FIELDS if path[:-1] == above]


def _near(keys: Keys) -> str | None:
    """The option of the same section that was probably meant."""
    return closest(keys[-1].lower().replace("-", "_"), _siblings(keys))


def _unknown(keys: Keys) -> str:
    """What to do about a key that no section has: a near one, the section where it belongs, or all that are known."""
    where = f"an option of {'.'.join(keys[:-1])}" if len(keys) > 1 else "an option"
    if near := _near(keys):
        return f"is not {where}; did you mean {near}?"
    if elsewhere := [path for path in _FIELDS if path[-1] == keys[-1]]:
        return f"is not {where}; did you mean {' or '.join('.'.join(path) for path in elsewhere).replace(ANY_NAME, 'NAME')}?"
    return f"is not {where}; known are {', '.join(_siblings(keys))}"


def _take_out(data: dict[str, Any], keys: Keys) -> None:
    """Delete what is wrong; an option that must be there gets the sample's value."""
    if ANY_NAME in (general := _general(keys)):
        # A named section is known as a whole or not at all.
        keys = keys[: general.index(ANY_NAME) + 1]
    *above, key = keys
    inner: Any = data
    for name in above:
        inner = inner.get(name) if isinstance(inner, dict) else None
    if isinstance(inner, dict):
        inner.pop(key, None)
        field = _field(keys)
        if field is not None and field.is_required():
            inner[key] = extra_of(field, "sample")
