"""The pages for users: every link leads somewhere, every command exists, and every block of code is run or says why not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from draw_run import LARGEST

from shardd.cli.guide.library import CHAPTERS, page_names, read_page
from tests.acceptance.test_guide_blocks import RUNS
from tests.support.commands_in_text import COMMAND, assert_command_exists, commands_in
from tests.support.guide import GUIDE, ON_A_FRESH_DEBIAN, PAGES, README, ROOT, blocks, pictures

FOLDERS = (".ci", "config", "scripts", "shardd", "tests")
"""Of the files that may name a page."""
DOCUMENTS = [README, ROOT / "CHANGELOG.md", *sorted(GUIDE.glob("*.md")), *sorted((ROOT / "tests").rglob("*.md"))]
ELSEWHERE = {("how-it-works", "mermaid")}
"""tests/unit/test_guide.py compares the diagrams with the tables."""
PICTURES = ROOT / "scripts/pictures"
"""An sdist does not have them."""
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def anchors(file: Path) -> set[str]:
    """As GitHub makes them of headings."""
    found: set[str] = set()
    text = FENCED.sub("", file.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = sum(1 for one in found if one == slug or re.fullmatch(rf"{re.escape(slug)}-[0-9]+", one))
        found.add(f"{slug}-{number}" if number else slug)
    return found


def links(file: Path) -> list[str]:
    text = FENCED.sub("", file.read_text(encoding="utf-8"))
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"<(?:img|source) [^>]*src(?:set)?=\"([^\"]+)\"", text)
    return [link for link in found if "://" not in link]


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_link_leads_somewhere(file: Path) -> None:
    for link in links(file):
        path, _, anchor = link.partition("#")
        target = (file.parent / path).resolve() if path else file
        assert target.exists() or (target.is_relative_to(PICTURES) and (ROOT / "PKG-INFO").exists()), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_the_pages_refer_to_each_other() -> None:
    """An empty list of links would let the test above pass."""
    assert sum(len(links(file)) for file in DOCUMENTS) > 80
    assert {name for page in page_names() for name in read_page(page).others} <= {*page_names()}


def test_every_page_that_a_text_names_exists() -> None:
    named = re.compile(r"(?:shardd/guide/([\w-]+)\.md|`shardd guide ([a-z-]+)`)")
    found = []
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.is_file() and file.suffix in {".py", ".sql", ".md", ".yaml", ".ini", ".service", ".sh", ""}:
                text = file.read_text(encoding="utf-8", errors="replace")
                found += [(file.name, first or second) for first, second in named.findall(text)]
    assert len(found) > 5
    assert [one for one in found if one[1] not in PAGES] == []


def test_every_page_is_in_the_list_and_in_the_readme() -> None:
    assert sorted(page_names()) == sorted(file.stem for file in GUIDE.glob("*.md"))
    table = re.findall(r"^\| \[([\w-]+)\]\(shardd/guide/\1\.md\) \| (.*) \|$", README.read_text(), re.MULTILINE)
    assert table == [(name, read_page(name).summary) for names in CHAPTERS.values() for name in names]


@pytest.mark.parametrize("name", page_names())
def test_a_page_opens_with_what_it_lets_one_do(name: str) -> None:
    page = read_page(name)
    assert page.text.startswith("# ")
    assert re.fullmatch(r"[A-Z][^.\n]{20,90}\.", page.summary.replace("`shardd.jobs`", "shardd_jobs")), page.summary


def test_the_readme_is_short_and_opens_with_the_two_commands() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert [line.split()[0] for line in blocks("README")[0].text.splitlines()] == ["./scripts/demo", "./scripts/test"]
    assert text.index("./scripts/demo") < 200


def test_the_readme_shows_the_terminal_and_the_dashboard_in_words_too() -> None:
    text = README.read_text(encoding="utf-8")
    shown = [*re.findall(r"!\[([^]]*)\]", text), *re.findall(r'<img [^>]*alt="([^"]*)"', text)]
    assert len(shown) == 2
    assert all(len(words.split()) > 10 for words in shown), shown
    assert {file.parent for file in pictures()} == {PICTURES}
    for file in PICTURES.glob("*"):
        assert file in pictures(), f"nothing shows {file}"
        assert file.stat().st_size <= LARGEST, file


def test_the_readme_and_the_guide_read_status_alike() -> None:
    (readme,) = (block.text for block in blocks("README") if block.language == "text")
    (page,) = (block.text for block in blocks("operate") if block.language == "text")
    assert readme == page


def test_every_block_is_run_or_says_why_not() -> None:
    left = [
        block.name
        for page in PAGES
        for block in blocks(page)
        if block.runs
        and page not in ON_A_FRESH_DEBIAN
        and (page, block.language) not in ELSEWHERE
        and (block.language not in RUNS or (block.language == "text") != (block.word == "output of"))
    ]
    assert left == []
    for page in PAGES:
        fences = re.findall(r"^ *```", PAGES[page].read_text(encoding="utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len(blocks(page)), f"{page} has a block that is not at the beginning of its line"


def test_a_reason_is_a_reason() -> None:
    skipped = [block for page in PAGES for block in blocks(page) if not block.runs]
    assert skipped
    assert [block.name for block in skipped if not re.search(r"\w+ \w+", block.value or "")] == []


def test_scripts_boot_carries_out_the_pages_for_a_fresh_debian() -> None:
    """`Story.play` ends with an assertion that no block is left; here: that it takes every heading with one."""
    folder = ROOT / "scripts/bootlib"
    main = (folder / "__main__.py").read_text(encoding="utf-8")
    assert set(re.findall(r'GUIDE / "([\w-]+)\.md"', main)) == ON_A_FRESH_DEBIAN
    words = {
        node.value
        for node in ast.walk(ast.parse((folder / "story.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert {block.heading for page in ON_A_FRESH_DEBIAN for block in blocks(page)} <= words


def commands(page: str) -> Iterator[tuple[str, str]]:
    """The words of each command in the page's code, such as `device set`, and what follows them."""
    prose = FENCED.sub("", PAGES[page].read_text(encoding="utf-8"))
    shell = [
        re.sub(r"(?:^|\s)# .*", "", block.text, flags=re.MULTILINE) for block in blocks(page) if block.language == "sh"
    ]
    for text in shell:
        yield from COMMAND.findall(text)
    yield from commands_in(prose)


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_its_options_exist(page: str) -> None:
    for words, rest in commands(page):
        assert_command_exists(words, rest)


def test_commands_are_found() -> None:
    assert sum(1 for page in PAGES for _ in commands(page)) > 100
