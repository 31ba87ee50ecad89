"""`shardd guide`: every page is complete and readable at every width, and a name that is nearly right is recognised."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from click.testing import CliRunner, Result

from shardd.cli.guide.commands import guide
from shardd.cli.guide.library import page_names, read_page
from shardd.cli.guide.page_view import INDENT, MOST_COLUMNS
from shardd.cli.main import cli
from shardd.errors import UsageError

NOT_SHOWN = re.compile(
    r"<!--.*?-->|</?details[^>]*>|</?summary>|\]\((?!\w+://)[^)]*\)|^```\w*|^\|[^\n]*\n(?=\|---)",
    re.DOTALL | re.MULTILINE,
)
"""What only a browser shows: comments, foldable parts, where links within the documentation lead, and (on a narrow screen) the
heads of tables.
"""


def shardd_guide(*arguments: str, columns: int = MOST_COLUMNS) -> Result:
    return CliRunner().invoke(cli, ["guide", *arguments], env={"COLUMNS": str(columns)})


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text))


@pytest.mark.parametrize("columns", [60, 100, 200])
@pytest.mark.parametrize("name", page_names())
def test_a_page_is_complete_and_as_wide_as_the_screen(name: str, columns: int) -> None:
    shown = shardd_guide(name, columns=columns)
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    prose = [line for line in lines if not line.startswith(" " * INDENT)]
    assert max(map(len, prose)) <= min(columns, MOST_COLUMNS)
    assert [line for line in lines if line != line.rstrip()] == []
    given = words(NOT_SHOWN.sub("", read_page(name).text))
    assert given - words(shown.output) == Counter()


def test_the_list_has_every_page_on_a_narrow_screen() -> None:
    shown = shardd_guide(columns=60).output
    assert max(map(len, shown.splitlines())) <= 60
    for name in page_names():
        assert re.search(rf"^  {name} ", shown, re.MULTILINE), name


def test_a_page_names_its_commands_and_the_pages_that_it_refers_to() -> None:
    shown = shardd_guide("pace").output
    assert "  shardd device set   Change settings of devices." in shown
    assert shardd_guide("outcomes").output.endswith(
        "\nSee also shardd guide webhooks, shardd guide platforms, shardd guide insert, shardd guide opt-outs\n"
    )


def test_comments_that_do_not_fit_come_before_their_commands() -> None:
    wide, narrow = (shardd_guide("campaigns", columns=columns).output for columns in (100, 60))
    assert re.search(r"shardd campaign resume spring\n", wide)
    assert "    # permanent: its waiting jobs become cancelled\n    shardd campaign cancel spring\n" in narrow


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pacing", "pace"),
        ("optouts", "opt-outs"),
        ("opt_outs", "opt-outs"),
        ("restore", "backup"),
        ("warm-up", "pace"),
        ("quiet-hours", "pace"),
        ("dedupe_key", "insert"),
        ("alarms", "operate"),
        ("retention", "operate"),
        ("../install", "install"),
        ("Pace", "pace"),
    ],
)
def test_an_unknown_page_is_an_error_that_suggests_others(name: str, expected: str) -> None:
    error = CliRunner().invoke(guide, [name]).exception
    assert isinstance(error, UsageError)
    assert f"the guide has no page '{name}'" in str(error)
    assert "all pages: shardd guide" in str(error)
    assert re.search(rf"did you mean .*\b{expected}\b", str(error)), error


def test_something_quite_different_gets_no_suggestion() -> None:
    error = CliRunner().invoke(guide, ["xyzzy"]).exception
    assert "did you mean" not in str(error)
