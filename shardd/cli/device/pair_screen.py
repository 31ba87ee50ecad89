"""The output of a pairing: a screen for people, lines for a pipe, JSON for a program.

On a terminal the code has a screen of its own and is replaced in place; afterwards the terminal is restored.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import termios
import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from shardd.cli.device.drawing import draw_letters, draw_qr
from shardd.cli.output import print_json, say
from shardd.transports.whatsapp.linking.pairing import PairingEvent
from shardd.visible import visible

ENTER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
LEAVE_SCREEN: Final = "\x1b[?25h\x1b[?1049l"
CLEAR: Final = "\x1b[H\x1b[2J"
DARK_ON_LIGHT: Final = "\x1b[38;5;16;48;5;231m"
"""Black on white whatever the theme: a camera needs the contrast, and most cannot read light codes on dark."""
BOLD: Final = "\x1b[1m"
PLAIN: Final = "\x1b[0m"
WHERE_TO: Final = "On the phone: WhatsApp > Settings (Android: the three dots) > Linked devices > Link a device"
BESIDE: Final = 34
"""Columns for the words beside the code; in less they are below it."""


class View(ABC):
    """One of the outputs."""

    def __init__(self, device_id: str) -> None:
        self._device_id = device_id

    @abstractmethod
    def show(self, event: PairingEvent) -> None:
        """Show what happened."""

    def note(self, text: str) -> None:
        """Show what goes on meanwhile; not to programs."""

    def close(self) -> None:
        """The pairing is over."""


class JsonView(View):
    """One JSON object a line on stdout, for a front end."""

    def show(self, event: PairingEvent) -> None:
        """`event` is the kind; fields without a value are omitted."""
        fields = {"code": event.code, "session": event.jid, "number": event.number, "reason": event.reason}
        words = {name: value for name, value in fields.items() if value is not None}
        print_json({"event": event.kind, "device": self._device_id, **words}, compact=True)
        sys.stdout.flush()


class PlainView(View):
    """Codes on stdout, one a line, the words on stderr."""

    def show(self, event: PairingEvent) -> None:
        """All but the outcome, which the command reports."""
        if event.kind == "qr":
            say("show this text as a QR code and scan it; the next one replaces it:", err=True)
        elif event.kind == "code":
            say("type this code on the phone:", err=True)
        if event.code is not None:
            say(_spaced(event.code) if event.kind == "code" else event.code)
            sys.stdout.flush()
        elif event.kind == "scanned":
            say(f"+{event.number} is linked; its first login takes a few seconds", err=True)

    def note(self, text: str) -> None:
        """One line."""
        say(text, err=True)


class ScreenView(View):
    """A terminal's alternate screen."""

    def __init__(self, device_id: str, patience: str) -> None:
        """`patience`: how long codes are shown, in words."""
        super().__init__(device_id)
        self._patience = patience
        self._event = PairingEvent("starting")
        self._note = "Asking WhatsApp for a code…"
        self._echoing = _set_echo(None)
        sys.stdout.write(ENTER_SCREEN)
        self.draw()

    def show(self, event: PairingEvent) -> None:
        """Draw it."""
        if event.kind not in {"qr", "code", "scanned"}:
            return  # the command reports the outcome when the terminal is restored
        # Not drawn by a console, which would make WhatsApp's text visible.
        self._event = dataclasses.replace(event, code=event.code and visible(event.code))
        self._note = ""
        if event.kind == "scanned":
            self._note = visible(f"+{event.number} is linked; its first login takes a few seconds…")
        self.draw()

    def note(self, text: str) -> None:
        """Draw it."""
        self._note = visible(text)
        self.draw()

    def close(self) -> None:
        """Restore the terminal."""
        sys.stdout.write(LEAVE_SCREEN)
        sys.stdout.flush()
        _set_echo(self._echoing)

    def draw(self) -> None:
        """Redraw for the current size of the window."""
        # Not by COLUMNS and LINES: a code that is a little too large is useless.
        size = os.get_terminal_size(sys.stdout.fileno())
        sys.stdout.write(CLEAR + "\n".join(self._lines(size.columns, size.lines)))
        sys.stdout.flush()

    def _lines(self, columns: int, lines: int) -> list[str]:
        title = f"Pair device {self._device_id}"
        head = [BOLD + title + PLAIN, ""]
        if self._note:
            return [*head, *_wrapped([self._note], columns)]
        if self._event.kind == "qr":
            words = [
                f"{WHERE_TO}; then scan this code.",
                f"New codes replace it for {self._patience}. ^C gives up.",
            ]
            drawn = _qr_lines(str(self._event.code), title, words, (columns, lines))
            return drawn or [*head, *_wrapped([self._too_small()], columns)]
        words = [f"{WHERE_TO} > Link with phone number instead; then type this code:"]
        body = ["", *(f"    {line}" for line in _large(str(self._event.code), columns - 4)), ""]
        last = [f"It is valid for {self._patience} at most. ^C gives up."]
        return [*head, *_wrapped(words, columns), *body, *_wrapped(last, columns)]

    def _too_small(self) -> str:
        need = "80 columns by 24 lines" if _shows_sextants() else "80 columns by 40 lines"
        return (
            f"This window is too small for the code: make it {need} or larger. "
            f"Or pair without a camera: shardd device pair {self._device_id} --phone NUMBER"
        )


