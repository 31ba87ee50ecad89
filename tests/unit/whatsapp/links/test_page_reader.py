"""What pages say about themselves, however their HTML is written."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from shardd.transports.whatsapp.links.page_info import PageInfo
from shardd.transports.whatsapp.links.page_process import DESCRIPTION, TITLE, look
from shardd.transports.whatsapp.links.page_reader import PageReader

META = '<meta property="og:title" content="{}">'


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<title>Kopi</title>", "Kopi"),
        ("<TITLE\n>Kopi\n  &amp;\tTeh</TITLE>", "Kopi & Teh"),
        ("<title>Kopi &#x1F375; &eacute; &unknown; &lt;b&gt;</title>", "Kopi 🍵 é &unknown; <b>"),
        ("<title>Kopi</title><meta property='og:title' content='Teh'>", "Teh"),
        ("<meta property='og:title' content='  '><title>Kopi</title>", "Kopi"),
        ("<meta property=og:title content=Teh><meta property=og:title content=Kopi>", "Teh"),
        ("<META NAME='OG:Title' CONTENT='Teh'/>", "Teh"),
        ("<meta content='Teh &quot;hijau&quot;' property='og:title'", ""),
        ("<meta content='Teh &quot;hijau&quot;' property='og:title'>", 'Teh "hijau"'),
        ("<meta property='og:title' content='Teh' content='Kopi'>", "Teh"),
        ("<meta property='og:title'><title>Kopi</title>", "Kopi"),
        ("<meta name='title' content='Kopi'>", ""),
        ("<meta name='twitter:title' content='Kopi'>", ""),
        ("<!-- <title>Kopi</title> --><title>Teh</title>", "Teh"),
        ("<script>var a = '<title>Kopi</title>'</script><title>Teh</title>", "Teh"),
        ("<style><title>Kopi</title></style><title>Teh</title>", "Teh"),
        ("<svg><title>Ikon</title></svg><title>Teh</title>", "Teh"),
        ("<title>Kopi</title><svg><title>Ikon</title></svg>", "Kopi"),
        ("<title></title><title>Teh</title>", "Teh"),
        ("<title>Kopi", "Kopi"),
        ("<![CDATA[x]]><![endif]><!x><?php ?></ ><title>Kopi</title>", "Kopi"),
        ("<title>Kopi\u202eexe.gnp\u200b\u0007\u00a0Teh</title>", "Kopiexe.gnp Teh"),
        ("<title>" + "x" * 1000 + "</title>", "x" * (TITLE - 1) + "…"),
        ("", ""),
        ("hello", ""),
    ],
)
def test_the_title_is_the_one_for_previews_or_the_title(page: str, title: str) -> None:
    assert look(page.encode()).title == title


def test_the_description_and_the_image_are_found() -> None:
    page = """<meta name=description content="Untuk
        mesin pencari"><meta property=og:image content=" https://cdn.example/a?b=1&amp;c=2 ">
        <meta property=og:image content=no>"""
    said = look(page.encode())
    assert (said.description, said.image) == ("Untuk mesin pencari", "https://cdn.example/a?b=1&c=2")
    page += f'<meta property="og:description" content="{"y" * 2000}">'
    assert look(page.encode()).description == "y" * (DESCRIPTION - 1) + "…"
    for strange in ("x" * 2049, "a\nb", "a\u202eb"):
        assert look(f'<meta property="og:image" content="{strange}">'.encode()).image == ""


@pytest.mark.parametrize(
    ("data", "charset"),
    [
        ("<title>Café „Tee“</title>".encode("cp1252"), ""),
        ("<title>Café „Tee“</title>".encode("cp1252"), "ISO-8859-1"),
        ("<title>Café „Tee“</title>".encode(), "utf-8"),
        ("<title>Café „Tee“</title>".encode(), ""),
        ("<title>Café „Tee“</title>".encode() + "é".encode()[:1], ""),
        ("\ufeff<title>Café „Tee“</title>".encode(), "iso-8859-1"),
        ("\ufeff<title>Café „Tee“</title>".encode("utf-16-le"), ""),
        ("<meta charset=windows-1252><title>Café „Tee“</title>".encode("cp1252"), ""),
        (
            '<meta http-equiv="Content-Type" content="text/html; charset=latin1"><title>Café „Tee“</title>'.encode(
                "cp1252"
            ),
            "",
        ),
        ("<meta charset=utf-16><title>Café „Tee“</title>".encode(), ""),
        ("<meta charset=utf-7><title>Café „Tee“</title>".encode(), ""),
        ("<meta charset=koi8-r><title>Café „Tee“</title>".encode(), "UTF8"),
        ("<title>Café „Tee“</title>".encode(), "unicode_escape"),
        ("<title>Café „Tee“</title>".encode(), "no such charset"),
    ],
)
def test_a_page_is_read_in_its_charset(data: bytes, charset: str) -> None:
    assert look(data, charset).title == "Café „Tee“"


@pytest.mark.parametrize(
    ("label", "codec", "title"),
    [
        ("gb2312", "gb18030", "茶与咖啡"),
        ("Shift_JIS", "cp932", "お茶"),
        ("euc-kr", "cp949", "커피"),
        ("koi8-r", "koi8-r", "Чай"),
    ],
)
def test_so_is_one_of_elsewhere(label: str, codec: str, title: str) -> None:
    page = f"<meta charset='{label}'><title>{title}</title>".encode(codec)
    assert look(page).title == title
    assert look(f"<title>{title}</title>".encode(codec), label).title == title


@pytest.fixture
async def reader() -> AsyncIterator[PageReader]:
    reader = PageReader(seconds=30)
    yield reader
    await reader.close()


async def test_a_child_reads_one_page_after_the_other(reader: PageReader) -> None:
    page = (META.format("Kopi &amp; Teh \U0001f375") + "<p>x</p>" * 60_000).encode()
    assert await reader.read(page, "utf-8") == PageInfo("Kopi & Teh \U0001f375")
    assert await reader.read(b"<title>Caf\xe9</title>", "iso-8859-1") == PageInfo("Café")
    assert await reader.read("<title>Café</title>".encode(), "\n" * 300) == PageInfo("Café")


async def test_a_page_that_takes_long_costs_only_itself(reader: PageReader) -> None:
    """The loop goes on meanwhile, and the next page is read."""
    assert await reader.read(b"<title>Teh</title>", None) == PageInfo("Teh")
    reader._seconds = 1
    assert reader._process is not None
    os.kill(reader._process.pid, signal.SIGSTOP)
    reading = asyncio.create_task(reader.read(b"<title>Kopi</title>", None))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 10
    assert reading.result() is None
    reader._seconds = 30
    assert await reader.read(b"<title>Teh</title>", None) == PageInfo("Teh")


@pytest.mark.parametrize("page", ['<a b="' * 80_000, "</" * 260_000], ids=["attributes", "ends"])
async def test_a_page_that_some_versions_of_python_read_for_minutes_is_read_or_given_up(
    reader: PageReader, page: str
) -> None:
    reader._seconds = 2
    said = await reader.read((META.format("Kopi") + page).encode(), None)
    assert said is None or said.title == "Kopi"
    reader._seconds = 30
    assert await reader.read(b"<title>Teh</title>", None) == PageInfo("Teh")
