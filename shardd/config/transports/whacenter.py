"""The transport `whacenter`."""

from __future__ import annotations

from typing import Annotated, Final

from shardd.config.fields import setting
from shardd.config.platform_values import PlatformUrl
from shardd.config.transports.definition import DeviceSetting, TransportDefinition
from shardd.config.transports.platform import BASE, PlatformConfig


class WhacenterConfig(PlatformConfig):
    """Devices that send through Whacenter; each has settings {"device_id": …}."""

    base: Annotated[str, PlatformUrl()] = setting(
        "https://api.whacenter.com",
        "Where Whacenter is; https, or http on this host. A device's own setting `base` comes first.",
        reload="shard",
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