@contextmanager
def open_view(device_id: str, *, as_json: bool, patience: str) -> Iterator[View]:
    """The output that suits stdout."""
    view: View
    if as_json:
        view = JsonView(device_id)
    elif sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        view = ScreenView(device_id, patience)
    else:
        view = PlainView(device_id)
    try:
        yield view
    finally:
        view.close()


def _qr_lines(code: str, title: str, words: Sequence[str], size: tuple[int, int]) -> list[str]:
    """The code with the words beside or below it; empty when it does not fit into `size` (columns, lines)."""
    columns, lines = size
    below = _wrapped([f"{title}. {words[0]}", *words[1:]], columns)
    for dense in (False, True) if _shows_sextants() else (False,):
        if (drawn := draw_qr(code, columns=columns - BESIDE, lines=lines, sextants=dense)) is not None:
            width = columns - len(drawn[0]) - 2
            beside = [BOLD + title + PLAIN, *(line for part in words for line in ("", *_wrapped([part], width)))]
            beside += [""] * (len(drawn) - len(beside))
            return [f"{DARK_ON_LIGHT}{row}{PLAIN}  {text}" for row, text in zip(drawn, beside, strict=True)]
        if (drawn := draw_qr(code, columns=columns, lines=lines - len(below), sextants=dense)) is not None:
            return [*(DARK_ON_LIGHT + row + PLAIN for row in drawn), *below]
    return []


def _large(code: str, columns: int) -> list[str]:
    """The code in large letters, and in plain ones to copy."""
    plain = f"{BOLD}{_spaced(code)}{PLAIN}"
    large = draw_letters(_spaced(code))
    return [plain] if large is None or len(large[0]) > columns else [*large, "", plain]


def _set_echo(before: list[Any] | None) -> list[Any] | None:
    """Turn the terminal's echo off, or restore its attributes `before`; its attributes until now, None without a terminal."""
    if not sys.stdin.isatty():
        return None
    found = termios.tcgetattr(sys.stdin)
    quiet = [*found[:3], found[3] & ~termios.ECHO, *found[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet if before is None else before)
    return found


def _shows_sextants() -> bool:
    """The Linux console does not have these glyphs."""
    return os.environ.get("TERM") != "linux"


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(text, max(20, width))]


def _spaced(code: str) -> str:
    """`ABCD-EFGH`, as on the phone."""
    letters = code.replace("-", "")
    return f"{letters[:4]}-{letters[4:]}"
