from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shardd.environment_file import UnreadableEnvironmentError, parse_environment


@pytest.mark.parametrize(
    ("content", "variables"),
    [
        # The cases of systemd's own src/test/test-env-file.c (commit 018333725f9d), with the results that it asserts.
        (
            b"a=a\nb=b\\\nc\nd=d\\\ne\\\nf\ng=g\\ \nh=h\ni=i\\",
            {"a": "a", "b": "bc", "d": "def", "g": "g ", "h": "h", "i": "i"},
        ),
        (b"a=a\\\n", {"a": "a"}),
        (b'# made\n\nA="b c"\n\n# old names\n\nA_0=b\nA_1=c', {"A": "b c", "A_0": "b", "A_1": "c"}),
        (b"a=\nb=", {"a": "", "b": ""}),
        # What systemd.exec(5) says.
        (b"A= b  c \t\r\n", {"A": "b  c"}),
        (b"A=b'c'\"d\"", {"A": "b'c'\"d\""}),
        (b'A=\'b\\\n"$C\' "d\\$\\x" e', {"A": 'b\\\n"$Cd$\\xe'}),
        (b"A=$B${C} `d` %e", {"A": "$B${C} `d` %e"}),
        (b"  A = b", {"A": "b"}),
        (b"A=b # c", {"A": "b # c"}),
        (b"A=b\nA=c", {"A": "c"}),
        (b"; A=b\n#\\\\\nB=c", {"B": "c"}),
        (b"A=b\\\r\nc", {"A": "b"}),
    ],
)
def test_values_are_those_of_systemd(content: bytes, variables: dict[str, str]) -> None:
    assert parse_environment(content).variables == variables


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        (b"A=b\nexport PASSWORD=secret", "2 begins with `export`"),
        (b"A=b\n\nsecret", "3 is not NAME=value"),
        (b"se-cret=secret", "1 does not begin with a name"),
        (b"=secret=secret", "1 does not begin with a name"),
        (b"A=b\nB= 'secret\nC=d\n", "2 opens a quote that is never closed"),
        (b'A="secret\\', "1 opens a quote that is never closed"),
        (b"\xef\xbb\xbfA=secret", "1 begins with a byte order mark"),
        (b'#A="b \\\n#--c \\\nD=secret', "3 follows a comment that ends in a backslash"),
        (b"# old \\\nA=secret\nB=c", "2 follows a comment that ends in a backslash"),
    ],
)
def test_a_line_that_systemd_takes_otherwise_than_meant_is_reported_without_its_content(
    content: bytes, flaw: str
) -> None:
    (found,) = parse_environment(content).flaws
    assert f"{found.line} {found.text}".startswith(flaw)
    assert "secret" not in found.text


@pytest.mark.parametrize("content", [b"A=b\nB=\xff\n", b"A=\xed\xa0\x80", b"A=\xef\xbf\xbe", b"A=b\n\0"])
def test_what_systemd_refuses_as_a_whole_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableEnvironmentError, match="systemd ignores the whole file"):
        parse_environment(content)


def test_a_comment_before_an_empty_line_or_a_comment_joins_nothing() -> None:
    read = parse_environment(b"# a\\\n\nA=b\n;c\\\n # d\nB=e\n# f\\")
    assert read.variables == {"A": "b", "B": "e"}
    assert read.flaws == []


_PIECES = st.sampled_from(
    [
        *"a= \t\n\r'\"\\$`#;%",
        "ID=",
        "ID = ",
        "\nID=",
        "\n# ",
        "\\\n",
        "\\'",
        '\\"',
        "\\\\",
        "\\$",
        "é",
        "\x01",
        "\ufeff",
        "\ufffe",
    ]
)


@pytest.mark.skipif(
    shutil.which("systemd-tmpfiles") is None, reason="needs systemd's own reader, in Debian's package systemd"
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example("ID='a'\\\n b \\\n  \nID")
@example("ID=\"a\\\n\\b\\\"c\\$\\`\" 'd'e ' ")
@example("ID=\\\n 'a'\\")
@example(" ID\t=\r\nID=a\rb")
@given(st.lists(_PIECES, max_size=30).map("".join))
def test_every_text_is_read_as_systemd_reads_it(tmp_path: Path, text: str) -> None:
    """systemd reads os-release by the same function, and systemd-tmpfiles writes its ID: no running systemd is needed."""
    ours: str | None
    try:
        read = parse_environment(text.encode())
    except UnreadableEnvironmentError:
        ours = None
    else:
        if any("follows a comment" in flaw.text for flaw in read.flaws):
            return  # depends on the version
        ours = read.variables.get("ID", "")
    assert ours == _read_by_systemd(tmp_path, text)


def _read_by_systemd(root: Path, os_release: str) -> str | None:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/os-release").write_text(os_release, newline="")
    rules, out = root / "rules.conf", root / "out"
    rules.write_text("f+ /out - - - - x%o\n")
    out.unlink(missing_ok=True)
    done = subprocess.run(
        ["systemd-tmpfiles", f"--root={root}", "--create", rules], capture_output=True, timeout=30, check=False
    )
    if done.returncode != 0:
        return None
    with out.open(newline="", encoding="utf-8") as written:
        return written.read().removeprefix("x")
