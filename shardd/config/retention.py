"""The section `retention`: how long what is over can still be looked at."""

from __future__ import annotations

from typing import Annotated

from shardd.config.fields import Section, setting
from shardd.config.values import Seconds


class RetentionConfig(Section):
    """When finished jobs and what belongs to them are forgotten."""

    finished: Annotated[float, Seconds("1d", "3650d")] = setting(
        "90d",
        "How long finished jobs can be looked at, at least: they are forgotten a calendar month at a time, because that takes "
        "no work from the queue. Jobs in doubt stay until a person decides. Shorter if messages must not be kept; longer "
        "takes about 400 bytes for each job, and more for long bodies.",
        reload="live",
    )
    dedupe_keys: Annotated[float, Seconds("1d", "3650d")] = setting(
        "90d",
        "How long a dedupe key is remembered, at least; not shorter than finished. Longer if producers repeat themselves later.",
        reload="live",
    )
    contacts: Annotated[float, Seconds("1d", "3650d")] = setting(
        "365d",
        "How long a device group remembers which of its devices a recipient knows, counted from the last message. A recipient "
        "that is forgotten may be written to by another device.",
        reload="live",
    )
