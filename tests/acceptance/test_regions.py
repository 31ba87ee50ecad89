"""The page about regions, carried out: two databases, a daemon on each, and what the page's blocks do with them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import PATIENCE, PROGRAM, Command, Ran
from tests.support.daemon import Daemon, Producer
from tests.support.guide import Block, blocks

NAMES = ("europe", "asia")
DEVICES = {"europe": "berlin-1", "asia": "jakarta-1"}


@dataclass(frozen=True)
class Region:
    """One of them: its database, and the node that serves it."""

    name: str
    daemon: Daemon
    producer: Producer
    config: Path

    def states(self) -> dict[str, int]:
        return dict(self.producer.states())


class Regions:
    """Both, with a folder that stands for /etc/shardd, and the directory of devices."""

    def __init__(self, folder: Path, regions: dict[str, Region], directory: str) -> None:
        self.folder = folder
        self.regions = regions
        self.directory = directory
        self.shardd = Command(regions["europe"].config)

    def __getitem__(self, name: str) -> Region:
        return self.regions[name]

    async def start(self) -> None:
        """Start both, and wait until each has told its database that its workers run."""
        for region in self.regions.values():
            await region.daemon.start()
        deadline = time.monotonic() + PATIENCE
        while (ran := await self.all_of_both()).code != 0:
            assert time.monotonic() < deadline, ran.out
            await self["europe"].daemon.wait_change()

    async def all_of_both(self) -> Ran:
        return await self.shardd("cluster", "list", *(f"--config={region.config}" for region in self.regions.values()))

    def execute(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """In the directory."""
        return Producer(self.directory).execute(statement, *params)

    def run(self, block: Block) -> str:
        """What a block of the page prints; it succeeds."""
        text = block.text.replace("/etc/shardd", shlex.quote(str(self.folder)))
        if block.language == "sql":
            assert block.value in ("directory", "shardd")
            where = self.execute if block.value == "directory" else self["europe"].producer.execute
            return str(where(text))
        if block.language == "yaml":
            (self.folder / "checked.yaml").write_text(text)
            text = f"ASIA_DB_PASSWORD=correct-horse shardd config check {self.folder}/checked.yaml"
        command = ["bash", "-euo", "pipefail", "-c", text]
        if block.language == "python":
            (self.folder / "program.py").write_text(text)
            command = [sys.executable, str(self.folder / "program.py")]
        path = os.pathsep.join([str(PROGRAM.parent), os.environ["PATH"]])
        ran = subprocess.run(
            command,
            env={**self.shardd.environ, "PATH": path, "DIRECTORY_URL": self.directory},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, ""), f"{block.name}: {ran.stdout}\n{ran.stderr}"
        return ran.stdout


@pytest.fixture
def regions(make_daemon: Callable[..., Daemon], dsn: str, other_dsn: str, empty_dsn: str, tmp_path: Path) -> Regions:
    """The daemons are not started; each region has one device of the sandbox."""
    made = {}
    for name, database in zip(NAMES, (dsn, other_dsn), strict=True):
        daemon = make_daemon(node=f"{name}-1", database={"dsn": database}, lease={"renew_every": "500ms"})
        daemon.write_config()
        config = tmp_path / f"{name}.yaml"
        config.write_bytes(daemon.config_file.read_bytes())
        made[name] = Region(name, daemon, Producer(database), config)
        made[name].producer.execute("INSERT INTO shardd.devices (id, transport) VALUES (%s, 'sandbox')", DEVICES[name])
    return Regions(tmp_path, made, empty_dsn)


async def test_the_page_is_carried_out(regions: Regions) -> None:
    await regions.start()
    europe, asia = regions["europe"], regions["asia"]
    page = iter([block for block in blocks("regions") if block.runs])

    regions.run(next(page))

    first, second = next(page).text.rstrip().rsplit("\n", 1)
    regions.execute(first)
    for region in regions.regions.values():
        regions.execute("INSERT INTO regions VALUES (%s, %s)", region.name, region.producer.dsn)
    regions.execute(second)

    program = next(page)
    regions.run(program)
    assert await asia.producer.until_finished(asia.daemon, 1) == {"sent": 1}
    assert europe.states() == {}

    for region in regions.regions.values():
        await region.daemon.until(
            lambda s: sum(sum(node["devices"].values()) for node in s["nodes"] if node["devices"]) == 1
        )
    shown = regions.run(next(page))
    for words in ("europe-1", "asia-1", "2 regions: 2 of 2 devices can send"):
        assert words in shown

    europe.producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+4915112345678')")
    copies = regions.run(next(page))
    assert copies == "".join(
        f"added {new} to {name}\n"
        for new, name in (
            ("1 opt-out", "asia"),
            ("0 opt-outs", "europe"),
            ("0 opt-outs", "asia"),
            ("0 opt-outs", "europe"),
        )
    )

    moved = regions.run(next(page))
    assert moved == "moved device berlin-1 to asia; lead the programs that insert for it there\n"
    assert europe.producer.execute("SELECT removed_at IS NULL FROM shardd.devices") == [(False,)]
    for_the_moved = replace(program, text=program.text.replace("jakarta-1", "berlin-1"))
    with pytest.raises(AssertionError, match=r"psycopg\.errors\.ForeignKeyViolation: .*berlin-1.* is removed"):
        regions.run(for_the_moved)
    regions.run(next(page))
    regions.run(for_the_moved)
    assert await asia.producer.until_finished(asia.daemon, 2) == {"sent": 2}

    assert int(regions.run(next(page)).strip("[](,)")) > 0
    assert next(page, None) is None


async def test_a_region_that_does_not_answer_takes_nothing_from_the_others(regions: Regions) -> None:
    await regions.start()
    ran = await regions.all_of_both()
    assert (ran.code, ran.err) == (0, "")
    asia = regions["asia"]
    nowhere = "postgresql://shardd@127.0.0.1:1/shardd"
    asia.config.write_text(asia.config.read_text().replace(asia.producer.dsn, nowhere))
    ran = await regions.all_of_both()
    assert (ran.code, ran.err) == (1, "")
    assert "europe-1" in ran.out
    assert "asia: no answer: " in ran.out
    assert "2 regions (1 unknown): " in ran.out
    configs = [f"--config={region.config}" for region in regions.regions.values()]
    found = (await regions.shardd("cluster", "list", "--json", *configs)).json["regions"]
    assert [(one["config"], one["error"] is None, one["healthy"]) for one in found] == [
        (str(regions["europe"].config), True, True),
        (str(asia.config), False, False),
    ]
    assert [node["name"] for node in found[0]["nodes"]] == ["europe-1"]
    assert await regions["europe"].daemon.stop() == 0
    assert "europe: moves: free → nobody: 0-1" in (await regions.all_of_both()).out
