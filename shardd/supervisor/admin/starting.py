"""A node whose supervisor is still starting: what commands, probes and systemd learn of it meanwhile."""

from __future__ import annotations

import os
import time

from shardd import __version__
from shardd.config import Config
from shardd.logs import get_logger
from shardd.supervisor.problems import ProblemKind
from shardd.supervisor.status import Status, Totals
from shardd.supervisor.systemd import Notifier

log = get_logger(__name__)


class Starting:
    """The steps of a start."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        self.step = "reading the state folder"
        """What the start is doing, in words."""
        self.migrated = False
        """The database answers and has the tables of this release."""
        self._config = config
        self._notifier = notifier
        self._began = time.time()

    def enter(self, step: str) -> None:
        """The start does this now."""
        self.step = step
        self._notifier.status(f"starting: {step}")
        log.debug("starting: %s", step, action="start")

    def status(self) -> Status:
        """What is known of the node."""
        config = self._config
        return Status(
            version=__version__,
            node=config.node,
            pid=os.getpid(),
            state="starting",
            starting=self.step,
            migrated=self.migrated,
            ready=False,
            healthy=False,
            problems=[],
            problem_kinds={kind.value: 0 for kind in ProblemKind},
            problems_by_kind={},
            notes=[],
            started_at=self._began,
            now=time.time(),
            database="embedded" if config.database is None else "not connected yet",
            config=str(config.source) if config.source else None,
            shards=[],
            totals=Totals(**dict.fromkeys(Totals.__struct_fields__, 0)),
            queue=None,
        )
