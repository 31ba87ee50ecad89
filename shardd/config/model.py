"""The whole config as a frozen model."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, PrivateAttr

from shardd.config.dashboard import DashboardConfig
from shardd.config.events import EventsConfig, WebhookConfig
from shardd.config.fields import Section, named_sections, section, setting
from shardd.config.inbox import InboxConfig
from shardd.config.opt_outs import OptOutsConfig
from shardd.config.pacing import PacingConfig
from shardd.config.sections import (
    ControlConfig,
    DatabaseConfig,
    LeaseConfig,
    LogConfig,
    QueueConfig,
    RetentionConfig,
    SupervisorConfig,
    WorkerConfig,
)
from shardd.config.transports import TransportsConfig
from shardd.config.values import Whole
from shardd.config.values.words import FilePath, NodeName, WebhookName, node_name_from

DB_TIMEOUT: Final = 5.0
"""Seconds: connect and statement deadline for the embedded PostgreSQL, which has no section of its own."""


def default_state_dir(environ: Mapping[str, str]) -> str | None:
    """The state folder when the file does not name one: `$XDG_STATE_HOME/shardd`, else below the home folder, else unknown."""
    state_home = environ.get("XDG_STATE_HOME", "")
    if state_home.startswith("/"):  # the XDG base directory specification ignores a relative one
        return f"{state_home}/shardd"
    home = environ.get("HOME", "")
    return f"{home}/.local/state/shardd" if home.startswith("/") else None


class Config(Section, reload="restart"):
    """Everything that can be configured; made by `shardd.config.load_config`, which also checks `shardd.config.rules`."""

    node: NodeName = setting(
        lambda: node_name_from(socket.gethostname()),
        "Name of this node, different from every other node that uses the database. Default: the host name.",
        sample="# host-a",
    )
    state_dir: Annotated[Path, FilePath()] = setting(
        lambda: Path(default_state_dir(os.environ) or "~/.local/state/shardd").expanduser(),
        "Folder of this host's own state: lock, control socket, journals, the embedded PostgreSQL. It must be on a local "
        "disk and owned by the account that shardd runs as, without write access for others. A relative path starts at the "
        "folder of this file. Default: $XDG_STATE_HOME/shardd or ~/.local/state/shardd.",
        sample="/var/lib/shardd",
    )
    shards: Annotated[int, Whole(1, 256)] = setting(
        "8",
        "Number of worker processes on all hosts together; devices are spread evenly over them. The same number on every host. "
        "About one per core; with more, fewer devices are affected when a worker fails.",
    )
    database: DatabaseConfig | None = Field(
        default=None,
        description="The PostgreSQL server (14 to 18). Without this section, shardd runs an embedded one in state_dir.",
    )
    lease: LeaseConfig = section(
        LeaseConfig,
        "Which node serves which shard, when several share the database. "
        "Required: renew_every + 2 x the longer database timeout <= ttl - margin.",
    )
    supervisor: SupervisorConfig = section(SupervisorConfig, "How workers are started, watched and replaced.")
    worker: WorkerConfig = section(WorkerConfig, "The worker processes, one per shard.")
    queue: QueueConfig = section(QueueConfig, "How jobs are taken from the database.")
    pacing: PacingConfig = section(
        PacingConfig, "How fast each device sends, unless the device has settings of its own."
    )
    opt_outs: OptOutsConfig = section(OptOutsConfig, "How recipients opt out of all further messages.")
    inbox: InboxConfig = section(InboxConfig, "What people write to devices.")
    transports: TransportsConfig = section(TransportsConfig, "The ways in which devices send.")
    events: EventsConfig = section(EventsConfig, "How long events can be read in shardd.events.")
    webhooks: dict[WebhookName, WebhookConfig] = named_sections(
        WebhookConfig,
        "Programs that receive events over HTTP, at least once and with the same id each time: any number, each under a "
        "name of your choice. A new one receives what happens from then on.",
        sample="crm",
    )
    retention: RetentionConfig = section(RetentionConfig, "How long finished jobs and what belongs to them are kept.")
    control: ControlConfig = section(ControlConfig, "How to reach the running shardd.")
    dashboard: DashboardConfig = section(DashboardConfig, "The web page for operators.")
    log: LogConfig = section(LogConfig, "What is logged, to stderr.")

    _source: Path | None = PrivateAttr(default=None)

    @property
    def source(self) -> Path | None:
        """The file that this config was read from."""
        return self._source

    @property
    def control_socket(self) -> Path:
        """Path of the control socket."""
        return self.control.socket or self.state_dir / "control.sock"

    @property
    def connect_timeout(self) -> float:
        """Seconds that a connect to the database may take, the embedded one included."""
        return self.database.connect_timeout if self.database else DB_TIMEOUT

    @property
    def statement_timeout(self) -> float:
        """Seconds that a statement may take, in the embedded database too."""
        return self.database.statement_timeout if self.database else DB_TIMEOUT

    def model_post_init(self, context: Any) -> None:
        """Note where the config came from."""
        self._source = context.get("source") if context else None
