"""Prometheus and promtool: Debian's programs, which ./scripts/test has put beside Python or which are on the PATH."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import yaml

from tests.support.programs import program
from tests.support.servers import free_port

CONFIG: Final = Path(__file__).parents[2] / "config"
ALERTS: Final = CONFIG / "prometheus" / "alerts.yaml"
BOARD: Final = CONFIG / "grafana" / "shardd.json"
PATIENCE: Final = 60.0
LOOK_AGAIN: Final = 0.1
"""Seconds: Prometheus announces nothing."""

Found = TypeVar("Found")


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [program("promtool", "prometheus"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    read = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return [rule for group in read["groups"] for rule in group["rules"]]


@dataclass
class Prometheus:
    """One that scrapes every second, and evaluates its rules as often."""

    folder: Path
    config: Mapping[str, Any]
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns once it answers queries."""
        file = self.folder / "prometheus.yml"
        often = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        file.write_text(yaml.safe_dump({"global": often, **self.config}))
        with self._log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(
                    program("prometheus", "prometheus"),
                    f"--config.file={file}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                ),
                *(f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await until(self._is_ready, bool)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    @property
    def _log(self) -> Path:
        return self.folder / "prometheus.log"

    async def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self._log.read_text()
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}/-/ready") as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientConnectorError:
            return False

    async def get(self, path: str, **params: str) -> Any:
        """What its HTTP API answers; AssertionError for an error."""
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{self.port}") as session,
            session.get(f"/api/v1/{path}", params=params) as answer,
        ):
            read = await answer.json()
        assert read["status"] == "success", (path, params, read)
        return read["data"]

    async def query(self, expr: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Values by their sorted labels."""
        result = (await self.get("query", query=expr))["result"]
        return {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in result}

    async def alerts(self) -> dict[str, list[dict[str, Any]]]:
        """Active alerts, pending ones included, by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for group in (await self.get("rules", type="alert"))["groups"]:
            for rule in group["rules"]:
                assert rule["health"] in ("ok", "unknown"), rule
                found.setdefault(rule["name"], []).extend(rule["alerts"])
        return found


async def until(what: Callable[[], Awaitable[Found]], fine: Callable[[Found], bool]) -> Found:
    """Ask again and again until the answer is fine."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = await what()
        if fine(found):
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(LOOK_AGAIN)
