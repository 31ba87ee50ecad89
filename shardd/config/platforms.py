"""The sections of the HTTP platforms: what they have in common, and what each has of its own.

Keys and tokens stand in the devices' own settings, because each device has its own.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shardd.config.fields import Section, section, setting
from shardd.config.platform_values import ListenAddress, PlatformUrl, Rate, Secret, Word
from shardd.config.special_values import Region
from shardd.config.values import Seconds


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


class WablasConfig(PlatformConfig):
    """Devices that send through Wablas; each has settings {"token": …}."""

    base: Annotated[str, PlatformUrl()] = setting(
        "https://my.wablas.com",
        "Where Wablas is: your account's server, https, or http on this host. A device's own setting `base` comes first.",
        reload="shard",
    )


class WhacenterConfig(PlatformConfig):
    """Devices that send through Whacenter; each has settings {"device_id": …}."""

    base: Annotated[str, PlatformUrl()] = setting(
        "https://api.whacenter.com",
        "Where Whacenter is; https, or http on this host. A device's own setting `base` comes first.",
        reload="shard",
    )


class CloudWebhookConfig(Section):
    """Where Meta tells what became of messages, and what recipients answer."""

    listen: Annotated[str | None, ListenAddress()] = setting(
        None,
        "Address and port of this host, such as 127.0.0.1:8081. Meta speaks only https: put a web server with a "
        "certificate before it. On one node only. null: nothing is heard of delivery, reading and answers.",
        reload="restart",
    )
    path: Annotated[str, Word(r"(/[A-Za-z0-9._~-]{1,100}){1,10}|/", "the path of a URL", "/cloud_api")] = setting(
        "/cloud_api", "The path of the URL that is registered with Meta.", reload="restart"
    )
    app_secret: Annotated[str | None, Secret(), Field(repr=False)] = setting(
        None,
        "The secret of the app at Meta, which signs everything that Meta says. Needed with listen; write it as ${NAME}.",
        reload="restart",
    )
    verify_token: Annotated[str | None, Secret(), Field(repr=False)] = setting(
        None,
        "A word of your choice, which Meta repeats when the URL is registered. Needed with listen; write it as ${NAME}.",
        reload="restart",
    )


class CloudApiConfig(PlatformConfig):
    """Devices that send through the Cloud API; each has settings {"phone_number_id": …, "token": …}."""

    base: Annotated[str, PlatformUrl()] = setting(
        "https://graph.facebook.com",
        "Where the Graph API is; https, or http on this host. A device's own setting `base` comes first.",
        reload="shard",
    )
    version: Annotated[str, Word(r"v[0-9]{1,3}\.[0-9]{1,2}", "a version of the Graph API", "v23.0")] = setting(
        "v23.0",
        "Version of the Graph API; Meta serves each for about two years. A device's own setting `version` comes first.",
        reload="shard",
    )
    webhook: CloudWebhookConfig = section(
        CloudWebhookConfig, "Where Meta tells what became of messages, and what recipients answer."
    )
