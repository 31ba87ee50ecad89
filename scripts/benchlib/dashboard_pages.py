"""What people and programs ask the dashboard for: every page with each filter and order, deep pages, and the same by JSON.

`dashboard_pages.txt` has them in groups, with names in braces of which each value makes a page of its own.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchlib.dashboard_fill import Sizes
from shardd.dashboard.pages.devices import ORDERS
from shardd.dashboard.pages.events import GROUPS
from shardd.errors import ErrorClass
from shardd.event_kinds import EventKind
from shardd.pacing import CLASSES
from shardd.queue.campaigns import CampaignState
from shardd.queue.devices import SHOWN_STATES
from shardd.states import JobState

FILE: Final = Path(__file__).with_suffix(".txt")
TRIVIAL: Final = "/account"
"""A page that asks neither the database nor the supervisor."""
BROWSER: Final = "browser"


@dataclass(frozen=True)
class Address:
    """Something to ask for; `by`: a browser, or what the token of a program may."""

    group: str
    path: str
    by: str = BROWSER


def all_pages(sizes: Sizes) -> Iterator[Address]:
    """Of a database that was filled with so much."""
    values, group = _values(sizes), ""
    for line in FILE.read_text().splitlines():
        if line.startswith("# "):
            group = line.removeprefix("# ")
            continue
        by, _, path = line.rpartition(" ")
        names = list(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(path) if name))
        for chosen in itertools.product(*(values[name] for name in names)):
            yield Address(group, path.format_map(dict(zip(names, chosen, strict=True))), by or BROWSER)


def _values(sizes: Sizes) -> Mapping[str, Sequence[object]]:
    finished = sizes.finished
    # Jobs long ago, a week ago, and lately: sent; then failed, in doubt and opted out.
    old, week, lately = (100 * int(finished * place / 100) for place in (0.1, 0.72, 0.99))
    ended = (old, week, lately, lately + 92, 5 * old + 98, lately + 99)
    queued, scheduled, held = finished + 10, finished + 6, finished + 119
    return {
        "order": list(ORDERS),
        "shown_state": list(SHOWN_STATES),
        "transport": ("sandbox", "whatsapp", "wablas"),
        "state": list(JobState),
        "class": CLASSES,
        "error_class": list(ErrorClass),
        "campaign_state": list(CampaignState),
        "kind": (*GROUPS, *EventKind),
        "device": (_device(sizes.devices // 2),),
        "late_device": (_device(sizes.devices * 9 // 10),),
        "some_device": [_device(number) for number in (1, 2, 3, 7, 10)],
        "middle": (finished // 2,),
        "place": [int(sizes.jobs * place) for place in (0.05, 0.5, 0.95)],
        "some_job": (*ended, queued, scheduled, held),
        "no_job": (10 * sizes.jobs,),
        "opted_out": (f"%2B4915199{sizes.opt_outs // 2:06}",),
        "stranger": ("%2B4915188888888",),  # to whom nothing was ever sent
        "miss": ("nobody-has-this",),
    }


def _device(number: int) -> str:
    return f"bench-{number:05}"
