"""Durations, sizes, numbers and the other kinds of values: accepted values, and errors for all others."""

from __future__ import annotations

import sys
import zoneinfo
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shardd.config.values import Bytes, Choice, Flag, RefusedError, Seconds, Whole, format_duration, parse_duration
from shardd.config.values.network import Dsn, MetricsAddress, ProxyUrl
from shardd.config.values.numbers import Share
from shardd.config.values.places import Region, TimeZone
from shardd.config.values.words import FilePath, NodeName, node_name_from

BASE = Path("/etc/shardd")


def read(kind: Any, text: str) -> Any:
    """What a field makes of a text; `kind`: its type, or its reader."""
    annotated = kind if hasattr(kind, "__metadata__") else Annotated[Any, kind]
    try:
        return TypeAdapter(annotated).validate_python(text, context={"base": BASE})
    except ValidationError as error:
        (details,) = error.errors()
        raise details["ctx"]["error"] from None


def refusal(kind: Any, text: str) -> str:
    with pytest.raises(RefusedError) as caught:
        read(kind, text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d", 86400),
        ("1.5h", 5400),
        ("0.1s", 0.1),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert read(Seconds(), text) == seconds


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("30", "write 30s for seconds"),
        ("5min", "write 5m"),
        ("30 s", "write 30s"),
        ("2 Hours", "write 2h"),
        ("1 hour and 30 min", "write 1h30m"),
        ("2 weeks", "write 14d"),
        ("0,5 h", "write 0.5h"),
        ("2 months", "is not a duration"),
        ("99999999999", "has no unit; write a value from 0 to 366d"),
        ("2 hours", "write 2h"),
        ("30m1h", "write 1h30m"),
        ("1s1s", "has a unit twice; write a value from"),
        ("-5s", "is negative"),
        ("", "is not a duration"),
        ("1e3s", "is not a duration"),
        ("12:30", "is not a duration"),
        ("9999d", "is too large; write a value from 0 to 366d"),
    ],
)
def test_refused_durations_say_how_to_write_them(text: str, fix: str) -> None:
    assert fix in refusal(Seconds(), text)


def test_bounds_of_durations_are_inclusive_and_named() -> None:
    reader = Seconds("100ms", "5m")
    assert read(reader, "100ms") == 0.1
    assert read(reader, "5m") == 300.0
    assert refusal(reader, "99ms") == "is too small; write a value from 100ms to 5m"


@given(st.integers(min_value=0, max_value=366 * 86_400_000))
def test_every_duration_is_written_so_that_it_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("17B", 17), ("512KiB", 524288), ("16MiB", 16 * 2**20), ("1.5GiB", 3 * 2**29)]
)
def test_sizes(text: str, size: int) -> None:
    assert read(Bytes(), text) == size


@pytest.mark.parametrize(
    ("text", "fix"),
    [("512", "write 512MiB"), ("512MB", "write 512MiB"), ("1g", "write 1GiB"), ("much", "is not a size")],
)
def test_refused_sizes_say_how_to_write_them(text: str, fix: str) -> None:
    assert fix in refusal(Bytes(), text)


@given(st.integers(min_value=0, max_value=2**40))
def test_every_size_is_written_so_that_it_reads_back(size: int) -> None:
    assert Bytes().read(Bytes().show(size)) == size


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("010", "octal; write 10"),
        ("0o10", "write 8"),
        ("0x1F", "write 31"),
        ("1e3", "in plain digits; write a value from 1 to 256"),
        ("1e2", "write 100"),
        ("1_00", "write 100"),
        ("0,200", "write 200"),
        ("1,5", "write a value from 1 to 256"),
        ("1.000", "write a value from 1 to 256"),
        ("8.0", "write 8"),
        ("8.5", "write a value from 1 to 256"),
        ("12:30", "write a value from 1 to 256"),
        (".inf", "write a value from 1 to 256"),
        ("eight", "write a value from 1 to 256"),
        ("٨", "write a value from 1 to 256"),
        ("9" * 5000, "write a value from 1 to 256"),
        ("0", "is too small; write a value from 1 to 256"),
        ("-3", "is too small; write a value from 1 to 256"),
        ("257", "is too large; write a value from 1 to 256"),
    ],
)
def test_only_plain_digits_are_whole_numbers(text: str, fix: str) -> None:
    assert fix in refusal(Whole(1, 256), text)


def test_fractions() -> None:
    assert read(Share, "0.25") == 0.25
    assert read(Share, "1") == 1.0
    assert refusal(Share, "5%") == "is a percentage; write 0.05"
    assert "from 0 to 1" in refusal(Share, "1.5")
    assert "is not a number" in refusal(Share, ".nan")


def test_flags_are_true_or_false() -> None:
    assert read(Flag(), "true") is True
    assert read(Flag(), "False") is False
    for text, fix in (
        ("yes", "write true"),
        ("off", "write false"),
        ("1", "write true"),
        ("perhaps", "true or false"),
    ):
        assert refusal(Flag(), text).endswith(fix)


def test_choices_suggest_the_nearest_word() -> None:
    levels = Choice(("debug", "info", "warning", "error"))
    assert read(levels, "info") == "info"
    assert refusal(levels, "WARN") == "is not one of debug, info, warning, error; write warning"
    assert refusal(levels, "loud").endswith("write one of these")


def test_node_names() -> None:
    assert read(NodeName, " host-a.example\n") == "host-a.example"
    for text in ("", "Host", "a" * 64, "host_a", "-a", "höst"):
        assert "is not a node name" in refusal(NodeName, text)


@given(st.text())
def test_every_host_name_has_a_node_name(host_name: str) -> None:
    assert read(NodeName, node_name_from(host_name))


