"""The commented sample file, generated from the model, so that it can neither miss an option nor show a wrong default."""

from __future__ import annotations

import textwrap
from typing import Final

from pydantic.fields import FieldInfo

from shardd.config.fields import Section, extra_of, named_type, section_type
from shardd.config.model import Config

WIDTH: Final = 100

_HEAD: Final = """\
The config of shardd, with every option and its default. Your file needs only what differs from the defaults; with an empty \
file, shardd runs with an embedded PostgreSQL.

    shardd config sample > shards.yaml     prints this file
    shardd config check shards.yaml        reports every error in a file, with its line and a fix

Durations have a unit: 250ms, 30s, 5m, 1h30m, 1d. So do sizes: 512KiB, 16MiB, 1GiB. ${NAME} and ${NAME:-default} in a value are \
replaced from the environment of shardd ($${ means the two characters; inside { } put the value in quotes).

`systemctl reload shardd` (SIGHUP) reads a changed file. Most options take effect at once; those marked [workers] take effect as \
the workers are replaced, one after the other; those marked [restart] at the next start of shardd.
"""

_MARKS: Final = {"live": "", "shard": " [workers]", "restart": " [restart]"}


def sample_config() -> str:
    """The text of the sample file: valid YAML, every option with its comment."""
    lines = [line for paragraph in _HEAD.strip().split("\n") for line in _comment(paragraph, "")]
    for name, field in Config.model_fields.items():
        lines += ["", *_lines(name, field, "")]
    return "\n".join(lines) + "\n"


def _lines(name: str, field: FieldInfo, indent: str) -> list[str]:
    if each := named_type(field):
        example = [f"{extra_of(field, 'sample')}:", *_options(each, "  ")]
        return [
            *_comment(field.description or "", indent),
            f"{indent}{name}:",
            *(f"{indent}  # {line}" for line in example),
        ]
    inner = section_type(field)
    if inner is None:
        mark = _MARKS[extra_of(field, "reload")]
        return [*_comment(f"{field.description}{mark}", indent), f"{indent}{_option(name, field)}"]
    return [*_comment(field.description or "", indent), f"{indent}{name}:", *_options(inner, f"{indent}  ")]


def _options(model: type[Section], indent: str) -> list[str]:
    return [line for name, field in model.model_fields.items() for line in _lines(name, field, indent)]


def _option(name: str, field: FieldInfo) -> str:
    value = extra_of(field, "sample") or ("null" if field.default is None else field.default)
    # An option whose default depends on the host is left out; its example shows the shape.
    return f"# {name}: {value.removeprefix('# ')}" if value.startswith("# ") else f"{name}: {value}"


def _comment(text: str, indent: str) -> list[str]:
    if text.startswith("    ") or not text:
        return [f"{indent}# {text}".rstrip()]
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
