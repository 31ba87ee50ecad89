"""The options that describe a device, and their values; `default` stands for what the config says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from shardd.cli.options import all_of, read_value
from shardd.config import Config
from shardd.config.pacing import BURST, GAP, LIMIT
from shardd.config.values import Reader
from shardd.config.values.network import PROXY_URL
from shardd.config.values.places import TIME_ZONE
from shardd.config.values.words import HOURS
from shardd.errors import UsageError
from shardd.json_values import UnreadableError, read_object
from shardd.pacing import CLASSES
from shardd.queue.devices import MOST_SETTINGS, NewDevices
from shardd.queue.records import Device

DEFAULT: Final = "default"
_READERS: Final[Mapping[str, Reader]] = {
    "gap_min": GAP,
    "gap_max": GAP,
    "hourly_limit": LIMIT,
    "daily_limit": LIMIT,
    "quiet_hours": HOURS,
    "timezone": TIME_ZONE,
    "burst": BURST,
    "proxy": PROXY_URL,
}
_OF_A_CLASS: Final = ("gap", "gap_min", "gap_max", "burst", "hourly_limit", "daily_limit", "quiet_hours")
device_options: Final = all_of(
    click.option("--label", help="A name for people."),
    click.option("--proxy", help="Proxy of their connections: http://user:password@host:port or socks5://…"),
    click.option("--settings", metavar="JSON", help="All settings of the transport, as a JSON object."),
    click.option("--gap", metavar="MIN..MAX", help="Random pause between two messages, such as 5s..15s."),
    click.option("--gap-min", metavar="DURATION", help="Shortest pause, such as 5s."),
    click.option("--gap-max", metavar="DURATION", help="Longest pause, such as 15s."),
    click.option("--hourly-limit", metavar="NUMBER", help="Messages per hour; 0: no limit."),
    click.option("--daily-limit", metavar="NUMBER", help="Messages per day; 0: no limit, and no warm-up."),
    click.option("--quiet-hours", metavar="HH:MM-HH:MM", help="When it sends nothing, by its own clock; or none."),
    click.option("--timezone", metavar="NAME", help="Its clock and calendar, such as Asia/Jakarta."),
    click.option("--warm/--cold", default=None, help="Whether it needs no warm-up, because it has sent for long."),
    click.option(
        "--class",
        "of_classes",
        multiple=True,
        metavar="CLASS:NAME=VALUE,…",
        help="Pace of marketing, service or reply where it differs, such as reply:gap=1s..3s,burst=5. "
        f"Names: {', '.join(_OF_A_CLASS)}.",
    ),
)
"""A command passes them to `read_options`."""


def read_options(
    *, label: str | None, settings: str | None, warm: bool | None, of_classes: tuple[str, ...], **texts: str | None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The columns of shardd.devices that were given, None for `default`, and the settings of classes. Raises UsageError."""
    given = {name: text for name, text in texts.items() if text is not None}
    if "gap" in given and ("gap_min" in given or "gap_max" in given):
        raise UsageError("--gap has both ends already: leave --gap-min and --gap-max out")
    fields: dict[str, Any] = {}
    for name, text in given.items():
        fields |= read_setting(f"--{name.replace('_', '-')}", name, text)
    if label is not None:
        fields["label"] = label or None
    if settings is not None:
        fields["settings"] = _read_settings(settings)
    if warm is not None:
        fields["warm"] = warm
    classes: dict[str, dict[str, Any]] = {}
    for spec in of_classes:
        name, of_class = _read_class(spec)
        classes.setdefault(name, {}).update(of_class)
    return fields, classes


def read_setting(option: str, name: str, text: str) -> dict[str, Any]:
    """A setting under its name, None for `default`; a gap as its two ends. Raises UsageError."""
    if name != "gap":
        return {name: None if text == DEFAULT else read_value(option, _READERS[name], text)}
    low, dots, high = text.partition("..")
    if text == DEFAULT:
        low = high = DEFAULT
    elif not dots:
        raise UsageError(f"{option}: {text} is not a range; write both ends, such as 5s..15s")
    return read_setting(option, "gap_min", low) | read_setting(option, "gap_max", high)


def check_pace(config: Config, own: NewDevices | Device) -> None:
    """One end of a gap may come from the class, the device or the config. Raises UsageError when they are not a range."""
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


def check_gaps(config: Config, gap_min: float | None, gap_max: float | None) -> None:
    """One end may come from the config. Raises UsageError when they are not a range."""
    low = config.pacing.gap_min if gap_min is None else gap_min
    high = config.pacing.gap_max if gap_max is None else gap_max
    if (gap_min is not None or gap_max is not None) and low > high:
        raise UsageError(f"the shortest gap, {low:g} s, is longer than the longest, {high:g} s: write --gap MIN..MAX")


def _read_class(spec: str) -> tuple[str, dict[str, Any]]:
    name, colon, pairs = spec.partition(":")
    if name not in CLASSES or not colon:
        raise UsageError(
            f"--class: {spec} begins with none of {', '.join(CLASSES)}; write CLASS:NAME=VALUE such as reply:gap=1s..3s"
        )
    settings: dict[str, Any] = {}
    for part in pairs.split(","):
        key, equals, text = part.strip().partition("=")
        key = key.replace("-", "_")
        if key not in _OF_A_CLASS or not equals:
            raise UsageError(f"--class: {part or spec} is not NAME=VALUE; the names are {', '.join(_OF_A_CLASS)}")
        settings |= read_setting(f"--class {name}:{key}", key, text)
    return name, settings


def _read_settings(text: str) -> dict[str, Any]:
    try:
        return read_object(text, MOST_SETTINGS)
    except UnreadableError as error:
        raise UsageError(f"--settings: the value {error}; write an object such as '{{\"key\": 1}}'") from None
