"""The options that say how fast a device sends, as values; `default` stands for what the config says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from shardd.cli.device.settings import check_gaps, read_duration, read_gaps
from shardd.config import Config
from shardd.config.pacing import BURST, LIMIT, OwnPace
from shardd.config.values import Reader, RefusedError
from shardd.config.values.words import HOURS, TIME_ZONE
from shardd.errors import UsageError
from shardd.pacing import CLASSES

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT: Final = "default"
_READERS: Final[Mapping[str, Reader]] = {
    "hourly_limit": LIMIT,
    "daily_limit": LIMIT,
    "quiet_hours": HOURS,
    "timezone": TIME_ZONE,
    "burst": BURST,
}
_OF_A_CLASS: Final = ("gap", "gap_min", "gap_max", "burst", "hourly_limit", "daily_limit", "quiet_hours")

_OPTIONS: Final = (
    click.option("--gap", metavar="MIN..MAX", help="Random pause between two messages, such as 5s..15s."),
    click.option("--gap-min", metavar="DURATION", help="The shortest pause, such as 5s."),
    click.option("--gap-max", metavar="DURATION", help="The longest pause, such as 15s."),
    click.option("--hourly-limit", metavar="NUMBER", help="Messages an hour; 0: no limit."),
    click.option("--daily-limit", metavar="NUMBER", help="Messages a day; 0: no limit, and no warm-up."),
    click.option("--quiet-hours", metavar="HH:MM-HH:MM", help="When it sends nothing, by its own clock; or none."),
    click.option("--timezone", metavar="NAME", help="Its clock and calendar, such as Asia/Jakarta."),
    click.option("--warm/--cold", default=None, help="Whether it needs no warm-up, because it has sent for long."),
    click.option(
        "--class",
        "of_classes",
        multiple=True,
        metavar="CLASS:NAME=VALUE,…",
        help="What differs for marketing, service or reply, such as reply:gap=1s..3s,burst=5. "
        f"Names: {', '.join(_OF_A_CLASS)}.",
    ),
)


def pace_options(command: Command) -> Command:
    """Adds the options to a command, which hands them to `read_pace`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def read_pace(
    *,
    gap: str | None,
    gap_min: str | None,
    gap_max: str | None,
    warm: bool | None,
    of_classes: tuple[str, ...],
    **texts: str | None,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Columns of shardd.devices that were named, and settings of classes; None: as configured. Raises UsageError."""
    fields = _gaps(gap, gap_min, gap_max)
    fields |= {
        name: _read(f"--{name.replace('_', '-')}", name, text) for name, text in texts.items() if text is not None
    }
    if warm is not None:
        fields["warm"] = warm
    classes: dict[str, dict[str, Any]] = {}
    for spec in of_classes:
        name, settings = _read_class(spec)
        classes.setdefault(name, {}).update(settings)
    return fields, classes


def check_pace(config: Config, own: OwnPace) -> None:
    """One end of a pause may come from elsewhere. Raises UsageError when the ends are no range."""
    check_gaps(config, own.gap_min, own.gap_max)
    pacing = config.pacing
    for name, settings in own.classes.items():
        configured = getattr(pacing.classes, name)
        ends = []
        for field in ("gap_min", "gap_max"):
            places = (settings.get(field), getattr(configured, field), getattr(own, field), getattr(pacing, field))
            ends.append(next(place for place in places if place is not None))
        if ends[0] > ends[1] and (settings.get("gap_min") is not None or settings.get("gap_max") is not None):
            raise UsageError(
                f"for {name} the shortest gap, {ends[0]:g} s, is longer than the longest, {ends[1]:g} s: "
                f"write --class {name}:gap=MIN..MAX"
            )


def _gaps(gap: str | None, gap_min: str | None, gap_max: str | None) -> dict[str, Any]:
    if gap == DEFAULT and gap_min is None and gap_max is None:
        return {"gap_min": None, "gap_max": None}
    low, high = read_gaps(gap, None if gap_min == DEFAULT else gap_min, None if gap_max == DEFAULT else gap_max)
    ends = {"gap_min": low, "gap_max": high}
    named = {"gap_min": gap_min or gap, "gap_max": gap_max or gap}
    return {name: end for name, end in ends.items() if named[name] is not None}


def _read(where: str, name: str, text: str) -> Any:
    if text == DEFAULT:
        return None
    try:
        return _READERS[name].read(text)
    except RefusedError as error:
        raise UsageError(f"{where}: {text} {error}") from None


def _read_class(spec: str) -> tuple[str, dict[str, Any]]:
    name, colon, rest = spec.partition(":")
    if name not in CLASSES or not colon:
        raise UsageError(
            f"--class: {spec} begins with none of {', '.join(CLASSES)}; write CLASS:NAME=VALUE such as reply:gap=1s..3s"
        )
    settings: dict[str, Any] = {}
    for part in rest.split(","):
        key, equals, text = part.strip().partition("=")
        key = key.replace("-", "_")
        if key not in _OF_A_CLASS or not equals:
            raise UsageError(f"--class: {part or spec} is no NAME=VALUE; the names are {', '.join(_OF_A_CLASS)}")
        where = f"--class {name}:{key}"
        if key == "gap":
            settings |= _gaps(text, None, None)
        elif key in ("gap_min", "gap_max"):
            settings[key] = None if text == DEFAULT else read_duration(where, text)
        else:
            settings[key] = _read(where, key, text)
    return name, settings
