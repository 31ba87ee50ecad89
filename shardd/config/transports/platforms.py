"""The HTTP platforms: what they have in common, and those that need nothing more.

Keys and tokens are settings of the devices, because each device has its own.
"""

from __future__ import annotations

from typing import Annotated, Final

from shardd.config.fields import Section
from shardd.config.transports.definition import DeviceSetting, TransportDefinition, option
from shardd.config.values import Seconds
from shardd.config.values.network import PlatformUrl
from shardd.config.values.numbers import Rate
from shardd.config.values.words import Region

BASE: Final = DeviceSetting("base", "where the platform is, such as https://api.example.com", needed=False)


class PlatformConfig(Section):
    """What all of them have."""

    base: PlatformUrl = option(
        ..., "Where the platform is; https, or http on this host. A device's own setting `base` comes first."
    )
    default_region: Region | None = option(
        None,
        "Country of phone numbers that are written without + and country code, such as ID. null: such numbers are refused.",
    )
    connect_timeout: Annotated[float, Seconds("100ms", "10m")] = option(
        "10s", "How long reaching the platform may take. Nothing has left until then."
    )
    answer_timeout: Annotated[float, Seconds("1s", "1h")] = option(
        "75s",
        "How long the platform may take to answer before the message is in doubt: rather long than short. Longer for a "
        "slow platform, and then queue.send_timeout longer still, which ends every send.",
    )
    rate: Rate = option(
        "0",
        "Messages in one second of each account, whichever of its devices sends them, per worker. 0: as fast as the "
        "devices' own pace; the platform's 429 is obeyed either way.",
    )


class WablasConfig(PlatformConfig):
    """Devices that send through Wablas; each has settings {"token": …}."""

    base: PlatformUrl = option(
        "https://my.wablas.com",
        "Where Wablas is: your account's server, https, or http on this host. A device's own setting `base` comes first.",
    )


WABLAS: Final = TransportDefinition(
    name="wablas",
    summary="Devices that send through Wablas.",
    implementation="shardd.transports.platforms.wablas:WablasTransport",
    config=WablasConfig,
    kinds=("text", "image"),
    device_settings=(DeviceSetting("token", "the API token of the device at Wablas", secret=True), BASE),
)


class WhacenterConfig(PlatformConfig):
    """Devices that send through Whacenter; each has settings {"device_id": …}."""

    base: PlatformUrl = option(
        "https://api.whacenter.com",
        "Where Whacenter is; https, or http on this host. A device's own setting `base` comes first.",
    )


WHACENTER: Final = TransportDefinition(
    name="whacenter",
    summary="Devices that send through Whacenter.",
    implementation="shardd.transports.platforms.whacenter:WhacenterTransport",
    config=WhacenterConfig,
    kinds=("text", "image"),
    # Whoever knows the id of a Whacenter device can send with it.
    device_settings=(DeviceSetting("device_id", "the device id at Whacenter", secret=True), BASE),
)
