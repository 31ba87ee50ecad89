"""What a person, a pipe or a program sees of a pairing.

On a terminal the code stands alone on a screen of its own and is replaced in place; the terminal is left as it was found.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import termios
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from shardd.cli.device.big_letters import draw_letters
from shardd.cli.device.qr import draw_qr
from shardd.cli.output import print_json, say
from shardd.transports.whatsapp.linking.pairing import PairingEvent
from shardd.visible import visible

ENTER_SCREEN: Final = "\x1b[?1049h\x1b[?25l"
LEAVE_SCREEN: Final = "\x1b[?25h\x1b[?1049l"
CLEAR: Final = "\x1b[H\x1b[2J"
DARK_ON_LIGHT: Final = "\x1b[38;5;16;48;5;231m"
"""Black on white whatever the theme: a camera needs the contrast, and most cannot read a code that is light on dark."""
BOLD: Final = "\x1b[1m"
PLAIN: Final = "\x1b[0m"
WAY: Final = "On the phone: WhatsApp > Settings (Android: the three dots) > Linked devices > Link a device"
BESIDE: Final = 34
"""Columns that the words need beside the code; else they stand below it."""


class View(Protocol):
    """Somebody who follows a pairing."""

    def tell(self, event: PairingEvent) -> None:
        """Something happened; see PairingEvent."""

    def note(self, text: str) -> None:
        """What goes on meanwhile."""

    def close(self) -> None:
        """It is over."""


class JsonView:
    """One JSON object a line on stdout, for a front end."""

    def __init__(self, device_id: str) -> None:
        self._device_id = device_id

    def tell(self, event: PairingEvent) -> None:
        """`event` is the kind; fields that have no value are left out."""
        fields = {
            "code": event.code,
            "session": event.jid,
            "number": event.number,
            "reason": event.reason,
        }
        words = {name: value for name, value in fields.items() if value is not None}
        print_json({"event": event.kind, "device": self._device_id, **words}, compact=True)
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Of no use to a program."""

    def close(self) -> None:
        """Nothing is open."""


class PlainView:
    """Codes on stdout, one a line, the words on stderr."""

    def __init__(self, device_id: str) -> None:
        self._device_id = device_id

    def tell(self, event: PairingEvent) -> None:
        """The outcome is the command's to tell."""
        if event.kind == "qr":
            say("show this text as a QR code, and scan it; the next one replaces it:", err=True)
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

    def close(self) -> None:
        """Nothing is open."""


class ScreenView:
    """A screen of the terminal."""

    def __init__(self, device_id: str, patience: str) -> None:
        """`patience`: how long codes are shown, in words."""
        self._device_id = device_id
        self._patience = patience
        self._event = PairingEvent("starting")
        self._note = "Asking WhatsApp for a code…"
        self._echoing = _set_echo(None)
        sys.stdout.write(ENTER_SCREEN)
        self.draw()

    def tell(self, event: PairingEvent) -> None:
        """Draw it."""
        if event.kind not in {"qr", "code", "scanned"}:
            return  # the outcome is told when the terminal is back
        # Drawn without a console; what is shown of it comes from WhatsApp's server.
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
        """Give the terminal back."""
        sys.stdout.write(LEAVE_SCREEN)
        sys.stdout.flush()
        _set_echo(self._echoing)

    def draw(self) -> None:
        """Everything anew, for the size that the window has now."""
        # Not by COLUMNS and LINES: a picture that is a little too large is of no use at all.
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
                f"{WAY}; then scan this code.",
                f"A new code replaces it by itself, for {self._patience}. ^C gives up.",
            ]
            drawn = _qr_lines(str(self._event.code), title, words, (columns, lines))
            return drawn or [*head, *_wrapped([self._too_small()], columns)]
        words = [f"{WAY} > Link with phone number instead; then type this code:"]
        body = ["", *(f"    {line}" for line in _large(str(self._event.code), columns - 4)), ""]
        last = [f"It is good for {self._patience} at most. ^C gives up."]
        return [*head, *_wrapped(words, columns), *body, *_wrapped(last, columns)]

    def _too_small(self) -> str:
        need = "80 columns by 24 lines" if _shows_sextants() else "80 columns by 40 lines"
        return (
            f"This window is too small for the code: make it {need} or larger. "
            f"Or pair without a camera: shardd device pair {self._device_id} --phone NUMBER"
        )


@contextmanager
def open_view(device_id: str, *, as_json: bool, patience: str) -> Iterator[View]:
    """The view that suits the reader of stdout."""
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
    """The code with the words beside or below it; nothing when it does not fit into `size` (columns, lines)."""
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
    """The code in large letters, and once more in plain ones, for those who copy it."""
    plain = f"{BOLD}{_spaced(code)}{PLAIN}"
    large = draw_letters(_spaced(code))
    return [plain] if large is None or len(large[0]) > columns else [*large, "", plain]


def _set_echo(before: list[Any] | None) -> list[Any] | None:
    """Keep keys from spoiling the picture, or (`before`) make the terminal what it was; what it was, if there is a keyboard."""
    if not sys.stdin.isatty():
        return None
    found = termios.tcgetattr(sys.stdin)
    quiet = [*found[:3], found[3] & ~termios.ECHO, *found[4:]]
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet if before is None else before)
    return found


def _shows_sextants() -> bool:
    """The console of Linux has too few glyphs in its font."""
    return os.environ.get("TERM") != "linux"


def _wrapped(texts: Sequence[str], width: int) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(text, max(20, width))]


def _spaced(code: str) -> str:
    """`ABCD-EFGH`, as the phone shows the field."""
    letters = code.replace("-", "")
    return f"{letters[:4]}-{letters[4:]}"
