"""The section `dashboard`: the web page for operators."""

from __future__ import annotations

from shardd.config.fields import Section, setting
from shardd.config.values.network import DashboardAddress


class DashboardConfig(Section, reload="restart"):
    """The web page for operators."""

    listen: DashboardAddress | None = setting(
        "127.0.0.1:8484",
        "Address of the page: an address of this host and a port. Its process is started by the first request. Sign in with the "
        "link of `shardd dashboard link`. null: there is none.",
    )
