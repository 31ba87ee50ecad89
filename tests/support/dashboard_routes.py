"""What the dashboard answers, from its own table: for tests that go through all of it."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from shardd.config import load_config
from shardd.dashboard.api.api import Api
from shardd.dashboard.app import all_routes
from shardd.dashboard.campaign_numbers import CampaignNumbers
from shardd.dashboard.linking import Linking
from shardd.dashboard.live import Live
from shardd.dashboard.site import Site
from shardd.dashboard.supervisor_client import SupervisorClient
from shardd.pairing.context import session_settings
from shardd.queue.database import Database
from shardd.supervisor.admin.dashboard import Access


def dashboard_routes(config_file: Path) -> list[web.RouteDef]:
    """The routes; nothing behind them runs."""
    database = Database("")
    site = Site("test", database, SupervisorClient(config_file), Access(listen=""), b"")
    numbers = CampaignNumbers(database, site.supervisor)
    return all_routes(
        site,
        Live(database, database, site.sign_ins.lasts),
        numbers,
        Api(site, database, numbers),
        Linking(session_settings(load_config(config_file), ""), database, lambda: database),
    )
