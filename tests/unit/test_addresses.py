from ipaddress import ip_address

import pytest

from shardd.addresses import AllowedHosts, read_address, read_allowed_host, why_not_public


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "1.1.1.1",
        "100.63.255.255",
        "172.32.0.1",
        "2001:4860:4860::8888",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_an_address_of_the_internet_is_one(address: str) -> None:
    assert why_not_public(ip_address(address)) is None


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "reserved"),
        ("10.0.0.1", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.127.255.255", "carrier-grade NAT"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("169.254.169.254", "link-local"),  # the clouds' metadata
        ("172.31.255.255", "private"),
        ("192.0.0.9", "reserved"),  # the nearest NAT (PCP): global for the standard library
        ("192.0.0.192", "reserved"),  # a cloud's metadata
        ("192.88.99.1", "reserved"),
        ("192.168.1.1", "private"),
        ("198.18.0.1", "reserved"),
        ("203.0.113.1", "reserved"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::ffff:0:127.0.0.1", "reserved"),  # IPv4-translated
        ("::127.0.0.1", "reserved"),  # IPv4-compatible
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::7f00:1", "reserved"),
        ("100::1", "reserved"),
        ("2001:0:7f00:1::", "reserved"),  # Teredo
        ("2001:20::1", "reserved"),
        ("2001:db8::1", "reserved"),
        ("2002:7f00:1::", "reserved"),  # 6to4
        ("3fff::1", "reserved"),
        ("4000::1", "reserved"),
        ("5f00::1", "reserved"),
        ("fc00::1", "private"),
        ("fd00:ec2::254", "private"),  # a cloud's metadata
        ("fe80::1", "link-local"),
        ("fec0::1", "private"),
        ("ff02::1", "multicast"),
        ("ff0e::1", "multicast"),
    ],
)
def test_an_address_that_is_not_of_the_internet_is_named(address: str, what: str) -> None:
    assert what in (why_not_public(ip_address(address)) or "")


@pytest.mark.parametrize(
    "text", ["fe80::1%eth0", "::1%lo", "127.1", "0x7f.0.0.1", "0177.0.0.1", "2130706433", "localhost", ""]
)
def test_only_the_usual_spelling_is_an_address(text: str) -> None:
    assert read_address(text) is None


@pytest.mark.parametrize(
    ("entries", "host", "port", "address"),
    [
        (["media.internal"], "media.internal", 80, "10.0.0.1"),
        (["Media.Internal"], "MEDIA.internal.", 80, "10.0.0.1"),
        (["media.internal:8080"], "media.internal", 8080, "10.0.0.1"),
        (["10.0.0.1"], "10.0.0.1", 80, "10.0.0.1"),
        (["10.0.0.0/8"], "whatever.example", 80, "10.1.2.3"),
        (["10.0.0.0/8"], "[::ffff:10.1.2.3]", 80, "::ffff:10.1.2.3"),
        (["[::1]:9000"], "[::1]", 9000, "::1"),
        (["::1"], "localhost", 9000, "::1"),
        (["a.internal", "fd00::/8"], "b.internal", 443, "fd00::5"),
    ],
)
def test_what_the_operator_allows(entries: list[str], host: str, port: int, address: str) -> None:
    assert AllowedHosts(entries).allow(host, port, ip_address(address))


@pytest.mark.parametrize(
    ("entries", "host", "port", "address"),
    [
        ([], "media.internal", 80, "10.0.0.1"),
        (["media.internal"], "x.media.internal", 80, "10.0.0.1"),
        (["media.internal"], "10.0.0.1", 80, "10.0.0.1"),
        (["media.internal:8080"], "media.internal", 8081, "10.0.0.1"),
        (["127.0.0.1:9000"], "127.0.0.1", 6379, "127.0.0.1"),
        (["10.0.0.1"], "10.0.0.2", 80, "10.0.0.2"),
        (["0.0.0.0/0"], "localhost", 80, "::1"),
    ],
)
def test_nothing_else(entries: list[str], host: str, port: int, address: str) -> None:
    assert not AllowedHosts(entries).allow(host, port, ip_address(address))


@pytest.mark.parametrize(
    "entry",
    [
        "",
        " ",
        "http://host",
        "host/path",
        "*.internal",
        "host:0",
        "host:99999",
        "10.0.0.1/8",
        "127.1",
        "0x7f.1",
        "2130706433",
        "fe80::1%eth0",
        "[::1",
        "a b",
        "user@host",
        "a..b",
    ],
)
def test_an_entry_that_allows_nothing_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has) an? .*; write |^is n|^has a port"):
        read_allowed_host(entry)
