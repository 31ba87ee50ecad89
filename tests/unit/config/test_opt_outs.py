"""The section `opt_outs`: accepted and refused values, and the error texts."""

import pytest

from shardd.config import Config, parse_config
from shardd.config.opt_outs import OptOutsConfig
from shardd.config.values.words import MOST_MESSAGE
from shardd.errors import ConfigError

ENVIRON = {"HOME": "/home/x"}


def read(*lines: str) -> Config:
    return parse_config("\n".join(["opt_outs:", *(f"  {line}" for line in lines)]), "shards.yaml", ENVIRON)


def test_words_and_classes_stand_in_one_line() -> None:
    config = read("words: STOP , opt out,berhenti، توقف", "confirm: ' Bye, {you}. '", "exempt: service, reply").opt_outs
    assert config.words == ("STOP", "opt out", "berhenti", "توقف")
    assert config.confirm == "Bye, {you}."
    assert config.exempt == ("service", "reply")
    assert read("words: [STOP, opt out]").opt_outs.words == ("STOP", "opt out")


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
        (
            "words: stop,, berhenti",
            "has an empty part; write values with one comma between them, such as stop, opt out",
        ),
        ("words: []", "is empty; write values such as stop, opt out"),
        ("words: off", "is a switch, but this option is not one; write values such as stop, opt out"),
        ("take_back_words: yes", "is a switch, but this option is not one; write values such as start, unstop"),
        (
            "take_back_words: start, Ya!",
            "has a part Ya! that answers many questions; write words that mean nothing else, such as",
        ),
        ("confirm: true", "is a switch, but this option is not one; write a sentence, or null to send nothing"),
        ("words: stop, 🛑", "has a part 🛑 that has no letter"),
        ("words: {stop: berhenti}", "is a section; write values such as stop, opt out"),
        (f"words: {'x' * 201}", "that is too long; write at most 200 characters"),
        ("confirm: ''", "is empty; write a sentence, or null"),
        (f"confirm: {'x' * (MOST_MESSAGE + 1)}", f"write at most {MOST_MESSAGE} characters"),
        (
            "take_back_words: start, STOP!",
            "has STOP!, which is one of opt_outs.words; write words that only ask for messages",
        ),
        ("exempt: marketing", "has a part marketing that an opt-out always stops; write service or reply"),
        ("exempt: service, marketing", "has a part marketing"),
        ("exempt: servise", "has a part servise that is not one of service, reply; write service"),
    ],
)
def test_what_cannot_be_is_refused(line: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(line)
    assert f"opt_outs.{line.partition(':')[0]}" in str(refused.value)
    assert text in str(refused.value)
