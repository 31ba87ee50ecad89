import pytest

from shardd.config import parse_config
from shardd.errors import ConfigError

HOME = {"HOME": "/home/of"}


def media_hosts(text: str) -> object:
    config = parse_config(f"transports: {{whatsapp: {{media_hosts: {text}}}}}", "/etc/x.yaml", HOME)
    return config.transports.as_plain()["whatsapp"]["media_hosts"]


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("null", None),
        ("media.internal", ["media.internal"]),
        (
            '"media.internal:9000, 10.20.0.0/16, [::1]:80, fd00::/8"',
            ["media.internal:9000", "10.20.0.0/16", "[::1]:80", "fd00::/8"],
        ),
        ("[media.internal, 127.0.0.1]", ["media.internal", "127.0.0.1"]),
    ],
)
def test_hosts_outside_the_internet_are_named(text: str, hosts: list[str] | None) -> None:
    found = media_hosts(text)
    assert (found if found is None else list(found)) == hosts  # type: ignore[call-overload]


def test_a_password_in_a_list_of_hosts_is_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"has a part .*10\.0\.0\.1.* that is neither") as refused:
        media_hosts('["user:geheim@10.0.0.1"]')
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("http://media.internal/", "a part http://media.internal/ that is a URL; write media.internal$"),
        ('["http://media.internal:9000/x"]', "that is a URL; write media.internal:9000$"),
        ("media.internal/files", "that is a host with a path; write media.internal$"),
        (
            '"a.internal, 10.0.0.1/8"',
            "a part 10.0.0.1/8 that is an address in a network; write 10.0.0.0/8, or 10.0.0.1$",
        ),
        ('"*.internal"', r"a part \*.internal that is neither a host name nor"),
        ("127.1", r"a part 127.1 that is neither a host name nor"),
        ('"a.internal,"', "has an empty part"),
        ('"a.internal:0"', r"that has a port that is not from 1 to 65535"),
    ],
)
def test_what_names_no_host_is_reported(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"transports.whatsapp.media_hosts: .*{complaint}"):
        media_hosts(text)
