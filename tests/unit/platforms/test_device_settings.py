"""Settings of HTTP platform devices: every error names the setting and the fix, and shows no secret."""

from __future__ import annotations

from typing import Any

import pytest

from shardd.config.transports.device_settings import account_of, check_device, masked_settings, read_settings
from shardd.errors import DeviceSettingsError

SECRET = "very-secret-word"
CLOUD = {"phone_number_id": "106540352242922", "token": SECRET}


@pytest.mark.parametrize(
    ("transport", "settings"),
    [
        ("wablas", {"token": SECRET}),
        ("wablas", {"token": "${TOKEN}", "base": "https://jogja.wablas.com"}),
        ("whacenter", {"device_id": SECRET}),
        ("cloud_api", CLOUD | {"version": "v22.0"}),
        ("sandbox", {"whatever": 1}),
        ("whatsapp", {}),
    ],
)
def test_good_settings(transport: str, settings: dict[str, Any]) -> None:
    check_device(transport, settings, None)


@pytest.mark.parametrize(
    ("transport", "settings", "complaint"),
    [
        ("wablas", {}, "settings.token: is missing, but transport 'wablas' needs it; write the API token"),
        ("wablas", {"token": ""}, "settings.token: is missing"),
        ("whacenter", {"device": SECRET}, "settings.device: is not known to transport 'whacenter'; write device_id"),
        ("cloud_api", {"token": SECRET}, "settings.phone_number_id: is missing"),
        ("cloud_api", CLOUD | {"phone_number_id": "+62812"}, "'+62812' has another shape; write the id of the phone"),
        ("cloud_api", CLOUD | {"phone_number_id": 12}, "settings.phone_number_id: 12 is not text; put the id"),
        ("cloud_api", CLOUD | {"version": "23"}, "settings.version: '23' has another shape"),
        ("wablas", {"token": SECRET + " x"}, "settings.token: the value (not shown) has another shape"),
        ("wablas", {"token": SECRET + "\nx"}, "settings.token: the value (not shown) has another shape"),
        ("wablas", {"token": [SECRET]}, "settings.token: the value (not shown) is not text"),
        (
            "wablas",
            {"token": SECRET, "base": "http://a.example"},
            "settings.base: http://a.example would send the token",
        ),
        (
            "wablas",
            {"token": SECRET, "colour": "red"},
            "settings.colour: is not known to transport 'wablas'; write token",
        ),
    ],
)
def test_bad_settings(transport: str, settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DeviceSettingsError) as caught:
        check_device(transport, settings, None)
    assert complaint in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_proxy_that_cannot_be_used_is_told_without_its_password() -> None:
    check_device("wablas", {"token": SECRET}, "http://user:geheim@proxy.example:3128")
    with pytest.raises(DeviceSettingsError, match="is a socks5 proxy") as caught:
        check_device("wablas", {"token": SECRET}, "socks5://user:geheim@proxy.example:1080")
    assert "geheim" not in str(caught.value)
    check_device("whatsapp", {}, "socks5://user:geheim@proxy.example:1080")


def test_a_reference_is_replaced_from_the_environment() -> None:
    settings = {"token": "${WABLAS_TOKEN}", "base": "https://${WHERE:-my}.wablas.com/"}
    assert read_settings("wablas", settings, {"WABLAS_TOKEN": SECRET}) == {
        "token": SECRET,
        "base": "https://my.wablas.com",
    }


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({}, "settings.token: needs the variable WABLAS_TOKEN, which is not set"),
        ({"WABLAS_TOKEN": ""}, "settings.token: needs the variable WABLAS_TOKEN, which is empty"),
        ({"WABLAS_TOKEN": SECRET + " "}, "settings.token: the value (not shown) has another shape"),
    ],
)
def test_a_reference_that_leads_nowhere_is_told(environ: dict[str, str], complaint: str) -> None:
    with pytest.raises(DeviceSettingsError) as caught:
        read_settings("wablas", {"token": "${WABLAS_TOKEN}"}, environ)
    assert complaint in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("transport", "settings", "shown"),
    [
        ("wablas", {"token": SECRET, "base": "https://a"}, {"token": "***", "base": "https://a"}),
        ("whacenter", {"device_id": SECRET}, {"device_id": "***"}),
        (
            "sandbox",
            {"device_id": "1", "list": [{"api_key": SECRET}]},
            {"device_id": "1", "list": [{"api_key": "***"}]},
        ),
        ("cloud_api", {"token": "${CLOUD_TOKEN}"}, {"token": "${CLOUD_TOKEN}"}),
        ("cloud_api", {"token": "${A:-secret}"}, {"token": "***"}),
    ],
)
def test_secrets_are_masked_and_references_are_not(
    transport: str, settings: dict[str, Any], shown: dict[str, Any]
) -> None:
    assert masked_settings(transport, settings) == shown


def test_devices_with_one_key_at_one_place_are_one_account() -> None:
    one = account_of("cloud_api", CLOUD)
    assert one == account_of("cloud_api", CLOUD | {"phone_number_id": "2"})
    others = [
        account_of("wablas", {"token": SECRET}),
        account_of("cloud_api", CLOUD | {"token": SECRET + "2"}),
        account_of("cloud_api", CLOUD | {"base": "https://other.example"}),
    ]
    assert len({one, *others}) == 4
    assert not [name for name in (one, *others) if name is None or SECRET in name]
    assert account_of("wablas", {"token": SECRET, "base": "https://a/"}) == account_of(
        "wablas", {"token": SECRET, "base": "https://a"}
    )


@pytest.mark.parametrize(
    ("transport", "settings"), [("whatsapp", {"token": "x"}), ("sandbox", {}), ("wablas", {}), ("wablas", [])]
)
def test_what_has_no_key_has_no_account(transport: str, settings: Any) -> None:
    assert account_of(transport, settings) is None
