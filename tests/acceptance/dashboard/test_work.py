"""Every page and every answer of the API does a bounded amount of work, on a database with 3,000 devices and 300,000 jobs.

Counted in blocks and rows that PostgreSQL reads, not in seconds: all jobs are in some 16,000 blocks. What is bounded by time
searches one window, and no more.
"""

from __future__ import annotations

import asyncio
import html
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psycopg
import pytest
from aiohttp import ClientResponse, ClientTimeout, web
from benchlib.dashboard_fill import Sizes, fill
from benchlib.dashboard_pages import BROWSER, Address, all_pages

from shardd.config import load_config
from shardd.dashboard import app
from shardd.dashboard.fair_database import FairDatabase
from shardd.dashboard.pages import sign_in
from shardd.queue.acts import Acts
from shardd.queue.database import Database
from shardd.queue.job_admin import JobAdmin
from shardd.queue.job_search import JobSearch
from shardd.queue.job_story import JobStories
from shardd.queue.producers import Bindings, ProducerAdmin
from shardd.queue.sending import Sending
from shardd.supervisor.admin.dashboard import Dashboard
from shardd.transports.whatsapp.sessions.dsn import sessions_dsn
from tests.fixtures.browser import free_port
from tests.fixtures.postgres import TEMPLATE, Cluster
from tests.support.api import PATIENCE, make_token
from tests.support.daemon import Daemon
from tests.support.queue_rows import add_campaigns
from tests.support.statements import SteppingClock
from tests.support.visitor import Visitor, make_link, visitor_of
from tests.support.work import Work, overheard, tell_work

SIZES = Sizes(devices=3000, finished=150_000, live=150_000, opt_outs=2000)
STEP = 0.08
"""Seconds between two looks at the clock: more than a search of a page may take, and most of what a window of a count may."""
MOST = 2500
"""Blocks of a request, and of each statement that goes on in the background."""
MOST_ROWS = 100_000
"""Rows of each statement: no more than of a few windows of 20,000, and fewer than live jobs."""
EXCEPTIONS = {
    # A window of 20,000 ids; of each job that failed, or was sent, what keeps it from the act is looked for in other tables.
    "count_retries": 4000,
    "count_revocations": 12_000,
    # 5,000 jobs, each in a block of its own at worst; the planner may read all live jobs instead, which are in 5,700 blocks.
    "live_jobs_of_campaign": 6000,
    "ended_jobs_of_campaign": 5500,
}
"""Blocks that one statement may touch, beside the others of its request."""
LONG, LONGER = "limit=1000", 10
"""Answers that are ten times as long as others may cost ten times as much."""
ENDLESS = {"/live", "/api/v1/events/stream"}
LIVE = (
    "/live?topic=campaigns:/&topic=campaign:campaign-1&topic=campaign-devices:campaign-1&topic=webhooks&topic=events"
    "&topic=overview-tiles&topic=overview-chart&topic=overview-webhooks"
)
UNCOUNTED = "being counted"
VALUES = {
    "campaign": "campaign-1", "device": "bench-00010", "job": "150010", "message": "1000", "webhook": "old", "act": "cancel",
    "look": "gone", "token": "x", "secret": "x", "problem": "refused", "path": "nothing",
}  # fmt: skip
"""For what is in braces in the path of a route, if no page of the benchmark is of that route."""
OF_BOUND = (
    "/api/v1/jobs",
    "/api/v1/jobs?limit=1000",
    "/api/v1/jobs?before=100000",
    "/api/v1/events",
    "/api/v1/events?limit=1000",
)
QUERIES = {"/jobs/all/{act}/{look}": "?campaign=campaign-1", "/doubts/matching/{look}": "?campaign=campaign-1"}


@dataclass
class Asked:
    """A request, the task that answers it, and what its statements cost."""

    route: str
    path: str
    task: asyncio.Task[Any] | None
    own: list[Work] = field(default_factory=list)
    behind: list[Work] = field(default_factory=list)
    """What went on in tasks that it began."""

    @property
    def faults(self) -> list[str]:
        """What was too much."""
        most = MOST * (LONGER if LONG in self.path else 1)
        own = [work for work in self.own if work.statement not in EXCEPTIONS]
        found = [f"{self.path}: {sorted(own, reverse=True)[:3]}"] if sum(work.blocks for work in own) > most else []
        found += [
            f"{self.path}: {work}" for work in self.own if work.blocks > EXCEPTIONS.get(work.statement, work.blocks)
        ]
        found += [f"{self.path}: {work}" for work in self.own if work.rows > MOST_ROWS]
        much = [
            work for work in self.behind if work.blocks > EXCEPTIONS.get(work.statement, MOST) or work.rows > MOST_ROWS
        ]
        return found + [f"begun by {self.path}: {work}" for work in much]


@dataclass
class Watch:
    """What the dashboard of this process is asked, and what that costs."""

    asked: list[Asked] = field(default_factory=list)
    routes: list[web.RouteDef] = field(default_factory=list)
    _current: ContextVar[Asked] = field(default_factory=lambda: ContextVar("asked"))

    def hear(self, work: Work) -> None:
        """Of a statement that ran just now."""
        if (asked := self._current.get(None)) is not None:
            (asked.own if asyncio.current_task() is asked.task else asked.behind).append(work)

    def all_routes(self, *args: Any) -> list[web.RouteDef]:
        """The routes of the dashboard, each noting what it is asked."""
        self.routes = ALL_ROUTES(*args)
        return [web.RouteDef(one.method, one.path, self._noting(one), one.kwargs) for one in self.routes]

    def _noting(self, route: web.RouteDef) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.asked.append(asked := Asked(route.path, request.path_qs, asyncio.current_task()))
            self._current.set(asked)
            answer: web.StreamResponse = await route.handler(request)
            return answer

        return handle

    @property
    def not_asked(self) -> list[str]:
        """Paths of routes."""
        known = {one.route for one in self.asked}
        paths = [one.path for one in self.routes if one.method == "GET" and not one.path.startswith("/static/")]
        return [one for one in paths if one not in known]


