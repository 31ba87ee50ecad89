"""The sections of the HTTP platforms: where a token may go, and that no secret is shown."""

from __future__ import annotations

import pytest

from shardd.config import diff_config, parse_config
from shardd.errors import ConfigError

HOME = {"HOME": "/home/x"}


@pytest.mark.parametrize(
    "base",
    [
        "https://jogja.wablas.com",
        "https://x.example:8443/v1/",
        "http://127.0.0.1:81",
        "http://localhost",
        "http://[::1]:9",
    ],
)
def test_a_platform_is_reached_by_https_or_on_this_host(base: str) -> None:
    config = parse_config(f"transports: {{wablas: {{base: '{base}'}}}}", "x", HOME)
    assert config.transports.wablas.base == base.rstrip("/")


@pytest.mark.parametrize(
    ("base", "complaint"),
    [
        ("http://api.example.com", "would send the token unencrypted; write https://api.example.com"),
        ("http://10.0.0.1", "would send the token"),
        ("ftp://api.example.com", "is not the URL of an HTTP platform"),
        ("api.example.com", "has no scheme; write https:// in front of it"),
        ("api", "is not the URL of an HTTP platform"),
        ("https://user:word@api.example.com", "is more than a host and a path"),
        ("https://api.example.com?key=1", "is more than a host and a path"),
        ("https://api.example.com:99999", "port from 1 to 65535"),
    ],
)
def test_no_other_place_is_given_a_token(base: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_config(f"transports: {{wablas: {{base: '{base}'}}}}", "x", HOME)


@pytest.mark.parametrize(("text", "rate"), [("0", 0.0), ("0.5", 0.5), ("80", 80.0)])
def test_a_rate_is_how_many_in_one_second(text: str, rate: float) -> None:
    assert parse_config(f"transports: {{wablas: {{rate: {text}}}}}", "x", HOME).transports.wablas.rate == rate


@pytest.mark.parametrize("transport", ["wablas", "whacenter"])
def test_a_webhook_with_secret_paths_needs_the_secret_that_they_are_made_of(transport: str) -> None:
    given = f"transports: {{{transport}: {{webhook: {{listen: '127.0.0.1:8082', secret: '${{PATHS}}'}}}}}}"
    config = parse_config(given, "x", HOME | {"PATHS": "a-long-secret"})
    assert getattr(config.transports, transport).webhook.secret == "a-long-secret"
    assert "a-long-secret" not in str(config.transports.as_plain())
    with pytest.raises(ConfigError, match=r"webhook.listen: 127.0.0.1:8082 has no secret beside it; write secret: "):
        parse_config(f"transports: {{{transport}: {{webhook: {{listen: '127.0.0.1:8082'}}}}}}", "x", HOME)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("rate: fast", "wablas.rate: fast is not a number"),
        ("rate: -1", "wablas.rate: -1 is too small"),
        ("rate: 99999", "wablas.rate: 99999 is too large"),
    ],
)
def test_a_rate_that_is_none_is_reported(option: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_config(f"transports: {{wablas: {{{option}}}}}", "x", HOME)


def test_a_webhook_that_listens_needs_its_secrets_and_they_are_not_shown() -> None:
    text = (
        "transports: {cloud_api: {webhook: {listen: '127.0.0.1:8081', app_secret: '${APP}', verify_token: '${WORD}'}}}"
    )
    secrets = {"APP": "0123456789abcdef", "WORD": "open-sesame"}
    config = parse_config(text, "x", HOME | secrets)
    assert config.transports.cloud_api.webhook.app_secret == secrets["APP"]
    (change,) = [c for c in diff_config(parse_config("", "x", HOME), config) if c.field.endswith("app_secret")]
    for shown in (repr(config), str(change), str(config.transports.as_plain())):
        assert not [word for word in secrets.values() if word in shown]
    with pytest.raises(
        ConfigError, match=r"webhook.listen: 127.0.0.1:8081 has no app_secret beside it; write app_secret: "
    ):
        parse_config("transports: {cloud_api: {webhook: {listen: '127.0.0.1:8081'}}}", "x", HOME)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("listen: somewhere:80", "does not begin with an IP address"),
        ("listen: '127.0.0.1'", "is not an address with a port"),
        ("path: cloud", "is not the path of a URL"),
        ("app_secret: 'short'", "app_secret: is not a secret of 8"),
    ],
)
def test_what_is_wrong_with_a_webhook_is_reported(option: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_config(f"transports: {{cloud_api: {{webhook: {{{option}}}}}}}", "x", HOME)
