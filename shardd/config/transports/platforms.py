"""The HTTP platforms: their common options, and the platforms that need no others.

Keys and tokens are settings of the devices, because each device has its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from shardd.config.fields import Section, section, setting
from shardd.config.transports.definition import DeviceSetting, TransportDefinition, region_option
from shardd.config.values import Seconds
from shardd.config.values.network import PathWebhookAddress, PlatformUrl
from shardd.config.values.numbers import Rate
from shardd.config.values.places import Region
from shardd.config.values.words import Secret

BASE: Final = DeviceSetting("base", "where the platform is, such as https://api.example.com", needed=False)


def base_option(default: Any, name: str) -> Any:
    """The option `base` of a platform with this name; `...` as the default: required."""
    return setting(default, f"Where {name} is; https, or http on this host. A device's own setting `base` comes first.")


class PlatformConfig(Section, reload="shard"):
    """The options of every platform."""

    base: PlatformUrl = base_option(..., "the platform")
    default_region: Region | None = region_option()
    connect_timeout: Annotated[float, Seconds("100ms", "10m")] = setting(
        "10s", "How long reaching the platform may take. Nothing has left until then."
    )
    answer_timeout: Annotated[float, Seconds("1s", "1h")] = setting(
        "75s",
        "How long the platform may take to answer before the message is in doubt: rather long than short. Longer for a "
        "slow platform, and then queue.send_timeout longer still, which ends every send.",
    )
    rate: Rate = setting(
        "0",
        "Messages in one second of each account, whichever of its devices sends them, per worker. 0: as fast as the "
        "devices' own pace; the platform's 429 is obeyed either way.",
    )


class PathWebhookConfig(Section, reload="restart"):
    """Where a platform without signatures reports incoming messages and statuses: a secret path for each device."""

    listen: PathWebhookAddress | None = setting(
        None,
        "Address and port of this host, such as 127.0.0.1:8082; platforms may share one. Put your https server before it. On "
        "one node only. null: messages and statuses are not received.",
    )
    secret: Secret | None = setting(
        None,
        "A secret of your choice, from which the path of each device is made: shardd device webhook prints the paths, which are "
        "entered at the platform. Another secret means other paths. Needed with listen; write it as ${NAME}.",
    )


class WablasConfig(PlatformConfig, reload="shard"):
    """Devices that send through Wablas; each has settings {"token": …, "secret_key": …}."""

    base: PlatformUrl = base_option("https://my.wablas.com", "your account's server at Wablas")
    webhook: PathWebhookConfig = section(
        PathWebhookConfig, "Where Wablas reports incoming messages (its webhook) and statuses (its tracking webhook)."
    )


WABLAS: Final = TransportDefinition(
    name="wablas",
    summary="Devices that send through Wablas.",
    implementation="shardd.transports.platforms.wablas:WablasTransport",
    config=WablasConfig,
    kinds=("text", "image"),
    link_preview=False,
    device_settings=(
        DeviceSetting("token", "the API token of the device at Wablas", secret=True),
        DeviceSetting(
            "secret_key", "the secret key of the account at Wablas, if it has one", needed=False, secret=True
        ),
        BASE,
    ),
)


class WhacenterConfig(PlatformConfig, reload="shard"):
    """Devices that send through Whacenter; each has settings {"device_id": …}."""

    base: PlatformUrl = base_option("https://api.whacenter.com", "Whacenter")
    webhook: PathWebhookConfig = section(PathWebhookConfig, "Where Whacenter reports incoming messages.")


WHACENTER: Final = TransportDefinition(
    name="whacenter",
    summary="Devices that send through Whacenter.",
    implementation="shardd.transports.platforms.whacenter:WhacenterTransport",
    config=WhacenterConfig,
    kinds=("text", "image"),
    link_preview=False,
    # The id is a secret: it is all that is needed to send with a Whacenter device.
    device_settings=(DeviceSetting("device_id", "the device id at Whacenter", secret=True), BASE),
)

WITH_PATHS: Final = (WABLAS.name, WHACENTER.name)
"""Those that report to a secret path of each device: their sections have a `PathWebhookConfig`."""
