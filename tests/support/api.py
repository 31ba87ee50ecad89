"""A program that asks a daemon's dashboard by JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.support.command import Command
from tests.support.daemon import Daemon

PATIENCE = 60.0
"""Seconds after which a test fails because an answer does not come."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def problem(self) -> str:
        """The name of the problem."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        assert self.json["status"] == self.status
        assert self.json["detail"]
        return str(self.json["type"]).rpartition("/")[2]


@dataclass
class Program:
    """Has a token, and asks."""

    site: str
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    _session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE))
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """`body`: sent as JSON, or as it is if it is bytes. `options`: of aiohttp."""
        assert self._session is not None
        headers = dict(self.headers) | options.pop("headers", {})
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
            options["data"] = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._session.request(method, f"{self.site}{path}", headers=headers, **options) as answer:
            return Answer(answer.status, dict(answer.headers), await answer.text())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", f"/api/v1{path}", **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.ask("POST", f"/api/v1{path}", body, **options)


async def make_token(daemon: Daemon, name: str, may: str, *options: str) -> str:
    """By the command line."""
    ran = await Command(daemon.config_file)("token", "add", name, f"--may={may}", *options)
    assert ran.code == 0, ran.err
    return ran.out.strip()


def site_of(daemon: Daemon) -> str:
    return f"http://{daemon.settings['dashboard']['listen']}"
