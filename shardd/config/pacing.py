"""The section `pacing`; `shardd.supervisor.scheduling.current_config` combines it with a device's own settings."""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Annotated, Final

from shardd.config.fields import Section, section, setting
from shardd.config.values import Seconds, Whole
from shardd.config.values.places import TimeZone
from shardd.config.values.words import Hours, Steps

# The command line reads a device's own settings with the same readers.
GAP: Final = Seconds("0", "1d")
LIMIT: Final = Whole(0, 1_000_000)
BURST: Final = Whole(0, 1000)
_AS_ABOVE: Final = "null: as above."


class ClassPaceConfig(Section, reload="live"):
    """What differs for one class of jobs."""

    gap_min: Annotated[float | None, GAP] = setting(None, f"Shortest gap before a message of this class. {_AS_ABOVE}")
    gap_max: Annotated[float | None, GAP] = setting(None, f"Longest gap. {_AS_ABOVE}")
    burst: Annotated[int, BURST] = setting(
        "0",
        "How many messages of this class may follow each other with these gaps before the device's own gaps apply; each of "
        "those that passes allows one more. 0: these gaps always apply.",
    )
    hourly_limit: Annotated[int | None, LIMIT] = setting(
        None,
        "The class waits once the device has sent this many messages of any class in the hour. A number below the one above "
        f"reserves the difference for the other classes. {_AS_ABOVE}",
    )
    daily_limit: Annotated[int | None, LIMIT] = setting(
        None, f"The same per day. 0: no limit, and no warm-up. {_AS_ABOVE}"
    )
    quiet_hours: Hours | None = setting(None, f"Hours in which the class waits, or none. {_AS_ABOVE}")


class ReplyPaceConfig(ClassPaceConfig, reload="live"):
    """What differs for replies."""

    gap_min: Annotated[float | None, GAP] = setting(
        "1s", f"Shortest gap before a reply: someone is waiting for it. {_AS_ABOVE}"
    )
    gap_max: Annotated[float | None, GAP] = setting("3s", f"Longest gap. {_AS_ABOVE}")
    burst: Annotated[int, BURST] = setting(
        "3",
        "How many replies may follow each other this fast, as a person's would, before the device's own gaps apply; each "
        "of those that passes allows one more. 0: the short gaps always apply.",
    )
    quiet_hours: Hours | None = setting(
        "none", f"Hours in which replies wait, or none, because whoever writes is awake. {_AS_ABOVE}"
    )


class ClassesConfig(Section):
    """The classes of jobs."""

    marketing: ClassPaceConfig = section(
        ClassPaceConfig, "Messages that no one is waiting for; the class of a job that names none."
    )
    service: ClassPaceConfig = section(
        ClassPaceConfig, "Messages that someone is waiting for: codes, receipts, appointments."
    )
    reply: ReplyPaceConfig = section(ReplyPaceConfig, "Answers to a message.")


class PacingConfig(Section, reload="live"):
    """How fast each device sends; a device's own values come first."""

    gap_min: Annotated[float, GAP] = setting(
        "5s",
        "Shortest gap between the end of one message of a device and the start of the next; each gap is random between gap_min "
        "and gap_max.",
    )
    gap_max: Annotated[float, GAP] = setting(
        "15s", "Longest gap. The shorter the gaps, the more likely WhatsApp bans the number."
    )
    hourly_limit: Annotated[int, LIMIT] = setting(
        "200",
        "Messages per device and hour of its clock; the others wait for the next hour. Without it, the gaps would let a whole "
        "day's messages leave within three hours, as no person writes. 0: no limit.",
    )
    daily_limit: Annotated[int, LIMIT] = setting(
        "1000", "Messages per device and day; the others wait for midnight. 0: no limit, and no warm-up."
    )
    quiet_hours: Hours | None = setting(
        None,
        "Hours of the device's clock in which it starts no message, such as 21:00-08:00. null: none, because only you know "
        "when your recipients sleep.",
    )
    timezone: TimeZone = setting(
        "UTC", "Clock and calendar for hourly_limit, daily_limit and quiet_hours, such as Asia/Jakarta."
    )
    warm_up: Steps | None = setting(
        "50, 100, 200, 400, 700",
        "Daily limits of a device's first days of sending, while they are below its daily limit: a new number that sends "
        "as much as an old one is soon banned. Not for devices added with --warm. null: no warm-up.",
    )
    classes: ClassesConfig = section(
        ClassesConfig,
        "What differs for a class of jobs. A device can override everything here, for all its jobs or for one class "
        "(shardd device set). For each setting the first one that is given counts: the device's for the class, the one "
        "below, the device's, the one above. But where a device has a limit or a gap of its own, the values below can only "
        "tighten it, except for bursts.",
    )

    @property
    def zone(self) -> dt.tzinfo:
        """The time zone itself."""
        return dt.UTC if self.timezone == "UTC" else zoneinfo.ZoneInfo(self.timezone)
