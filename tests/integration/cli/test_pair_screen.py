"""The pairing screen on a real terminal: text from WhatsApp's server is displayed and never interpreted."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios

import pytest

from shardd.cli.device.pair_screen import ScreenView
from shardd.transports.whatsapp.linking.pairing import PairingEvent
from tests.support.terminal import COLOURS, SCREEN

EVIL = "\x1b]52;c;aGk=\x07\x9b2J\r\n9999"


@pytest.mark.parametrize("kind", ["qr", "code", "scanned"])
def test_codes_and_numbers_are_drawn_harmlessly(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal, os.fdopen(ours, "rb", buffering=0) as painted:
        monkeypatch.setattr(sys, "stdout", terminal)
        view = ScreenView("shop", "3m")
        view.show(PairingEvent(kind, code=EVIL, number=EVIL))
        view.note(EVIL)
        view.close()
        monkeypatch.undo()
        os.set_blocking(painted.fileno(), False)
        shown = b""
        while chunk := painted.read(65536):
            shown += chunk
    text = SCREEN.sub(b"", COLOURS.sub(b"", shown)).decode().replace("\r\n", "\n")
    assert [sign for sign in text if sign != "\n" and not sign.isprintable()] == []
    assert r"\x1b]52" in text
