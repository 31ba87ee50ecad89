"""The section `pacing`: how fast a device sends, and what differs for a class of jobs.

How a device's own settings and these come together is told in `shardd.config.device_pace`.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from typing import Annotated

from shardd.config.fields import Section, section, setting
from shardd.config.pacing_values import Hours, Steps
from shardd.config.special_values import TimeZone
from shardd.config.values import Seconds, Whole

_AS_ABOVE = "null: as above."


class ClassPaceConfig(Section):
    """What differs for one class of jobs."""

    gap_min: Annotated[float | None, Seconds("0", "1d")] = setting(
        None, f"Shortest pause before a message of this class. {_AS_ABOVE}", reload="live"
    )
    gap_max: Annotated[float | None, Seconds("0", "1d")] = setting(None, f"Longest pause. {_AS_ABOVE}", reload="live")
    burst: Annotated[int, Whole(0, 1000)] = setting(
        "0",
        "Messages of this class that may follow each other with these pauses; then the device's count, and one message comes "
        "back with each of them that passes. 0: these pauses always hold.",
        reload="live",
    )
    hourly_limit: Annotated[int | None, Whole(0, 1_000_000)] = setting(
        None,
        "The class waits when the device has sent so much in this hour, of whatever class. Less than above: the rest is left to "
        f"the other classes. {_AS_ABOVE}",
        reload="live",
    )
    daily_limit: Annotated[int | None, Whole(0, 1_000_000)] = setting(
        None, f"The same for the day. 0: no limit, and no warm-up. {_AS_ABOVE}", reload="live"
    )
    quiet_hours: Annotated[str | None, Hours()] = setting(
        None, f"Hours in which the class waits, or none. {_AS_ABOVE}", reload="live"
    )


class ReplyPaceConfig(ClassPaceConfig):
    """What differs for answers."""

    gap_min: Annotated[float | None, Seconds("0", "1d")] = setting(
        "1s", f"Shortest pause before an answer: somebody waits for it. {_AS_ABOVE}", reload="live"
    )
    gap_max: Annotated[float | None, Seconds("0", "1d")] = setting("3s", f"Longest pause. {_AS_ABOVE}", reload="live")
    burst: Annotated[int, Whole(0, 1000)] = setting(
        "3",
        "Answers that may follow each other so fast, as a person's would; then the device's pauses count, and one answer comes "
        "back with each of them that passes. 0: the short pauses always hold.",
        reload="live",
    )
    quiet_hours: Annotated[str | None, Hours()] = setting(
        "none", f"Hours in which answers wait; none, because who writes is awake. {_AS_ABOVE}", reload="live"
    )


class ClassesConfig(Section):
    """The classes of jobs."""

    marketing: ClassPaceConfig = section(ClassPaceConfig, "What nobody waits for; the class of a job that names none.")
    service: ClassPaceConfig = section(ClassPaceConfig, "What somebody waits for: codes, receipts, appointments.")
    reply: ReplyPaceConfig = section(ReplyPaceConfig, "What answers a message.")


class PacingConfig(Section):
    """How fast each device sends; a device's own values come first."""

    gap_min: Annotated[float, Seconds("0", "1d")] = setting(
        "5s",
        "Shortest pause from the end of one message of a device to the begin of its next; the pause is random between gap_min "
        "and gap_max.",
        reload="live",
    )
    gap_max: Annotated[float, Seconds("0", "1d")] = setting(
        "15s", "Longest pause. The shorter the pauses, the likelier WhatsApp bans the number.", reload="live"
    )
    hourly_limit: Annotated[int, Whole(0, 1_000_000)] = setting(
        "200",
        "Messages per device in one hour of its clock; the rest waits for the next. Without it the pauses would let a whole "
        "day's messages go within three hours, as no person writes. 0 = no limit.",
        reload="live",
    )
    daily_limit: Annotated[int, Whole(0, 1_000_000)] = setting(
        "1000",
        "Messages per device and day; the rest waits for midnight. 0 = no limit, and no warm-up.",
        reload="live",
    )
    quiet_hours: Annotated[str | None, Hours()] = setting(
        None,
        "Hours of the device's clock in which it begins no message, such as 21:00-08:00. null: none, because only you know where "
        "the recipients sleep.",
        reload="live",
    )
    timezone: Annotated[str, TimeZone()] = setting(
        "UTC",
        "Whose clock and calendar count for hourly_limit, daily_limit and quiet_hours, such as Asia/Jakarta.",
        reload="live",
    )
    warm_up: Annotated[tuple[int, ...] | None, Steps()] = setting(
        "50, 100, 200, 400, 700",
        "Daily limits of the first days on which a device sends, while they are below its daily limit: a new number that sends "
        "at once what an old one does is soon banned. Not for devices that are added with --warm. null: no warm-up.",
        reload="live",
    )
    classes: ClassesConfig = section(
        ClassesConfig,
        "What differs for a class of jobs. A device may say otherwise for all its jobs and for a class (shardd device set). "
        "Of each setting counts the first that is given: the device's for the class, the one below, the device's, the one above. "
        "But a limit or a pause that a device is given is only tightened by what stands below, save by a burst.",
    )

    @property
    def zone(self) -> dt.tzinfo:
        """The time zone itself."""
        return dt.UTC if self.timezone == "UTC" else zoneinfo.ZoneInfo(self.timezone)
