"""The demonstration: starts a daemon with sandbox devices and a separate producer, shows progress, and prints a summary.

Each run starts from scratch: it deletes the state of an earlier run, which may be of another release. No process is left
running. The state of the last run can be inspected with `shardd start --config=config/demo.yaml`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
from clone_daemon import SHARDD, Stopped, running_daemon, status_of, stop_on_signals
from demo_picture import Moment, Picture
from rich.console import Console

from shardd.config import Config, load_config
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


def main() -> int:
    """Run; returns the exit status."""
    options = _options()
    console = Console()
    stop_on_signals()
    try:
        config = load_config(options.config)
        _start_from_scratch(config)
        console.print("starting shardd and its embedded PostgreSQL …", style="dim")
        with running_daemon(options.config, config):
            return _demonstrate(config, options, console)
    except Stopped:
        console.print("stopped")
        return 130
    except SharddError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./scripts/demo", description=__doc__)
    parser.add_argument("--devices", type=int, default=3000, help="sandbox devices (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=6000, help="rows to insert (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="time over which the inserts are spread (default: %(default)s)"
    )
    parser.add_argument("--config", type=Path, default=HERE.parent / "config" / "demo.yaml", help="another config file")
    parser.add_argument(
        "--svg", type=Path, help="write the picture in the middle of the run to this file, as in the README"
    )
    options = parser.parse_args()
    if options.devices < 1 or options.jobs < 1:
        parser.error("--devices and --jobs: 1 or more")
    return options


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


def _demonstrate(config: Config, options: argparse.Namespace, console: Console) -> int:
    _add_devices(options)
    console.print(f"{options.devices} sandbox devices, which deliver to nobody, on {config.shards} shards")
    console.print(f"a program that uses only PostgreSQL inserts {options.jobs} jobs\n")
    dsn = embedded_dsn(config.state_dir, "producer")
    command = [sys.executable, str(HERE / "demo_producer.py"), dsn]
    arguments = [str(options.devices), str(options.jobs), str(options.seconds)]
    producer = subprocess.Popen([*command, *arguments], start_new_session=True)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            with Picture(console) as picture:
                last = _watch(config, options, producer, connection, picture)
            return _sum_up(config, last, connection, console)
    finally:
        producer.kill()
        producer.wait()


def _add_devices(options: argparse.Namespace) -> None:
    ids = "".join(f"demo-{number:04}\n" for number in range(options.devices))
    command = [str(SHARDD), "device", "add", "--transport=sandbox", f"--config={options.config}", "-"]
    done = subprocess.run(command, input=ids, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise SharddError(f"the devices could not be added: {done.stderr.strip()}")


def _watch(
    config: Config,
    options: argparse.Namespace,
    producer: subprocess.Popen[bytes],
    connection: psycopg.Connection[Any],
    picture: Picture,
) -> Moment:
    """Show progress until every job is finished."""
    began = changed_at = time.monotonic()
    before: dict[str, int] = {}
    to_save: Path | None = options.svg
    while True:
        inserting = producer.poll() is None
        rows = connection.execute("SELECT state, count(*) FROM shardd.outcomes GROUP BY state").fetchall()
        moment = Moment(options.jobs, time.monotonic() - began, states=dict(rows), node=status_of(config))
        done = not inserting and moment.live == 0
        picture.show(moment, last=done)
        if to_save is not None and (done or moment.states.get("sent", 0) > options.jobs / 2):
            picture.save(moment, to_save)
            to_save = None
        if done:
            return moment
        if moment.states != before:
            before, changed_at = dict(moment.states), time.monotonic()
        elif time.monotonic() - changed_at > STUCK_AFTER:
            raise SharddError(f"nothing has changed for {STUCK_AFTER:.0f} s; see {config.state_dir / 'shardd.log'}")
        time.sleep(LOOK_EVERY)


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
