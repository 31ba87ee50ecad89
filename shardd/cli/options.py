"""Options that many commands share."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any, Final

import click

QUOTED: Final = 60
"""Characters that an error repeats of a value."""
DEFAULT_CONFIG: Final = "/etc/shardd/shards.yaml"

_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")


class WholeNumber(click.IntRange):
    """A whole number in a range, in the digits 0 to 9 only: Python reads those of every script, and underscores."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As in click."""
        if isinstance(value, str) and not _WHOLE.fullmatch(value):
            self.fail(f"{value[:QUOTED]!r} is not a whole number; write digits, such as 42", param, ctx)
        return int(super().convert(value, param, ctx))


class Number(click.ParamType[float]):
    """A number above 0 and up to `max`."""

    name = "number"

    def __init__(self, max: float) -> None:  # noqa: A002 - as click's ranges call it
        self._max = max

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As in click."""
        number = float(value) if isinstance(value, float) or _NUMBER.fullmatch(value) else math.nan
        if not 0 < number <= self._max:
            self.fail(
                f"{value[:QUOTED]!r} is not one; write a number above 0 and up to {self._max:g}, such as 2", param, ctx
            )
        return number


config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=lambda: os.environ.get("SHARDD_CONFIG", DEFAULT_CONFIG),
    show_default=f"$SHARDD_CONFIG, else {DEFAULT_CONFIG}",
    help="Config file.",
)
