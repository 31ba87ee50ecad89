"""The whole config as a frozen model."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, PrivateAttr

from shardd.config.events import EventsConfig, WebhookConfig
from shardd.config.fields import Section, named_sections, section, setting
from shardd.config.opt_outs import OptOutsConfig
from shardd.config.pacing import PacingConfig
from shardd.config.retention import RetentionConfig
from shardd.config.sections import (
    ControlConfig,
    DatabaseConfig,
    LeaseConfig,
    LogConfig,
    QueueConfig,
    SupervisorConfig,
    WorkerConfig,
)
from shardd.config.special_values import FilePath, NodeName, node_name_from
from shardd.config.transports import TransportsConfig
from shardd.config.values import Whole
from shardd.config.webhook_values import WebhookName

DB_TIMEOUT: Final = 5.0
"""Seconds: connect and statement deadline for the embedded PostgreSQL, which has no section of its own."""


def default_state_dir(environ: Mapping[str, str]) -> str | None:
    """Where the state goes when the file does not say: `$XDG_STATE_HOME/shardd`, else below the home folder, else unknown."""
    state_home = environ.get("XDG_STATE_HOME", "")
    if state_home.startswith("/"):  # a relative one must be ignored, says the XDG base directory specification
        return f"{state_home}/shardd"
    home = environ.get("HOME", "")
    return f"{home}/.local/state/shardd" if home.startswith("/") else None


class Config(Section):
    """Everything that can be configured; made by `shardd.config.load_config`, which also checks `shardd.config.rules`."""

    node: Annotated[str, NodeName()] = Field(
        default_factory=lambda: node_name_from(socket.gethostname()),
        description="Name of this host among those that share the database: each host its own. Default: the host's name.",
        json_schema_extra={"reload": "restart", "sample": "# host-a"},
    )
    state_dir: Annotated[Path, FilePath()] = Field(
        default_factory=lambda: Path(default_state_dir(os.environ) or "~/.local/state/shardd").expanduser(),
        description="Folder of this node's own state: lock, control socket, journals, the embedded PostgreSQL. On a local disk, "
        "owned by the account that shardd runs as, and writable by nobody else. A relative path starts at the folder of this "
        "file. Default: $XDG_STATE_HOME/shardd or ~/.local/state/shardd.",
        json_schema_extra={"reload": "restart", "sample": "/var/lib/shardd"},
    )
    shards: Annotated[int, Whole(1, 256)] = setting(
        "8",
        "Worker processes over all hosts; devices are spread evenly over them. The same number on every host. About one for "
        "each core, or more so that fewer devices share one worker's fate.",
        reload="restart",
    )
    database: DatabaseConfig | None = Field(
        default=None,
        description="The PostgreSQL server (14 or newer). Without this section shardd runs one of its own in state_dir.",
    )
    lease: LeaseConfig = section(
        LeaseConfig,
        "Which host owns which shard, when several share the database. "
        "Must hold: renew_every + 2 x the longer database timeout <= ttl - margin.",
    )
    supervisor: SupervisorConfig = section(SupervisorConfig, "How workers are started, watched and replaced.")
    worker: WorkerConfig = section(WorkerConfig, "The worker processes, one per shard.")
    queue: QueueConfig = section(QueueConfig, "How jobs are taken from the database.")
    pacing: PacingConfig = section(PacingConfig, "How fast each device sends, unless the device itself says otherwise.")
    opt_outs: OptOutsConfig = section(OptOutsConfig, "How recipients say that they want no more messages.")
    transports: TransportsConfig = section(TransportsConfig, "The ways in which devices send.")
    events: EventsConfig = section(EventsConfig, "How long it can be read in shardd.events what happened.")
    webhooks: dict[Annotated[str, WebhookName()], WebhookConfig] = named_sections(
        WebhookConfig,
        "Programs that are told by HTTP what happened, at least once and with the same id each time: any number, each under a "
        "name of your choice. A new one is told what happens from then on.",
        sample="crm",
    )
    retention: RetentionConfig = section(
        RetentionConfig, "How long what is over can still be looked at, before it is forgotten for good."
    )
    control: ControlConfig = section(ControlConfig, "Where the running shardd can be asked.")
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
