"""Links in texts, as phones find them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.transports.whatsapp.links.finder import MOST, find_link


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("https://toko.example/p?a=1&b=2", "https://toko.example/p?a=1&b=2"),
        ("Lihat http://toko.example.", "http://toko.example"),
        ("Lihat https://toko.example/p?a=1, ya!", "https://toko.example/p?a=1"),
        ("Sudah lihat https://toko.example/p?", "https://toko.example/p"),
        ("https://toko.example/p?a=1...", "https://toko.example/p?a=1"),
        ("https://toko.example/p…", "https://toko.example/p"),
        ("(https://toko.example/p)", "https://toko.example/p"),
        ("(lihat https://toko.example/kopi_(minuman).)", "https://toko.example/kopi_(minuman)"),
        ("https://toko.example/kopi_(minuman)", "https://toko.example/kopi_(minuman)"),
        ("[https://toko.example/p]", "https://toko.example/p"),
        ("<https://toko.example/p>", "https://toko.example/p"),
        ('"https://toko.example/p"', "https://toko.example/p"),
        ("“https://toko.example/p”", "https://toko.example/p"),
        ("'https://toko.example/p'", "https://toko.example/p"),
        ("HTTPS://TOKO.EXAMPLE/P", "HTTPS://TOKO.EXAMPLE/P"),
        ("www.toko.example/p", "www.toko.example/p"),
        ("WWW.Toko.Example.", "WWW.Toko.Example"),
        ("*https://toko.example/p*", "https://toko.example/p"),
        ("_https://toko.example/p_", "https://toko.example/p"),
        ("*_~https://toko.example/p~_*", "https://toko.example/p"),
        ("* https://toko.example/p*", "https://toko.example/p*"),
        ("https://toko.example/p_", "https://toko.example/p_"),
        ("Lihat:https://toko.example/p", "https://toko.example/p"),
        ("见https://toko.example/p。谢谢", "https://toko.example/p"),
        ("见 https://toko.example/p。谢谢", "https://toko.example/p"),
        ("\uff08https://toko.example/p\uff09", "https://toko.example/p"),
        ("https://münchen.example/straße", "https://münchen.example/straße"),
        ("http://例え.テスト/道", "http://例え.テスト/道"),
        ("https://toko.example/\u202egnp.exe", "https://toko.example/"),
        ("https://toko.example/p\u200bq", "https://toko.example/p"),
        ("https://toko.example/a\u00a0b", "https://toko.example/a"),
        ("line\nhttps://toko.example/p\nline", "https://toko.example/p"),
        ("http://localhost:8000/p", "http://localhost:8000/p"),
        ("http://[2001:db8::1]:8080/p", "http://[2001:db8::1]:8080/p"),
        ("https://satu.example https://dua.example", "https://satu.example"),
        ("http:// https://dua.example", "https://dua.example"),
        ("https://toko.example:99999/ https://dua.example", "https://dua.example"),
        ("http://. http://[/ www. https://dua.example", "https://dua.example"),
        ("https://" + "a" * MOST + ".example https://dua.example", "https://dua.example"),
        ("https://user:word@toko.example/ https://dua.example", None),
        ("https://bank.example@toko.example/", None),
        ("toko.example/p", None),
        ("ftp://toko.example/p", None),
        ("xhttps://toko.example", None),
        ("harga naik, lihat toko", None),
        ("", None),
    ],
)
def test_the_first_link_is_found_as_it_is_written(text: str, link: str | None) -> None:
    found = find_link(text)
    assert (found and found.text) == link


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("HTTP://Toko.Example:80/P#teh", "http://toko.example/P"),
        ("www.toko.example", "https://www.toko.example"),
        ("https://münchen.example/straße", "https://xn--mnchen-3ya.example/stra%C3%9Fe"),
        ("https://toko.example/a%2Fb?q=a+b%20c", "https://toko.example/a%2Fb?q=a+b%20c"),
    ],
)
def test_one_page_is_one_url(text: str, url: str) -> None:
    found = find_link(text)
    assert found is not None
    assert found.url == url


@given(st.text(alphabet="htps:/w.()*_~[]{}a1é。\u200b \n'\"<>@#?%", max_size=200))
def test_a_link_is_part_of_its_text(text: str) -> None:
    found = find_link(text)
    assert found is None or (found.text in text and found.text.strip() == found.text != "")


@pytest.mark.parametrize("part", ["http://", "http://a.", "www.", "www.a", "https://a/(", "https://a/)", ".", "a"])
def test_the_longest_text_is_read_at_once(part: str) -> None:
    """Within the time limit of a test: what is quadratic needs minutes for it."""
    find_link(part * (65_536 // len(part)))