ALL_ROUTES = app.all_routes


@pytest.fixture(scope="module")
def filled(cluster: Cluster) -> Iterator[str]:
    """The database, filled once for all tests of this module."""
    name = cluster.create_database(TEMPLATE)
    with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
        fill(connection, SIZES)
        add_campaigns(cluster.dsn(name), "idle")
        connection.execute("VACUUM (ANALYZE)")
    with cluster.superuser() as superuser:
        tell_work(superuser, name)
    yield name
    cluster.drop_database(name)


@pytest.fixture
def dbname(postgres: Cluster, filled: str) -> str:
    return filled


@pytest.fixture
async def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    daemon = make_daemon(
        dashboard={"listen": f"127.0.0.1:{free_port()}"}, transports={"whatsapp": {"default_region": "DE"}}
    )
    await daemon.start()
    return daemon


@pytest.fixture
async def bound(cluster: Cluster, filled: str, make_role: Callable[..., str]) -> str:
    """A role that is bound to a campaign without any job: for whatever it asks, those of all others are in the way."""
    role = make_role("idle", "shardd_producer", login=False)
    with cluster.superuser() as superuser:
        superuser.execute(f"GRANT {role} TO shardd".encode())
    async with Database(cluster.dsn(filled)) as database:
        await ProducerAdmin(database).bind(role, Bindings((), (), ("idle",)), is_group=False)
    return role


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(app, "FairDatabase", overheard(watch.hear, FairDatabase))
    monkeypatch.setattr(app, "all_routes", watch.all_routes)
    # The daemon made the link, and its key is not known here.
    monkeypatch.setattr(sign_in, "is_marked", lambda *_: True)
    for searching in (Acts, JobSearch, JobStories, JobAdmin, Sending):
        monkeypatch.setattr(searching, "clock", SteppingClock(STEP))
    return watch


async def test_every_page_does_bounded_work(daemon: Daemon, dsn: str, watch: Watch, bound: str) -> None:
    tokens = {may: await make_token(daemon, may, may) for may in ("look", "operate", "send")}
    tokens["bound"] = await make_token(daemon, "bound", "send", f"--role={bound}")
    async with site_here(daemon, dsn) as somebody:

        async def ask(path: str, by: str) -> ClientResponse:
            headers = {"Authorization": f"Bearer {tokens[by]}"} if by in tokens else {}
            return await somebody.get(path, **headers)

        for by in ("send", "bound"):
            await ask("/api/v1/jobs", by)  # the first call of its function reads the catalogue
        watch.asked.clear()
        bound_to_nothing = [Address("", path, "bound") for path in OF_BOUND]
        for page in [*all_pages(SIZES), *bound_to_nothing]:
            answer = await ask(page.path, page.by)
            assert answer.status in {200, 400, 404}, (page.path, await answer.text())
            await count_to_the_end(somebody, await answer.text())
        for path in watch.not_asked:
            if path not in ENDLESS:
                answer = await ask(filled_in(path) + QUERIES.get(path, ""), "look" if "/api/" in path else BROWSER)
                # Of some, there is none with the values here; /pair is for owners of phones, and knows nobody.
                assert answer.status in {200, 303, 410} or "{" in path, (path, await answer.text())
                await count_to_the_end(somebody, await answer.text())
        async with somebody.session.get(somebody.site + LIVE, timeout=ClientTimeout(total=PATIENCE)) as stream:
            until = {"campaigns:/", "campaign:campaign-1", "campaign-devices:campaign-1"}
            while until:
                event = (await stream.content.readuntil(b"\n\n")).decode()
                topic = event.partition("event: ")[2].partition("\n")[0]
                if UNCOUNTED not in event:
                    until.discard(topic)
    assert {*watch.not_asked} < ENDLESS
    faults = [fault for asked in watch.asked for fault in asked.faults]
    assert not faults, "\n".join(faults)


def filled_in(path: str) -> str:
    """The path of a route with a value for each name."""
    return re.sub(r"\{(\w+)(:(?:[^{}]|\{[^{}]*\})*)?\}", lambda name: VALUES[name[1]], path)


async def count_to_the_end(somebody: Visitor, text: str) -> None:
    """As the page of an act does by itself."""
    while (
        more := re.search(r'hx-get="(/(?:jobs/all|campaigns|doubts/matching)/[^"]+)" hx-trigger="load"', text)
    ) is not None:
        text = await (await somebody.get(html.unescape(more[1]))).text()


@asynccontextmanager
async def site_here(daemon: Daemon, dsn: str) -> AsyncIterator[Visitor]:
    """The pages of a daemon, served by this process; somebody is signed in."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    listen = f"127.0.0.1:{listening.getsockname()[1]}"
    setup = Dashboard(load_config(daemon.config_file), dsn, sessions_dsn(dsn))._setup
    setup = msgspec.structs.replace(setup, access=msgspec.structs.replace(setup.access, listen=listen))
    async with app.serve(setup, listening), visitor_of(f"http://{listen}") as somebody:
        await somebody.open_link(await make_link(daemon))
        yield somebody
