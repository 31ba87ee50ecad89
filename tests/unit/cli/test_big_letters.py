from shardd.cli.device.drawing import draw_letters

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTVWXYZ"


def test_every_letter_of_a_code_has_a_form_of_its_own() -> None:
    drawn = {letter: draw_letters(letter) for letter in ALPHABET}
    assert all(lines is not None and {len(line) for line in lines} == {5} for lines in drawn.values())
    assert len({tuple(lines or ()) for lines in drawn.values()}) == len(ALPHABET)


def test_a_code_fits_into_80_columns() -> None:
    drawn = draw_letters("ABCD-EFGH")
    assert drawn is not None
    assert (len(drawn), {len(line) for line in drawn}) == (4, {61})
    assert draw_letters("AB?D-EFGH") is None
