"""A node whose supervisor is still starting: what commands, probes and systemd learn of it meanwhile."""

from __future__ import annotations

import os
import time
from typing import Final

from shardd import __version__
from shardd.config import Config
from shardd.logs import get_logger
from shardd.supervisor.problems import Problem, ProblemKind
from shardd.supervisor.status import Status, Totals
from shardd.supervisor.systemd import Notifier

log = get_logger(__name__)

PATIENCE: Final = 60.0
"""Seconds for which systemd waits after the last sign that the start waits for a person."""


class Starting:
    """The steps of a start."""

    def __init__(self, config: Config, notifier: Notifier) -> None:
        self.step = "reading the state folder"
        """What the start is doing, in words."""
        self.migrated = False
        """The database answers and has the tables of this release."""
        self.problem: Problem | None = None
        """Why it cannot go on."""
        self._config = config
        self._notifier = notifier
        self._began = time.time()
        self._extended = float("-inf")

    def enter(self, step: str) -> None:
        """The start does this now."""
        self.step = step
        self._notifier.status(f"starting: {step}")
        log.debug("starting: %s", step, action="start")

    def report(self, problem: Problem | None) -> None:
        """The start waits because of this, as is to be said again and again; None: it goes on."""
        if problem is not None and self.problem is None:
            self.enter(f"waiting for a person: {problem.text}")
        if problem is not None and time.monotonic() > self._extended + PATIENCE / 4:
            self._extended = time.monotonic()
            self._notifier.extend(PATIENCE)
        self.problem = problem

    def status(self) -> Status:
        """What is known of the node."""
        config, problem = self._config, self.problem
        return Status(
            version=__version__,
            node=config.node,
            pid=os.getpid(),
            state="starting",
            starting=self.step,
            migrated=self.migrated,
            ready=False,
            healthy=False,
            problems=[] if problem is None else [problem.text],
            problem_kinds={kind.value: int(problem is not None and problem.kind is kind) for kind in ProblemKind},
            problems_by_kind={} if problem is None else {problem.kind.value: [problem.text]},
            notes=[],
            started_at=self._began,
            now=time.time(),
            database="embedded" if config.database is None else "not connected yet",
            config=str(config.source) if config.source else None,
            shards=[],
            totals=Totals(**dict.fromkeys(Totals.__struct_fields__, 0)),
            queue=None,
        )
