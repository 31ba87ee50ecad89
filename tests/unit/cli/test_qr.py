import pytest

from shardd.cli.device.drawing import draw_qr
from tests.support.terminal_qr import scan_lines

PAIRING = "https://wa.me/settings/linked_devices#2@" + "aZ09+/x" * 14 + "==," + ",".join(["Q2" * 22] * 3) + ",1"
"""As long as what WhatsApp shows."""


@pytest.mark.parametrize(
    ("columns", "lines", "size"),
    [
        (200, 60, (65, 33)),
        (65, 33, (65, 33)),
        (80, 32, (63, 32)),
        (80, 31, (33, 22)),
        (80, 24, (33, 22)),
        (32, 21, (32, 21)),
    ],
)
def test_a_pairing_code_can_be_scanned_in_every_window_that_it_fits(
    columns: int, lines: int, size: tuple[int, int]
) -> None:
    drawn = draw_qr(PAIRING, columns=columns, lines=lines, sextants=True)
    assert drawn is not None
    assert (len(drawn[0]), len(drawn)) == size
    assert {len(line) for line in drawn} == {size[0]}
    assert scan_lines(drawn) == [PAIRING]


@pytest.mark.parametrize(
    ("columns", "lines", "sextants"), [(31, 21, True), (32, 20, True), (80, 31, False), (62, 60, False)]
)
def test_a_code_that_does_not_fit_is_not_drawn(columns: int, lines: int, sextants: bool) -> None:
    assert draw_qr(PAIRING, columns=columns, lines=lines, sextants=sextants) is None
