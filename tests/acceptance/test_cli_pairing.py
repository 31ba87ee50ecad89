"""`shardd device pair` for people and programs, with the real library and a running daemon."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import termios

import pytest

from tests.fixtures.pairing import Place
from tests.support.command import PATIENCE, PROGRAM, Command
from tests.support.daemon import Producer
from tests.support.terminal_qr import scan_lines


async def test_a_scanned_qr_pairs_a_device_that_the_running_daemon_then_sends_with(
    place: Place, fresh_number: str
) -> None:
    await place.daemon.start()
    place.add("shop")
    place.send("shop", "first words")
    pairing = await place.pair("shop")
    await place.control.scan(await pairing.code(), fresh_number)
    # A phone that is linked gets what waits for it at once, before the device's first client.
    await place.control.wait_events("paired", device=fresh_number)
    await place.control.write(f"{fresh_number}:1", "6281234567891", "STOP")
    code, told, err = await pairing.end()
    session = f"{fresh_number}:1@s.whatsapp.net"
    assert (code, err) == (0, "")
    assert told == [
        {"event": "scanned", "device": "shop", "number": fresh_number},
        {"event": "paired", "device": "shop", "session": session, "number": fresh_number},
    ]
    assert place.row("shop") == (session, "ready", None)
    (message,) = await place.control.wait_messages(1, sender=fresh_number)
    assert (message.recipient, message.text) == ("6281234567890", "first words")
    assert await place.producer.until_finished(place.daemon, 1) == {"sent": 1}
    place.send("shop", "an offer", "+62 812-3456-7891")
    while place.producer.states() != {"sent": 1, "opted_out": 1}:
        await place.daemon.wait_change()


async def test_a_typed_code_pairs_without_a_daemon(place: Place, fresh_number: str) -> None:
    place.add("shop", state="logged_out", reason="the phone removed it", paused_why="holidays", paused_at="now")
    pairing = await place.pair("shop", "--phone", f"+{fresh_number[:2]} {fresh_number[2:]}")
    assert await place.control.enter_code(fresh_number, await pairing.code()) == "paired"
    code, told, _ = await pairing.end()
    assert (code, told[-1]["event"]) == (0, "paired")
    assert place.row("shop") == (f"{fresh_number}:1@s.whatsapp.net", "ready", None)
    assert (await place.shardd("device", "show", "shop", "--json")).json["shown_state"] == "paused"


async def test_another_number_is_refused_unless_wanted_and_the_old_session_is_ended(
    place: Place, fresh_number: str
) -> None:
    await place.daemon.start()
    other = str(int(fresh_number) + 500_000)
    old = await place.add_paired("shop", fresh_number)
    place.send("shop", "by the old session")
    await place.control.wait_messages(1, sender=fresh_number)

    early = await place.shardd("device", "pair", "shop", "--phone", f"+{other}")
    assert (early.code, early.out) == (64, "")
    assert early.err == (
        f"shardd: device shop had the number +{fresh_number}, not +{other}; "
        "to give it another number, add --new-number\n"
    )
    wrong = await place.pair("shop")
    await place.control.scan(await wrong.code(), other)
    code, told, err = await wrong.end()
    assert (code, told[-1]["event"]) == (75, "failed")
    assert f"is +{other}, not +{fresh_number}: it has been unlinked again; to give the device another number" in err
    await place.control.wait_events("logout", device=other)
    assert (place.row("shop"), place.sessions()) == ((old, "ready", None), [old])

    wanted = await place.pair("shop", "--new-number")
    await place.control.scan(await wanted.code(), other)
    code, told, err = await wanted.end()
    assert (code, told[-1]["event"], err) == (0, "paired", "")
    await place.control.wait_events("logout", device=fresh_number)
    session = told[-1]["session"]
    assert (place.row("shop"), place.sessions()) == ((session, "ready", None), [session])
    ends = ("not paired: wrong number", "not paired: wrong number", "done")
    assert place.producer.acts() == [("pair", "device shop", one) for end in ends for one in ("begun", end)]
    place.send("shop", "by the new session")
    (message,) = await place.control.wait_messages(1, sender=other)
    assert message.text == "by the new session"
    assert await place.producer.until_finished(place.daemon, 2) == {"sent": 2}


async def test_a_number_that_another_device_has_is_refused(place: Place, fresh_number: str) -> None:
    theirs = await place.add_paired("first", fresh_number, index=7)
    place.add("second")
    pairing = await place.pair("second")
    await place.control.scan(await pairing.code(), fresh_number)
    code, told, err = await pairing.end()
    assert (code, told[-1]["event"]) == (75, "failed")
    assert err == (
        f"shardd: device second is not paired: +{fresh_number} is the number of device first, "
        "and two devices cannot share one\n"
    )
    await place.control.wait_events("logout", device=fresh_number)
    assert place.sessions() == [theirs]
    assert place.row("second") == (None, "unpaired", None)
    by_code = await place.shardd("device", "pair", "second", "--phone", f"+{fresh_number}")
    assert (by_code.code, by_code.err) == (
        64,
        f"shardd: +{fresh_number} is the number of device first: two devices cannot share one\n",
    )


async def test_one_pairing_of_a_device_at_a_time_and_one_that_is_given_up_leaves_no_trace(
    place: Place, fresh_number: str
) -> None:
    place.add("shop")
    first = await place.pair("shop")
    await first.code()
    second = await place.pair("shop")
    code, told, err = await second.end()
    assert (code, [event["event"] for event in told]) == (75, ["failed"])
    assert err == "shardd: device shop is being paired by another process right now\n"
    first.process.send_signal(signal.SIGINT)
    code, told, err = await first.end()
    assert (code, told[-1], err) == (130, {"event": "given_up", "device": "shop"}, "given up; nothing has changed\n")
    assert (place.row("shop"), place.sessions()) == ((None, "unpaired", None), [])
    late = await place.pair("shop", "--timeout", "2s")
    code, told, err = await late.end()
    assert (code, [event["event"] for event in told]) == (75, ["qr", "timeout"])
    assert err == "shardd: device shop is not paired: no phone was linked within 2 seconds\n"
    plain = await place.shardd("device", "pair", "shop", "--timeout", "2s")
    assert (plain.code, plain.out.count("\n")) == (75, 1)
    assert plain.out.startswith("https://wa.me/settings/linked_devices#")
    assert plain.err.endswith(err)


async def test_the_picture_on_a_terminal_can_be_scanned(place: Place, fresh_number: str) -> None:
    place.add("shop")
    terminal, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {name: value for name, value in place.shardd.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), "device", "pair", "shop"),
        env=environ | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    loop, codes = asyncio.get_running_loop(), list[str]()
    async with asyncio.timeout(PATIENCE):
        while not codes:
            shown += await loop.run_in_executor(None, os.read, terminal, 65536)
            codes = scan_lines(frame(shown))
        await place.control.scan(codes[0], fresh_number)
        while b"\x1b[?1049l" not in shown or not shown.endswith(b"\r\n"):
            shown += await loop.run_in_executor(None, os.read, terminal, 65536)
        assert await process.wait() == 0
    os.close(terminal)
    assert shown.decode().partition("\x1b[?1049l")[2] == f"device shop is paired with +{fresh_number}\r\n"


def frame(shown: bytes) -> list[str]:
    """The last picture, without colours; the terminal is 80 by 24 and may cut no line."""
    picture = shown.decode(errors="replace").rpartition("\x1b[2J")[2]
    lines = re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", picture).split("\r\n")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    return lines


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nobody"], "shardd: device nobody is unknown; add it first: shardd device add nobody --transport whatsapp\n"),
        (["d1"], "shardd: device d1 sends by sandbox: only whatsapp devices have a session\n"),
        (["a b"], "shardd: a b: not a device id; write at most 64"),
        (["d1", "--phone", "0812"], "shardd: --phone: '0812' cannot be resolved to a phone number without its country"),
        (
            ["d1", "--phone", "123@g.us"],
            "shardd: --phone: 123@g.us is not a phone number; write it as +4915112345678\n",
        ),
        (["d1", "--timeout", "1h"], "shardd: --timeout: 1h is too large; write a value from 1s to 3m\n"),
        (["d1", "--timeout", "60"], "shardd: --timeout: 60 has no unit"),
    ],
)
async def test_bad_input_is_refused_in_one_line(
    shardd: Command, producer: Producer, arguments: list[str], error: str
) -> None:
    producer.add_devices(1)
    ran = await shardd("device", "pair", *arguments)
    assert (ran.code, ran.out, ran.err.count("\n")) == (64, "", 1)
    assert ran.err.startswith(error)
