import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.transports.whatsapp.media.file_names import MAX_BYTES, disposition_name, path_name, safe_name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("price list.pdf", "price list.pdf"),
        ("Harga ☕.csv", "Harga ☕.csv"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..\\..\\windows\\x.dll", "_.._windows_x.dll"),
        ("Invoice 3/2026.pdf", "Invoice 3_2026.pdf"),
        ("..", None),
        (" . ", None),
        ("", None),
        ("\u200d", None),
        ("a\r\nb\t c\0.pdf", "ab c.pdf"),
        ("a\x1b[2Jb.pdf", "a[2Jb.pdf"),
        ("\u202efdp.exe", "fdp.exe"),  # shown as exe.pdf
        ("a\u2066b\u200fc\u061cd.pdf", "abcd.pdf"),
        ("👩‍🔧.png", "👩‍🔧.png"),
        (".htaccess", "htaccess"),
        ("x" * 300 + ".pdf", "x" * (MAX_BYTES - 4) + ".pdf"),
        ("☕" * 100, "☕" * (MAX_BYTES // 3)),
        ("x." + "y" * 300, "x." + "y" * (MAX_BYTES - 2)),
        ("a\udce4b", "ab"),
    ],
)
def test_a_name_is_nothing_but_a_name(text: str, name: str | None) -> None:
    assert safe_name(text) == name


@given(st.text(max_size=1000))
def test_no_name_holds_what_a_name_must_not(text: str) -> None:
    name = safe_name(text)
    if name is not None:
        assert 0 < len(name.encode()) <= MAX_BYTES
        assert not set(name) & set("/\\\0\r\n")
        assert not any(
            unicodedata.bidirectional(sign) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
            for sign in name
        )
        assert not name.startswith(".")
        assert safe_name(name) == name


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="a b.pdf"', "a b.pdf"),
        ("attachment; filename=a.pdf", "a.pdf"),
        ("attachment; filename=a b.pdf", "a b.pdf"),
        ("filename=bare.pdf", "bare.pdf"),
        ("attachment; filename=\"x.pdf\"; filename*=UTF-8''%e2%82%ac%20rates.pdf", "€ rates.pdf"),
        ("attachment; filename*=UTF-8''%e2%82%ac.pdf; filename=\"x.pdf\"", "€.pdf"),
        ("attachment; filename*=iso-8859-1'en'%A3.pdf", "£.pdf"),
        ('inline; FILENAME="a;b.pdf"', "a;b.pdf"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\Temp\\\\a.pdf"', "a.pdf"),
        ("attachment; filename*=UTF-8''..%2F..%2Fa%00b%0A.pdf", "ab.pdf"),
        ('attachment; filename="M\udce4rz.pdf"', "März.pdf"),  # Latin-1, as it comes from the wire
        ("attachment", None),
        ("", None),
        ('attachment; filename=""', None),
        ('attachment; filename=".."', None),
        ("attachment; filename*=UTF-8''%ff%fe", "��"),
    ],
)
def test_the_name_that_a_server_says(header: str, name: str | None) -> None:
    assert disposition_name(header) == name


@given(st.text(max_size=200))
def test_no_header_is_too_strange(header: str) -> None:
    disposition_name(f"attachment; {header}")
    disposition_name(header)


def test_the_name_at_the_end_of_a_path() -> None:
    assert path_name("/a/b%20c.pdf") == "b c.pdf"
    assert path_name("/a/..%2Fb.pdf") == "b.pdf"
    assert path_name("/") is None