def test_paths_start_at_the_folder_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    assert read(FilePath(), "../state") == Path("/etc/state")
    assert read(FilePath(), "/var/lib/./shardd/") == Path("/var/lib/shardd")
    assert read(FilePath(), "~/shardd") == Path("/home/x/shardd")
    assert "home folder" in refusal(FilePath(), "~nobody-of-this-name/x")
    assert "is not a path" in refusal(FilePath(), " ")
    assert read(FilePath(), " /var/lib/x ") == Path("/var/lib/x")
    assert "is a URL" in refusal(FilePath(), "https://files.example/x")
    for text in ("yes", "False", "on"):
        assert (
            refusal(FilePath(), text) == "is a switch, but this option is not one; write a path such as /var/lib/shardd"
        )


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:p%40@h:5433/db?sslmode=require",
        "postgres:///db",
        "host=/run/postgresql dbname=x",
        "service=x",
        "postgresql://a:1,b:2/db",
    ],
)
def test_connection_strings(text: str) -> None:
    assert read(Dsn, text) == text


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("", "is empty"),
        ("postgresql+asyncpg://u:geheim@h/db", "write postgresql://"),
        ("mysql://u:geheim@h/db", "write postgresql://"),
        ("postgresql://u:ge@heim@h/db", "%40 for @"),
        ("postgresql://u:ge/heim@h/db", "%2F for /"),
        ("postgresql://u:p@ge/heim@h/db", "%2F for /"),
        ("postgresql://u:12/heim@h/db", "%2F for /"),
        ("postgresql://u:ge%heim@h/db", "%25 for %"),
        ("postgresql://u:geheim@h:99999/db", "1 to 65535"),
        ("host=h port=x password=geheim", "1 to 65535"),
        ("host=h password=ge heim", "single quotes"),
        ("host=h pasword=geheim", "postgresql://user:password@host"),
    ],
)
def test_refused_connection_strings_never_show_a_password(text: str, fix: str) -> None:
    said = refusal(Dsn, text)
    assert fix in said
    assert "heim" not in said


def test_proxies_never_show_a_password() -> None:
    for text in ("http://h:8080", "socks5://u:p%40@[::1]:1080", "socks5h://h"):
        assert read(ProxyUrl, text) == text
    for text, fix in (
        ("h:8080", "write http://user:password@host:port"),
        ("https://u:geheim@h:1", "http or socks5"),
        ("http://u:ge/heim@h:1", "%2F for /"),
        ("http://u:geheim@h:99999", "1 to 65535"),
        ("http://:80", "http or socks5"),
        ("http://h:80/x", "host and a port"),
        ("", "http or socks5"),
    ):
        said = refusal(ProxyUrl, text)
        assert fix in said
        assert "heim" not in said


def test_an_address_to_listen_on_is_one_of_this_host_and_a_port() -> None:
    for text in ("127.0.0.1:9464", "[::1]:9464", "0.0.0.0:9464", "[::]:9464", "10.0.0.7:1"):
        assert read(MetricsAddress, text) == text
    for text, fix in (
        ("localhost:80", "write 127.0.0.1:80"),
        ("example.com:80", "write 127.0.0.1:80"),
        ("::1", 'write "[::1]:9464"'),
        ("fe80::1:80", 'write "[fe80::1]:80"'),
        ("8081", "is not an address with a port; write 127.0.0.1:8081"),
        ("0.0.0.0", "write 0.0.0.0:9464"),
        ("*:80", "write 0.0.0.0:80"),
        ("http://10.0.0.7:80/metrics", "write 10.0.0.7:80"),
        ("127.0.0.1:0", "write 127.0.0.1:9464"),
        (":80", "write 127.0.0.1:80"),
    ):
        assert fix in refusal(MetricsAddress, text)


def test_time_zones() -> None:
    assert read(TimeZone, "Asia/Jakarta") == "Asia/Jakarta"
    for text, fix in (
        ("jakarta", "write Asia/Jakarta"),
        ("Asia/jakrta", "write Asia/Jakarta"),
        ("Germany", "write Europe/Berlin or Europe/Busingen"),
        ("de", "write Europe/Berlin or Europe/Busingen"),
        ("wib", "write Asia/Jakarta or Asia/Pontianak"),
        ("UTC+1", "write the zone of a large city there, such as Asia/Jakarta, or Etc/GMT-1 for this offset all year"),
        ("gmt-3", "or Etc/GMT+3 for this offset all year"),
        ("+05:30", "write the zone of a large city there, such as Asia/Jakarta"),
        ("yes", "write the zone of a large city, such as Asia/Jakarta"),
    ):
        assert refusal(TimeZone, text).endswith(fix)
    for text in ("", "Europe", "../../etc/passwd", "/etc/passwd", "WIB/x", "a\x00b"):
        assert "is not a known time zone" in refusal(TimeZone, text)


def test_utc_needs_no_time_zone_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # As if the package were not installed; its modules stay loaded once a test has used them.
    for name in [name for name in sys.modules if name.partition(".")[0] == "tzdata"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath([str(tmp_path)])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        assert read(TimeZone, "UTC") == "UTC"
        assert "install tzdata" in refusal(TimeZone, "Asia/Jakarta")
    finally:
        zoneinfo.reset_tzpath()


def test_regions() -> None:
    assert read(Region, "NO") == "NO"
    for text, fix in (
        ("UK", "GB"),
        ("id", "ID"),
        ("Indonesia", "ID"),
        ("+49", "DE"),
        ("no", "NO for Norway, or null"),
        ("off", "two capital letters such as ID, DE or US, or null"),
        ("Atlantis", "two capital letters"),
    ):
        assert f"write {fix}" in refusal(Region, text)
