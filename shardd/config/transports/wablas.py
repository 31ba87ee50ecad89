"""The transport `wablas`."""

from __future__ import annotations

from typing import Annotated, Final

from shardd.config.fields import setting
from shardd.config.platform_values import PlatformUrl
from shardd.config.transports.definition import DeviceSetting, TransportDefinition
from shardd.config.transports.platform import BASE, PlatformConfig


class WablasConfig(PlatformConfig):
    """Devices that send through Wablas; each has settings {"token": …}."""

    base: Annotated[str, PlatformUrl()] = setting(
        "https://my.wablas.com",
        "Where Wablas is: your account's server, https, or http on this host. A device's own setting `base` comes first.",
        reload="shard",
    )


WABLAS: Final = TransportDefinition(
    name="wablas",
    summary="Devices that send through Wablas.",
    implementation="shardd.transports.platforms.wablas:WablasTransport",
    config=WablasConfig,
    kinds=("text", "image"),
    device_settings=(DeviceSetting("token", "the API token of the device at Wablas", secret=True), BASE),
)
