"""What the HTTP platforms have in common: their section of the config, and the settings of their devices.

Keys and tokens are settings of the devices, because each device has its own.
"""

from __future__ import annotations

from typing import Annotated, Final

from shardd.config.fields import Section, setting
from shardd.config.platform_values import PlatformUrl, Rate
from shardd.config.special_values import Region
from shardd.config.transports.definition import DeviceSetting
from shardd.config.values import Seconds

BASE: Final = DeviceSetting("base", "where the platform is, such as https://api.example.com", needed=False)


class PlatformConfig(Section):
    """What all of them have."""

    base: Annotated[str, PlatformUrl()] = setting(
        ...,
        "Where the platform is; https, or http on this host. A device's own setting `base` comes first.",
        reload="shard",
    )
    default_region: Annotated[str | None, Region()] = setting(
        None,
        "Country of phone numbers that are written without + and country code, such as ID. null: such numbers are refused.",
        reload="shard",
    )
    connect_timeout: Annotated[float, Seconds("100ms", "10m")] = setting(
        "10s", "How long reaching the platform may take. Nothing has left until then.", reload="shard"
    )
    answer_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "75s",
        "How long the platform may take to answer before the message is in doubt: rather long than short. Longer for a "
        "slow platform, and then queue.send_timeout longer still, which ends every send.",
        reload="shard",
    )
    rate: Annotated[float, Rate()] = setting(
        "0",
        "Messages in one second of each account, whichever of its devices sends them, per worker. 0: as fast as the "
        "devices' own pace; the platform's 429 is obeyed either way.",
        reload="shard",
    )
