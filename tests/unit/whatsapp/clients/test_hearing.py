"""What a client that hears may change in the slot of its device, when a newer client has the slot."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from shardd.transports.whatsapp.clients import visits as visits_module
from shardd.transports.whatsapp.clients.slot import ClientSlot
from shardd.transports.whatsapp.clients.visits import Visits

HANG = 30.0


class Hearing:
    """A client as far as `Visits` hears with it: it has heard all, and its presence takes until a test ends it."""

    alive = True
    failure = None

    def __init__(self, device_id: str = "a") -> None:
        self.device_id = device_id
        self.shows = asyncio.Event()
        self.go_on = asyncio.Event()

    async def heard_all(self) -> None:
        """At once."""

    async def explained(self) -> None:
        """It has not failed."""


@pytest.fixture(autouse=True)
def presence(monkeypatch: pytest.MonkeyPatch) -> None:
    async def show_presence(client: Hearing, timeout: float) -> str | None:
        client.shows.set()
        await client.go_on.wait()
        return None

    monkeypatch.setattr(visits_module, "show_presence", show_presence)


class Seen:
    """Receives what is reported."""

    def __init__(self) -> None:
        self.visits: asyncio.Queue[tuple[str, bool, str | None]] = asyncio.Queue()

    def visited(self, device_id: str, *, online: bool, presence: bool = False, note: str | None = None) -> None:
        self.visits.put_nowait((device_id, online, note))


def make_visits(events: Seen) -> Visits:
    settings: Any = SimpleNamespace(max_connecting=2, visit_every=60.0, answer_timeout=HANG)
    return Visits(settings, events, over=lambda: None)  # type: ignore[arg-type]  # only `visited`


async def test_an_older_client_leaves_the_visit_of_a_newer_one_alone() -> None:
    seen = Seen()
    visits = make_visits(seen)
    slot, older, newer = ClientSlot("a"), Hearing(), Hearing()
    visits.attend(slot, older)  # type: ignore[arg-type]
    async with asyncio.timeout(HANG):
        await older.shows.wait()
        visits.attend(slot, newer)  # type: ignore[arg-type]
        slot.visited_since = 5.0
        older.go_on.set()
        reports = [await seen.visits.get() for _ in range(3)]
        assert reports == [("a", True, None)] * 3, "two logins, and what the older one heard"
        assert (slot.attended, slot.visited_since) == (newer, 5.0)
        newer.go_on.set()
        assert await seen.visits.get() == ("a", True, None)
        await visits.end()
    assert (slot.attended, slot.visited_since, slot.used_at) == (None, None, 5.0)


async def test_a_defect_while_a_client_hears_is_reported_as_a_failed_visit() -> None:
    class Broken(Hearing):
        async def heard_all(self) -> None:
            raise RuntimeError("a defect")

    seen = Seen()
    visits = make_visits(seen)
    visits.attend(ClientSlot("a"), Broken())  # type: ignore[arg-type]
    async with asyncio.timeout(HANG):
        assert await seen.visits.get() == ("a", True, None)
        assert await seen.visits.get() == ("a", False, "unexpected: RuntimeError: a defect")


async def test_a_login_for_a_send_is_reported_before_all_is_heard_and_one_for_a_visit_is_not() -> None:
    class Slow(Hearing):
        def __init__(self) -> None:
            super().__init__()
            self.hears = asyncio.Event()

        async def heard_all(self) -> None:
            await self.hears.wait()

    seen = Seen()
    visits = make_visits(seen)
    sends, visited = Slow(), Slow()
    visits.attend(ClientSlot("sends"), sends)  # type: ignore[arg-type]
    assert seen.visits.get_nowait() == ("sends", True, None)

    slot = ClientSlot("visited")

    async def log_in() -> Any:
        visits.attend(slot, visited)  # type: ignore[arg-type]  # as the pool does after each login
        return visited

    async with asyncio.timeout(HANG):
        await visits.open(log_in(), late=False)
        assert seen.visits.empty(), "it was opened to hear, and has heard nothing"
        visited.hears.set()
        visited.go_on.set()
        assert await seen.visits.get() == ("visited", True, None)
        await visits.end()
