"""The routes of the site, and its life: from the listening socket to the end of the process."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from shardd.dashboard import static_files
from shardd.dashboard.api import jobs as jobs_of_programs
from shardd.dashboard.api.api import Api
from shardd.dashboard.api.serving import is_of_api, refused_name
from shardd.dashboard.campaign_numbers import CampaignNumbers
from shardd.dashboard.fair_database import LANE, FairDatabase
from shardd.dashboard.linking import Linking
from shardd.dashboard.live import Live
from shardd.dashboard.pages import (
    account,
    audit,
    campaigns,
    devices,
    doubts,
    events,
    inbox,
    job,
    jobs,
    opt_outs,
    overview,
    pairing,
    phones,
    shards,
    sign_in,
    streams,
    webhooks,
)
from shardd.dashboard.site import CURRENT, HEADERS, Site, failure
from shardd.dashboard.supervisor_client import SupervisorClient
from shardd.dashboard.throttle import block_of
from shardd.errors import SharddError
from shardd.logs import get_logger
from shardd.queue.database import Database
from shardd.supervisor.admin.dashboard import DashboardSetup
from shardd.supervisor.http_listener import Handler, Listener

log = get_logger(__name__)

Configure = Callable[[DashboardSetup], None]

MOST: Final = 448
"""Connections at once; an open page has one, and a browser up to six while it loads. More than all requests of users and tokens,
and all streams, can keep (`site.AT_ONCE`, `serving.AT_ONCE`, `live.MOST`): some are left for who signs in."""
PATIENCE: Final = 10.0
"""Seconds in which a browser must have sent its request, or have taken its answer."""
MAX_BODY: Final = 1 << 20
"""Bytes of a request."""
CONNECTIONS: Final = 4
"""To the database, for all who look; others are for programs that send, once there are any."""
OF_ONE: Final = 2
"""Those of one user or token at a time. A count of a campaign may take one for long, and one is left."""
KEPT: Final = 1
"""Those for users and tokens that have none: two that ask slowly do not have all."""
LOCK_TIMEOUT: Final = 3.0
"""Seconds that an act waits for another transaction's lock."""
PAIRING_TIMEOUT: Final = 60.0
"""Seconds for a statement of a pairing."""


@asynccontextmanager
async def serve(setup: DashboardSetup, listening: socket.socket) -> AsyncGenerator[Configure]:
    """Serve the site during the block, which gets what is called with a new setup."""
    database = _database(setup, "dashboard", kept=KEPT)
    site = Site(setup.node, database, SupervisorClient(Path(setup.control_socket)), setup.access, setup.links_key)
    # Not `open`, which fails while the database does not answer: the pages say so, and the pool tries again.
    await database.pool.open()
    most = jobs_of_programs.CONNECTIONS
    sending = _database(setup, "api", min_size=0, max_size=most, most_of_one=most - 1)
    await sending.pool.open()
    live = Live(database, _listening(setup), site.sign_ins.lasts)
    numbers = CampaignNumbers(database, site.supervisor)
    api = Api(site, sending, numbers)
    pairing = partial(_database, setup, "pairing", most_of_one=CONNECTIONS, patience=PAIRING_TIMEOUT)
    linking = Linking(setup.sessions, database, pairing)

    def configure(setup: DashboardSetup) -> None:
        site.configure(setup.access)
        linking.settings = setup.sessions

    listener = Listener("dashboard", [], most=MOST, patience=PATIENCE, max_body=MAX_BODY, refuse=_refusal)
    listener.add(_with_headers(site, listener, all_routes(site, live, numbers, api, linking)))
    try:
        await listener.listen(listening)
        yield configure
    finally:
        await live.close()
        await numbers.close()
        await site.looks.close()
        await linking.close()
        await api.close()
        await listener.close()
        await site.audit.close()
        await sending.close()
        await database.close()


def all_routes(site: Site, live: Live, numbers: CampaignNumbers, api: Api, linking: Linking) -> list[web.RouteDef]:
    """Every path that is answered, whoever asks."""
    return [
        *static_files.routes(),
        *sign_in.routes(site),
        *account.routes(site),
        *audit.routes(site, live),
        *overview.routes(site, live),
        *shards.routes(site),
        *streams.routes(site, live),
        *events.routes(site, live),
        *campaigns.routes(site, live, numbers),
        *opt_outs.routes(site),
        *inbox.routes(site, live),
        *webhooks.routes(site, live),
        *devices.routes(site),
        *jobs.routes(site),
        *job.routes(site),
        *doubts.routes(site),
        *phones.routes(site, linking),
        *pairing.routes(site, linking),
        *api.routes(),
        *site.missing(),
    ]


def _listening(setup: DashboardSetup) -> Database:
    """For the one connection that listens to notifications, while somebody watches."""
    return Database(
        setup.dsn,
        application_name=f"shardd/{setup.node}/dashboard",
        connect_timeout=setup.connect_timeout,
        statement_timeout=setup.statement_timeout,
    )


def _database(
    setup: DashboardSetup,
    what: str,
    *,
    min_size: int = 1,
    max_size: int = CONNECTIONS,
    most_of_one: int = OF_ONE,
    kept: int = 0,
    patience: float | None = None,
) -> Database:
    """`patience`: seconds for a statement, if not as configured."""
    return FairDatabase(
        setup.dsn,
        application_name=f"shardd/{setup.node}/{what}",
        connect_timeout=setup.connect_timeout,
        statement_timeout=patience or setup.statement_timeout,
        min_size=min_size,
        max_size=max_size,
        most_of_one=most_of_one,
        kept=kept,
        session=False,
        lock_timeout=LOCK_TIMEOUT,
    )


def _refusal(status: int, why: str) -> web.Response:
    """The answer to what is no request for any page: nothing is known of who sent it, and what they would read."""
    answer = web.Response(text=f"{why[:1].upper()}{why[1:]}.\n", status=status, headers=HEADERS)
    answer.force_close()
    return answer


def _with_headers(site: Site, listener: Listener, routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """The routes, with the headers that every answer has, and errors in words for people."""

    def wrap(handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            CURRENT.set(request)
            LANE.set(f"address {block_of(site.address_of(request))}")  # until it is known who asks
            with listener.working_when_whole(request):
                answer = await _answer(site, handler, request)
            if not answer.prepared:
                for name, value in HEADERS.items():
                    answer.headers.setdefault(name, value)
            return answer

        return handle

    return [web.RouteDef(route.method, route.path, wrap(route.handler), route.kwargs) for route in routes]


async def _answer(site: Site, handler: Handler, request: web.Request) -> web.StreamResponse:
    if (name := site.gate.asks_for_another(request)) is not None:
        words = f"This page is not {name}. If it should be, set dashboard.origin, such as http://{name}."
        return refused_name(words) if is_of_api(request) else site.sorry(None, 421, words)
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        answer = site.sorry(None, 413, f"The request is larger than {MAX_BODY >> 20} MiB.")
        answer.force_close()
        return answer
    except web.HTTPException as error:
        return site.sorry(None, error.status, f"{error.reason}.")
    except SharddError as error:
        return site.sorry(None, *failure(error))
    except (ConnectionError, web.RequestPayloadError):
        raise  # nobody is there to read an answer
    except Exception as error:  # a defect of ours
        log.exception("a request failed", action="request_failed", listener="dashboard", error=error)
        return site.sorry(None, 500, "This is a defect of shardd; its log has the details.")
