"""The demonstration: starts a daemon with sandbox devices and a separate producer, shows progress, and prints a summary.

Each run starts from scratch: it deletes the state of an earlier run, which may be of another release. No process is left
running. While it runs, a link leads to its dashboard; --stay keeps both until ^C. The state of the last run can be inspected
with `shardd start --config=config/demo.yaml`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from clone_daemon import SHARDD, Stopped, running_daemon, status_of, stop_on_signals
from demo_page import Page, load_with_free_port
from demo_picture import Moment, Picture
from rich.console import Console

from shardd.config import Config
from shardd.embedded import embedded_dsn
from shardd.errors import SharddError
from shardd.supervisor.cluster.state_folder import StateLock

HERE = Path(__file__).resolve().parent
OWN_STATE = HERE.parent / ".shardd" / "demo"
"""The state folder of config/demo.yaml, which may be deleted."""
MARK = "made-by-demo"
"""A file that marks another state folder as one that may be deleted."""
STUCK_AFTER = 60.0
"""Seconds without progress after which the demonstration gives up."""
LOOK_EVERY = 0.2
STAY_EVERY = 1.0
"""Seconds between two looks at the daemon, while it stays."""
PAUSED: Final = tuple(f"paused-{number:02}" for number in range(1, 13))
"""Devices without jobs, because not all devices of a real node can send."""


@dataclass(frozen=True)
class Options:
    """What is demonstrated."""

    config: Path = HERE.parent / "config" / "demo.yaml"
    devices: int = 3000
    jobs: int = 6000
    seconds: float = 6.0
    """Over which the inserts are spread."""
    gap: str | None = None
    """Pause of a device between two messages, as `shardd device add` reads it; None: that of the config."""
    stay: bool = False
    """Keep the daemon until ^C."""


@dataclass(frozen=True)
class Glimpse:
    """Something to be done once during the run."""

    after: float
    """Share of the jobs that are sent by then."""
    look: Callable[[Picture, Page], None]


def main() -> int:
    """Run; returns the exit status."""
    options = _options()
    console = Console()
    stop_on_signals()
    try:
        return run(options, console)
    except Stopped:
        console.print("stopped")
        return 130
    except SharddError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="./scripts/demo", description=__doc__)
    given = Options()
    parser.add_argument(
        "--devices", type=int, default=given.devices, help="sandbox devices that send (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=given.jobs, help="rows to insert (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=given.seconds,
        help="time over which the inserts are spread (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--gap", help="pause of a device between two messages, such as 20s..60s (default: none)")
    parser.add_argument("--stay", action="store_true", help="keep shardd and its dashboard until ^C")
    parser.add_argument("--config", type=Path, default=given.config, help="another config file")
    found = parser.parse_args()
    if found.devices < 1 or found.jobs < 1:
        parser.error("--devices and --jobs: 1 or more")
    return Options(**vars(found))


def run(options: Options, console: Console, glimpse: Glimpse | None = None) -> int:
    """Demonstrate; returns the exit status. Raises SharddError, and Stopped."""
    config = load_with_free_port(options.config)
    _start_from_scratch(config)
    console.print("starting shardd and its embedded PostgreSQL …", style="dim")
    with running_daemon(options.config, config):
        return Demonstration(config, options, console, glimpse).run()


def _start_from_scratch(config: Config) -> None:
    folder = config.state_dir
    if config.database is not None:
        raise SharddError("the demonstration needs the embedded PostgreSQL: remove `database:` from its config")
    mine = folder.resolve() == OWN_STATE or (folder / MARK).exists()
    if not mine and folder.is_dir() and any(folder.iterdir()):
        raise SharddError(
            f"{folder} was not created by the demonstration, which would delete it: choose another state_dir"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / MARK).touch()
        with StateLock(folder):
            for entry in folder.iterdir():
                if entry.name in {MARK, "supervisor.lock"}:
                    continue
                if entry.is_symlink():  # root's PostgreSQL, where its account cannot reach this folder
                    shutil.rmtree(entry.resolve().parent, ignore_errors=True)
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
    except OSError as error:
        raise SharddError(
            f"{folder} of an earlier run cannot be deleted: {error.strerror}: {error.filename}"
        ) from error


class Demonstration:
    """With a daemon that runs."""

    def __init__(self, config: Config, options: Options, console: Console, glimpse: Glimpse | None) -> None:
        self._config = config
        self._options = options
        self._console = console
        self._glimpse = glimpse
        self._page = Page(config, console)

    def run(self) -> int:
        """From the first device on; returns the exit status."""
        config, options, console = self._config, self._options, self._console
        self._add_devices()
        console.print(f"{options.devices} sandbox devices, which deliver to nobody, on {config.shards} shards")
        console.print(f"a program that uses only PostgreSQL inserts {options.jobs} jobs")
        self._page.say("to watch this in a browser, open the link, which signs in once, within five minutes:")
        console.print()
        dsn = embedded_dsn(config.state_dir, "producer")
        command = [sys.executable, str(HERE / "demo_producer.py"), dsn]
        arguments = [str(options.devices), str(options.jobs), str(options.seconds)]
        producer = subprocess.Popen([*command, *arguments], start_new_session=True)
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                with Picture(console) as picture:
                    last = self._watch(producer, connection, picture)
                status = _sum_up(config, last, connection, console)
        finally:
            producer.kill()
            producer.wait()
        if options.stay:
            self._stay()
        else:
            console.print("now shardd and its dashboard stop; with --stay they go on until ^C", style="dim")
        return status

    def _add_devices(self) -> None:
        devices, gap = self._options.devices, self._options.gap
        pace = () if gap is None else (f"--gap={gap}",)
        self._shardd("device", "add", "--transport=sandbox", *pace, ids=map("demo-{:04}".format, range(devices)))
        self._shardd("device", "add", "--transport=sandbox", ids=PAUSED)
        self._shardd("device", "pause", "--why=not used by the demonstration", ids=PAUSED)

    def _shardd(self, *words: str, ids: Iterable[str]) -> None:
        command = [str(SHARDD), *words, f"--config={self._options.config}", "-"]
        done = subprocess.run(command, input="\n".join(ids), text=True, capture_output=True, check=False)
        if done.returncode != 0:
            raise SharddError(f"`shardd {' '.join(words)}` failed: {done.stderr.strip()}")

    def _watch(
        self, producer: subprocess.Popen[bytes], connection: psycopg.Connection[Any], picture: Picture
    ) -> Moment:
        """Show progress until every job is finished."""
        jobs = self._options.jobs
        began = changed_at = time.monotonic()
        before: dict[str, int] = {}
        while True:
            inserting = producer.poll() is None
            rows = connection.execute("SELECT state, count(*) FROM shardd.outcomes GROUP BY state").fetchall()
            moment = Moment(jobs, time.monotonic() - began, states=dict(rows), node=status_of(self._config))
            done = not inserting and moment.live == 0
            picture.show(moment, last=done)
            self._page.keep_fresh()
            glimpse = self._glimpse
            if glimpse is not None and (done or moment.states.get("sent", 0) > jobs * glimpse.after):
                self._glimpse = None
                glimpse.look(picture, self._page)
            if done:
                return moment
            if moment.states != before:
                before, changed_at = dict(moment.states), time.monotonic()
            elif self._options.gap is None and time.monotonic() - changed_at > STUCK_AFTER:
                log = self._config.state_dir / "shardd.log"
                raise SharddError(f"nothing has changed for {STUCK_AFTER:.0f} s; see {log}")
            time.sleep(LOOK_EVERY)

    def _stay(self) -> None:
        """Until a signal. Raises SharddError when the daemon ends before."""
        try:
            self._page.say("shardd and its dashboard go on until ^C; another link:")
            while True:
                status_of(self._config)
                self._page.keep_fresh()
                time.sleep(STAY_EVERY)
        except Stopped:
            self._console.print("stopped")


SUMMARY = """
SELECT extract(epoch FROM max(settled_at) - min(created_at)),
       1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM settled_at - created_at)),
       1000 * percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM settled_at - created_at))
