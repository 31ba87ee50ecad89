import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.urls import MAX_SHOWN, safe_url, scrub_urls


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host.example/a/b.png", "https://host.example/a/b.png"),
        ("https://host.example:8443/a?X-Signature=s3cret#s3cret", "https://host.example:8443/a"),
        ("http://user:s3cret@host/x", "http://host/x"),
        ("http://s3cret@host/x", "http://host/x"),
        ("http://user:s3c@ret@host/x", "http://host/x"),
        ("http://user:s3cret@[::1]:80/x", "http://[::1]:80/x"),
        ("http://user:s3c/ret@host/x", "http://…"),  # the slash ends the host: what is left is no port
        ("http://us/er:s3cret@host/x", "http://us/…"),
        ("https://cdn.example/npm/pkg@1.2/x.png", "https://cdn.example/npm/pkg@1.2/x.png"),
        ("http://user:s3c?ret@host/x", "http://…"),
        ("http://user:s3c#ret@host/x", "http://…"),
        ("http://host:99999/s3cret", "http://…"),
        ("http://[s3cret", "http://…"),
        ("//user:s3cret@host/x", "//host/x"),
        ("http:user:s3cret@host/x", "http:…host/x"),
        ("http:/user:s3cret@host/x", "http:…host/x"),
        ("user:s3cret@host/x", "user:…host/x"),
        ("socks5://user:s3cret@proxy:1080", "socks5://proxy:1080"),
        ("postgresql://user:s3cret@db/name?password=s3cret", "postgresql://db/name"),
        ("data:image/png;base64,s3cret", "data:image/png;base64,…"),
        ("DATA:,s3cret", "DATA:,…"),
        ("deep/a@b.png", "deep/a@b.png"),
        ("a.png?s3cret", "a.png"),
        ("http://host/\x1b[2J\nx", "http://host/�[2Jx"),  # a line break is no part of a URL
        ("a\x1b[2J\nb", "a�[2J�b"),
        ("", ""),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert safe_url(url) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            'Post "https://mmg.example/mms/image?auth=s3cret": dial tcp',
            'Post "https://mmg.example/mms/image": dial tcp',
        ),
        ("407, message='no', url='http://user:s3cret@proxy:3128'", "407, message='no', url='http://proxy:3128'"),
        (r'{"error":"https:\/\/cdn.example\/a?sig=s3cret"}', '{"error":"https://cdn.example/a"}'),
        ("http://a/?s3cret and http://b/?s3cret", "http://a/ and http://b/"),
        ("nothing to hide: 12:30, a/b", "nothing to hide: 12:30, a/b"),
    ],
)
def test_what_is_shown_of_a_text_with_urls(text: str, shown: str) -> None:
    assert scrub_urls(text) == shown


_PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="/?#@:[]\\"), max_size=10)


@given(user=_PLAIN, query=st.text(max_size=10), path=_PLAIN)
def test_no_secret_of_a_whole_url_is_shown(user: str, query: str, path: str) -> None:
    shown = safe_url(f"https://{user}S3CRET:S3CRET{user}@host.example/{path}?S3CRET{query}#S3CRET")
    assert "S3CRET" not in shown
    assert "host.example" in shown


@given(st.text(max_size=400))
def test_whatever_it_is_it_is_short_and_on_one_line(url: str) -> None:
    for shown in (safe_url(url), safe_url(f"http://{url}"), safe_url(f"data:{url}")):
        assert shown.isprintable()
        assert len(shown) <= MAX_SHOWN
