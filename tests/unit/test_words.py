"""Words that are put together."""

from __future__ import annotations

from shardd.words import sentences


def test_a_question_ends_with_its_own_mark() -> None:
    assert sentences("is it overloaded?", None, "", "Nothing was changed.") == "is it overloaded? Nothing was changed."
    assert sentences("too many") == "too many."
