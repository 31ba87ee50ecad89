"""The transport `cloud_api`: the official WhatsApp Business Cloud API."""

from __future__ import annotations

from typing import Annotated, Final

from shardd.config.fields import Section, section, setting
from shardd.config.transports.definition import KINDS, DeviceSetting, TransportDefinition
from shardd.config.transports.platforms import BASE, PlatformConfig, base_option
from shardd.config.values import Text
from shardd.config.values.network import CloudWebhookAddress, PlatformUrl
from shardd.config.values.reader import matching
from shardd.config.values.words import Secret

VERSION: Final = r"v[0-9]{1,3}\.[0-9]{1,2}"
_PATH: Final = r"(/[A-Za-z0-9._~-]{1,100}){1,10}|/"


class CloudWebhookConfig(Section, reload="restart"):
    """Where Meta reports what became of messages, and what recipients answer."""

    listen: CloudWebhookAddress | None = setting(
        None,
        "Address and port of this host, such as 127.0.0.1:8081. Meta speaks only https: put a web server with a "
        "certificate before it. On one node only. null: receipts and answers are not received.",
    )
    path: Annotated[str, Text(matching(_PATH, "is not the path of a URL; write one such as /cloud_api"))] = setting(
        "/cloud_api", "The path of the URL that is registered with Meta."
    )
    app_secret: Secret | None = setting(
        None,
        "The secret of the app at Meta, which signs everything that Meta sends. Needed with listen; write it as ${NAME}.",
    )
    verify_token: Secret | None = setting(
        None,
        "A secret of your choice, which Meta repeats when the URL is registered. Needed with listen; write it as ${NAME}.",
    )


class CloudApiConfig(PlatformConfig, reload="shard"):
    """Devices that send through the Cloud API; each has settings {"phone_number_id": …, "token": …}."""

    base: PlatformUrl = base_option("https://graph.facebook.com", "the Graph API")
    version: Annotated[str, Text(matching(VERSION, "is not a version of the Graph API; write one such as v23.0"))] = (
        setting(
            "v23.0",
            "Version of the Graph API; Meta serves each for about two years. A device's own setting `version` comes first.",
        )
    )
    webhook: CloudWebhookConfig = section(
        CloudWebhookConfig, "Where Meta reports what became of messages, and what recipients answer."
    )


PHONE_NUMBER_ID: Final = "phone_number_id"
"""The setting that names a device's number at Meta."""

CLOUD_API: Final = TransportDefinition(
    name="cloud_api",
    summary="Devices that send through the official WhatsApp Business Cloud API.",
    implementation="shardd.transports.platforms.cloud_api:CloudApiTransport",
    config=CloudApiConfig,
    kinds=tuple(kind for kind in KINDS if kind != "revoke"),
    device_settings=(
        DeviceSetting(PHONE_NUMBER_ID, "the id of the phone number at Meta, digits only", r"[0-9]{1,32}"),
        DeviceSetting("token", "the access token of the system user at Meta", secret=True),
        DeviceSetting("version", "a version of the Graph API, such as v23.0", VERSION, needed=False),
        BASE,
    ),
)
