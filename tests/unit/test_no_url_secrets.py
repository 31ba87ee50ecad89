"""Texts that contain a URL: none repeats what may be a secret."""

import json

import pytest

from shardd.config import parse_config
from shardd.config.transports.device_settings import check_device
from shardd.errors import ConfigError, DeviceSettingsError
from shardd.proxies import parse_proxy
from shardd.transports.platforms.answers import Context
from shardd.transports.whatsapp.messages.failures import SendContext, send_error, upload_error

GO = 'failed to upload: Post "https://mmg.whatsapp.net/mms/image/x?auth=S3CRET&token=S3CRET": dial tcp: i/o timeout'


@pytest.mark.parametrize("text", [GO, f"{GO} status code 400"])
def test_an_upload_that_fails_shows_no_token(text: str) -> None:
    error = upload_error(text)
    assert "https://mmg.whatsapp.net/mms/image/x" in str(error)
    assert "S3CRET" not in str(error)
    assert "S3CRET" not in str(send_error(text, SendContext("+628", 0.0)))


@pytest.mark.parametrize(
    "url",
    [
        "http://user:S3CRET/x@proxy:8080",
        "http://user:S3CRET#x@proxy:8080",
        "socks4://user:S3CRET@proxy",
        "S3CRET:S3CRET@proxy:8080",
        "http://user:S3CRET@",
        "http://user:S3CRET@proxy:8080/S3CRET?S3CRET",
        "http://user:S3CRET@[proxy",
    ],
)
def test_a_proxy_that_cannot_be_used_shows_no_password(url: str) -> None:
    with pytest.raises(ValueError, match="socks5") as caught:
        parse_proxy(url)
    assert "s3cret" not in str(caught.value).lower()
    with pytest.raises(DeviceSettingsError, match="proxy") as refused:
        check_device("wablas", {"token": "t0ken123"}, url)
    assert "s3cret" not in str(refused.value).lower()


def test_a_base_that_cannot_be_used_shows_no_password() -> None:
    with pytest.raises(DeviceSettingsError, match=r"settings\.base: https://api.example/x is more than") as refused:
        check_device("wablas", {"token": "t0ken123", "base": "https://user:S3CRET@api.example/x?S3CRET"}, None)
    assert "S3CRET" not in str(refused.value)


@pytest.mark.parametrize(
    "option",
    [
        "transports: {wablas: {base: 'https://user:S3CRET@api.example/x?S3CRET'}}",
        "transports: {whatsapp: {media_hosts: 'http://user:S3CRET@intranet/?S3CRET'}}",
        "transports: {whatsapp: {proxy: 'ftp://user:S3CRET@proxy'}}",
    ],
)
def test_a_config_that_cannot_be_used_shows_no_password(option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(option, "/etc/x.yaml", {"HOME": "/home/of"})
    assert "S3CRET" not in str(caught.value)


def test_what_a_platform_says_shows_no_signature_of_our_media() -> None:
    said = json.dumps({"error": "cannot fetch https://cdn.example/a.png?X-Amz-Signature=S3CRET"}).replace("/", "\\/")
    shown = Context("wablas", "", ()).tidy(said)
    assert "https://cdn.example/a.png" in shown
    assert "S3CRET" not in shown
