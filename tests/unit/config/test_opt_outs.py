"""The section `opt_outs`: what is read, and what is refused in which words."""

import pytest

from shardd.config import Config, parse_config
from shardd.config.opt_outs import MOST_TEXT, OptOutsConfig
from shardd.errors import ConfigError

ENVIRON = {"HOME": "/home/x"}


def read(*lines: str) -> Config:
    return parse_config("\n".join(["opt_outs:", *(f"  {line}" for line in lines)]), "shards.yaml", ENVIRON)


def test_words_and_classes_stand_in_one_line() -> None:
    config = read("words: STOP , opt out,berhenti، توقف", "confirm: ' Bye, {you}. '", "exempt: service, reply").opt_outs
    assert config.words == ("STOP", "opt out", "berhenti", "توقف")
    assert config.confirm == "Bye, {you}."
    assert config.exempt == ("service", "reply")


def test_by_default_words_count_and_nothing_is_answered_or_exempt() -> None:
    config = OptOutsConfig()
    assert config.words is not None
    assert {"stop", "berhenti", "abmelden", "baja", "arrêt", "توقف"} <= set(config.words)
    assert not {"cancel", "end", "quit", "no"} & set(config.words)
    assert (config.confirm, config.exempt) == (None, None)
    assert read("words: null").opt_outs.words is None


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("words: stop,, berhenti", "has a part (nothing) without a letter"),
        ("words: stop, 🛑", "has a part 🛑 without a letter"),
        ("words: [stop, berhenti]", "is a list; write its parts in one line"),
        (f"words: {'x' * 201}", "is too long"),
        ("confirm: ''", "is empty; write a sentence, or null"),
        (f"confirm: {'x' * (MOST_TEXT + 1)}", f"write at most {MOST_TEXT} characters"),
        ("exempt: marketing", "has marketing, which is what an opt-out is against; write service or reply"),
        ("exempt: service, marketing", "has marketing"),
        ("exempt: servise", "has a part servise that is none of service, reply; write service"),
    ],
)
def test_what_cannot_be_is_refused(line: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(line)
    assert f"opt_outs.{line.partition(':')[0]}" in str(refused.value)
    assert text in str(refused.value)
