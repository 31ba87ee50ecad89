"""What a device is told when it is added: the options' words as values."""

from __future__ import annotations

from typing import Any

from shardd.config import Config
from shardd.config.pacing import GAP
from shardd.config.values import RefusedError
from shardd.config.values.network import PROXY_URL
from shardd.errors import UsageError
from shardd.json_values import UnreadableError, read_object
from shardd.queue.devices import MOST_SETTINGS


def read_gaps(gap: str | None, gap_min: str | None, gap_max: str | None) -> tuple[float | None, float | None]:
    """The ends of the gap in seconds, None where nothing is said. Raises UsageError."""
    low, high = "--gap-min", "--gap-max"
    if gap is not None:
        low = high = "--gap"
        if gap_min is not None or gap_max is not None:
            raise UsageError("--gap says both ends already: leave --gap-min and --gap-max out")
        gap_min, dots, gap_max = gap.partition("..")
        if not dots:
            raise UsageError(f"--gap: {gap} is not a range; write both ends, such as 5s..15s")
    return (
        None if gap_min is None else read_duration(low, gap_min),
        None if gap_max is None else read_duration(high, gap_max),
    )


def read_duration(option: str, text: str) -> float:
    """Seconds. Raises UsageError, which names the option."""
    try:
        return float(GAP.read(text))
    except RefusedError as error:
        raise UsageError(f"{option}: {text} {error}") from None


def check_gaps(config: Config, gap_min: float | None, gap_max: float | None) -> None:
    """One end may come from the config. Raises UsageError when they are no range."""
    low = config.pacing.gap_min if gap_min is None else gap_min
    high = config.pacing.gap_max if gap_max is None else gap_max
    if (gap_min is not None or gap_max is not None) and low > high:
        raise UsageError(f"the shortest gap, {low:g} s, is longer than the longest, {high:g} s: write --gap MIN..MAX")


def read_proxy(proxy: str | None) -> str | None:
    """The proxy's URL. Raises UsageError, which does not show it."""
    if proxy is None:
        return None
    try:
        return str(PROXY_URL.read(proxy))
    except RefusedError as error:
        raise UsageError(f"--proxy: the value (not shown) {error}") from None


def read_settings(text: str | None) -> dict[str, Any] | None:
    """Settings of a transport, from JSON. Raises UsageError."""
    if text is None:
        return None
    try:
        return read_object(text, MOST_SETTINGS)
    except UnreadableError as error:
        raise UsageError(f"--settings: the value {error}; write an object such as '{{\"key\": 1}}'") from None
