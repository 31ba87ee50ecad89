"""Texts that are opt-outs, and texts that only look like one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardd.config.opt_outs import OptOutsConfig
from shardd.opt_out_words import MOST, OptOutWords, plain

WORDS = OptOutsConfig().words or ()
DEFAULT = OptOutWords(WORDS)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "STOP",
            "stop",
            "Stop.",
            "STOP!!!",
            " stop \n",
            "„Stop“",
            "*STOP*",
            "🛑 stop 🛑",
            "Stop ✋🏽",
            "stop ❤️",
            "stop 😡",
        ),
        *("\uff33\uff34\uff2f\uff30", "\U0001d412\U0001d413\U0001d40e\U0001d40f", "st\u200bop", "STOP\ufe0f"),
        *("Please stop", "stop, please!", "Stop. Thank you", "pls stop thanks", "Unsubscribe", "opt-out", "OPT OUT"),
        *("Berhenti", "tolong berhenti", "Mohon berhenti, terima kasih", "abmelden", "Bitte abmelden!", "afmelden aub"),
        *("BAJA", "darme de baja, por favor", "Parar", "descadastrar", "arrêt", "ARRETER", "arre\u0302ter"),
        *("désabonner svp", "cancellami", "стоп", "إيقاف", "ايقاف", "من فضلك توقف", "रोकें", "बंद करो", "退订"),
    ],
)
def test_a_message_that_only_asks_to_stop_is_an_opt_out(text: str) -> None:
    assert DEFAULT.ask_to_stop(text)


@pytest.mark.parametrize(
    "text",
    [
        *("don't stop", "Don't stop!", "do not stop", "stop it was great", "nonstop", "stops", "sto p", "s t o p"),
        *("bus stop", "stop?", "STOP\uff1f", "توقف؟", "When does it stop", "jangan berhenti", "nicht abmelden"),
        *("no parar", "please", "thanks", "", " ", "🛑", "!!!", "stop " * 41, "STOP" + " " * MOST),
        "I want to unsubscribe from the other list, not from this one",
    ],
)
def test_a_message_that_says_something_else_is_none(text: str) -> None:
    assert not DEFAULT.ask_to_stop(text)


@pytest.mark.parametrize("word", WORDS)
def test_every_default_word_matches_itself_in_any_case(word: str) -> None:
    assert DEFAULT.ask_to_stop(word)
    assert DEFAULT.ask_to_stop(word.upper())
    assert DEFAULT.ask_to_stop(f"»{word.title()}!«")


def test_without_words_nothing_is_an_opt_out() -> None:
    assert not OptOutWords([]).ask_to_stop("stop")
    assert not OptOutWords(["", "🛑"]).ask_to_stop("🛑")


SIGNS = st.text(st.sampled_from(" \t\n.,;:!*_~\"'()-…❗✋🛑\ufe0f\u200d"), max_size=10)


@given(SIGNS, st.sampled_from(WORDS), SIGNS)
def test_signs_around_a_word_change_nothing(before: str, word: str, after: str) -> None:
    assert DEFAULT.ask_to_stop(before + word + after)


@given(st.lists(st.sampled_from(["not", "never", "bus", "maybe", "I", "2"]), min_size=1, max_size=4), st.booleans())
def test_any_other_word_beside_it_makes_it_none(others: list[str], before: bool) -> None:
    words = [*others, "stop"] if before else ["stop", *others]
    assert not DEFAULT.ask_to_stop(" ".join(words))


@given(st.text(max_size=300))
def test_no_text_is_too_strange(text: str) -> None:
    matches = DEFAULT.ask_to_stop(text)
    assert plain(plain(text)) == plain(text)
    assert not matches or plain(text)
