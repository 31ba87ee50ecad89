"""`shardd status` with a real daemon: once, as JSON, and live on a terminal."""

from __future__ import annotations

import os
import re
import signal
import termios
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec

from shardd.supervisor.status import Status
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.terminal import Terminal


async def test_status_of_a_healthy_a_degraded_and_a_stopped_node(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    # A worker that crashed once stays away, so that the node stays degraded for as long as the test looks.
    daemon = make_daemon(supervisor={"backoff": {"first": "1h", "cap": "1h"}, "breaker": {"crashes": 2}})
    shardd = Command(daemon.config_file)
    producer.add_devices(6)
    producer.add_devices(2, transport="whatsapp", prefix="w")
    producer.execute("UPDATE shardd.devices SET state = 'unpaired' WHERE transport = 'whatsapp'")
    producer.add_jobs(12, 6)
    await daemon.start()
    await producer.until_finished(daemon, 12)

    told = await shardd("status", "--json")
    assert (told.code, told.err) == (0, "")
    status = msgspec.convert(told.json, Status)
    assert (status.totals.sent, status.totals.sandbox_devices, status.totals.parked) == (12, 6, 2)
    shown = await shardd("status")
    assert (shown.code, shown.err) == (0, "")
    assert "on test: healthy" in shown.out
    assert "6 of 8 devices are sandbox: their messages reach nobody" in shown.out
    assert "6 ready, 2 parked" in shown.out
    assert "12 since the start" in shown.out
    assert "0 attempts failed, 0 in doubt" in shown.out
    assert "not counted" in (await shardd("device", "list")).out, "the devices have neither a gap nor a limit"
    rows = [line.split()[:3] for line in shown.out.splitlines() if re.match(r" +\d ", line)]
    assert rows == [[str(s.shard), "running", str(s.pid)] for s in status.shards]
    assert "\x1b" not in shown.out

    producer.execute("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('w1', '+4915112345678', 'x')")
    await daemon.until(lambda answer: answer["queue"]["waits"] == {"its device: unpaired": 1})
    assert re.search(r"waits +its device: unpaired \(1\)", (await shardd("status")).out)

    pid, ready = status.shards[0].pid, status.shards[0].ready
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await daemon.until(lambda answer: not answer["healthy"])
    degraded = await shardd("status")
    assert degraded.code == 1
    assert f"{6 - ready} ready, {ready} ready whose shard does not run, 2 parked" in degraded.out
    assert re.search(r"died +worker of shard 0: SIGKILL, .* ago", degraded.out)
    assert "on test: degraded" in degraded.out
    assert re.search(r"problem +shard 0 is (backoff|broken): ", degraded.out)
    for page in (Path("README.md"), Path("shardd/guide/operate.md")):
        (example,) = re.findall(r"```text\n(shardd \d.*?)```", page.read_text(), re.DOTALL)
        assert labels_and_columns(example) == labels_and_columns(degraded.out)
    assert (await shardd("status", "--json")).code == 1

    assert await daemon.stop() == 0
    for option in ((), ("--json",)):
        away = await shardd("status", *option)
        assert (away.code, away.out) == (3, "")
        assert away.err == f"shardd: no shardd answers at {daemon.socket}: is it running with this config?\n"


def labels_and_columns(shown: str) -> tuple[list[str], list[list[str]]]:
    """The labels of the head, and the words above the columns of the table."""
    head, table = shown.split("\n\n")[:2]
    return re.findall(r"^([a-z]+) {2}", head, re.MULTILINE), [line.split() for line in table.splitlines()[:2]]


async def test_jobs_in_doubt_are_still_told_after_a_restart_and_not_called_unsent(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(transports={"sandbox": {"in_doubt_rate": 1.0}})
    shardd = Command(daemon.config_file)
    producer.add_devices(1)
    producer.add_jobs(2, 1)
    await daemon.start()
    assert await producer.until_finished(daemon, 2) == {"in_doubt": 2}
    assert await daemon.stop() == 0
    log = daemon.log_tail(10**6)
    assert log.count('"outcome unknown"') == 2
    assert "not sent" not in log

    await daemon.start()
    await daemon.until(lambda status: status["queue"] is not None)
    shown = await shardd("status")
    assert "2 jobs for you to decide: shardd job list --state=in_doubt" in shown.out
    assert (await shardd("status", "--json")).json["queue"]["in_doubt"] == 2
    assert 'shardd_jobs{state="in_doubt"} 2' in await metrics(daemon)


async def test_what_a_limit_holds_back_is_not_called_due(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon(pacing={"hourly_limit": 1})
    producer.add_devices(1)
    producer.add_jobs(3, 1)
    await daemon.start()
    await daemon.until(lambda status: status["totals"]["sent"] == 1)
    status = await daemon.until(
        lambda status: status["queue"]["queued"] == 2 and status["queue"]["oldest_due_age"] is None
    )
    assert status["healthy"]
    assert "shardd_oldest_due_job_seconds 0.0\n" in await metrics(daemon)


async def metrics(daemon: Daemon) -> str:
    connector = aiohttp.UnixConnector(str(daemon.socket))
    async with aiohttp.ClientSession(connector=connector) as session, session.get("http://shardd/metrics") as response:
        return await response.text()


async def test_watching_without_a_terminal_is_refused(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.write_config()
    refused = await Command(daemon.config_file)("status", "--watch")
    assert (refused.code, refused.out) == (64, "")
    assert "shardd status --json" in refused.err


async def test_watching_goes_on_while_the_daemon_comes_and_goes(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.write_config()
    async with Terminal(Command(daemon.config_file).environ, "status", "--watch") as terminal:
        await terminal.shows("no answer for")
        await daemon.start()
        await terminal.shows("shardd is back after")
        await terminal.shows("on test: healthy")
        daemon.kill()
        await daemon.wait_end()
        await terminal.shows("on test: was healthy")
        await daemon.start()
        await terminal.shows("shardd is back after")
        os.write(terminal.fd, b"q")
        assert await terminal.end() == 0
        assert termios.tcgetattr(terminal.inner) == terminal.before


async def test_watching_ends_cleanly_by_an_interrupt(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.write_config()
    async with Terminal(Command(daemon.config_file).environ, "status", "--watch") as terminal:
        await terminal.shows("no answer for")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.end() == 0
        assert termios.tcgetattr(terminal.inner) == terminal.before
        assert "Traceback" not in terminal.text


async def test_a_config_with_an_error_keeps_nobody_from_a_daemon_that_runs(
    make_daemon: Callable[..., Daemon], producer: Producer
) -> None:
    daemon = make_daemon()
    shardd = Command(daemon.config_file)
    producer.add_devices(1)
    await daemon.start()
    same = await shardd("reload")
    assert (same.code, same.out, same.err) == (0, "reloaded: nothing changed\n", "")
    good = daemon.config_file.read_text()
    daemon.config_file.write_text(good.replace("gap_max: 0", "gap_max: 5s").replace("level: info", "level: warning"))
    changed = await shardd("reload")
    assert (changed.code, changed.err) == (0, "")
    assert changed.out == "pacing.gap_max: 0 → 5s\nlog.level: info → warning\n"
    daemon.config_file.write_text(f"{good}\nshards many\ncolour: green\n")
    wrong = await shardd("reload")
    assert (wrong.code, wrong.out) == (78, "")
    assert "this is not YAML" in wrong.err
    warning = re.compile(
        r"shardd: warning: \S+/shards\.yaml:\d+(:\d+)?: .* this command does not need it and goes on\n"
    )

    daemon.kill(signal.SIGHUP)
    refused = await daemon.until(lambda status: any("config refused" in note for note in status["notes"]))
    assert refused["healthy"]
    status = await shardd("status")
    assert (status.code, "config refused" in status.out) == (0, True)
    assert warning.fullmatch(status.err), status.err
    for words in (
        "device list",
        "device pause d1",
        "device resume d1",
        "job list",
        "campaign list",
        "event list",
        "restart",
    ):
        ran = await shardd(*words.split())
        assert ran.code == 0, (words, ran.err)
        assert warning.fullmatch(ran.err), (words, ran.err)
    # Whatever needs the rest of the file is refused as before.
    added = await shardd("device", "add", "more", "--transport=sandbox")
    assert (added.code, added.out) == (78, "")
    assert "colour: is not an option" in added.err or "this is not YAML" in added.err

    # Where the address itself is in doubt nothing is reached: better no answer than one of another database.
    daemon.config_file.write_text(good.replace("dsn:", "dns:"))
    nowhere = await shardd("job", "list")
    assert (nowhere.code, nowhere.out) == (78, "")
    assert "did you mean dsn?" in nowhere.err
    stopped = await shardd("stop")
    assert (stopped.code, stopped.out) == (0, "stopped\n")
    assert warning.fullmatch(stopped.err), stopped.err
    assert await daemon.wait_end() == 0