FROM shardd.outcomes WHERE settled_at IS NOT NULL
"""


def _sum_up(config: Config, last: Moment, connection: psycopg.Connection[Any], console: Console) -> int:
    row = connection.execute(SUMMARY).fetchone()
    assert row is not None
    seconds, median, slow = (float(value or 0) for value in row)
    node = status_of(config)
    sent = last.states.get("sent", 0)
    delivered = _delivered(config)
    twice = sum(1 for times in delivered.values() if times > 1)
    states = ", ".join(f"{count} {state}" for state, count in sorted(last.states.items())) or "none"
    console.print(f"\n[bold]{last.inserted} jobs[/]: {states}", highlight=False)
    console.print(
        f"{sent / seconds if seconds else 0:.0f} jobs/s over {seconds:.1f} s, from the first insert to the last outcome"
    )
    console.print(f"insert to outcome: half within {median:.0f} ms, 99 % within {slow:.0f} ms")
    for what in ("devices", "sent"):
        counts = [shard[what] for shard in node["shards"]]
        mean = sum(counts) / len(counts)
        console.print(
            f"{what} per shard: {min(counts)} to {max(counts)}, balance (max/mean) {max(counts) / mean if mean else 0:.2f}"
        )
    console.print(f"messages that reached the sandbox: {sum(delivered.values())}, twice: {twice}")
    good = last.inserted == last.wanted == sent == len(delivered) and twice == 0
    console.print(
        "[green]every job was sent exactly once[/]" if good else "[red]not every job was sent exactly once[/]"
    )
    return 0 if good else 1


def _delivered(config: Config) -> Counter[int]:
    """How often each job was delivered to the sandbox, from its own record."""
    times: Counter[int] = Counter()
    for record in sorted((config.state_dir / "sandbox").glob("*.jsonl")):
        with record.open(encoding="utf-8") as lines:
            times.update(json.loads(line)["job"] for line in lines)
    return times


if __name__ == "__main__":
    sys.exit(main())
