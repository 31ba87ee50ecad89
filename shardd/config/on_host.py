"""What the paths of a config lead to on this host.

Only `shardd config check` looks: a daemon must not refuse to start, or to send, because a disk is not mounted yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from shardd.config.fields import Keys, value_at
from shardd.config.model import Config
from shardd.config.rules import Broken
from shardd.config.values import format_duration
from shardd.visible import visible

_FOLDERS: Final = (("inbox", "media_dir"), ("transports", "whatsapp", "media_dir"))
"""Those that are not created."""
_VISITS: Final = ("transports", "whatsapp", "visit_every")
OFTEN: Final = 60.0
"""Seconds; a device that logs in more often than this is no device that people use."""


def wrong_on_this_host(config: Config) -> list[Broken]:
    """The paths that lead nowhere, or to something else."""
    return [
        *(broken for keys in _FOLDERS if (path := value_at(config, keys)) for broken in _no_folder(keys, path)),
        *_state_dir(config.state_dir),
        *_socket(config.control.socket),
    ]


def doubtful(config: Config) -> list[str]:
    """What is allowed, and seldom meant."""
    every = value_at(config, _VISITS)
    if not 0 < every < OFTEN:
        return []
    text = "means a login of each idle device that often, and WhatsApp may ban numbers that log in again and again"
    return [f"{'.'.join(_VISITS)}: {format_duration(every)} {text}; write 1m or more"]


def _no_folder(keys: Keys, path: Path) -> Iterator[Broken]:
    if path.is_dir():
        return
    text = (
        "is not a folder; name one"
        if path.exists()
        else f"does not exist on this host; create it: mkdir -p {visible(str(path))}"
    )
    yield Broken((keys,), visible(str(path)), text)


def _state_dir(path: Path) -> Iterator[Broken]:
    """It is created, so only a file in its place counts."""
    found = next(place for place in (path, *path.parents) if place.exists())
    if not found.is_dir():
        where = "is a file" if found == path else f"is below the file {visible(str(found))}"
        yield Broken((("state_dir",),), visible(str(path)), f"{where}; name a folder, such as /var/lib/shardd")


def _socket(path: Path | None) -> Iterator[Broken]:
    if path is None or not path.exists() or path.is_socket():
        return
    shown = visible(str(path))
    if path.is_dir():
        text = f"is a folder; name a socket in it, such as {shown}/control.sock"
    else:
        text = "is a file; write a path where nothing is, such as /run/shardd/control.sock"
    yield Broken((("control", "socket"),), shown, text)
