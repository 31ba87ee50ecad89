"""One shard: its state, its process, and when it may be started again.

The states and their transitions are in `shardd.states.SHARD_TRANSITIONS`; this module knows when each event happens.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from shardd.backoff import Breaker, full_jitter
from shardd.config import SupervisorConfig
from shardd.logs import get_logger
from shardd.states import ALONE_FROM, SHARD_TRANSITIONS, ShardState
from shardd.supervisor.workers.process import CLOSE_GRACE, WorkerProcess

log = get_logger(__name__)

RATE_WINDOW: Final = 10.0
"""Seconds over which the messages per second are averaged."""

LATELY: Final = 3600.0
"""Seconds for which the death of a worker is shown."""

Intent = Literal["drained", "stop", "respawn", "fence"]


@dataclass(slots=True)
class Shard:
    """What the supervisor knows about a shard."""

    index: int
    config: SupervisorConfig
    breaker: Breaker = field(init=False)
    state: ShardState = ShardState.WAITING
    epoch: int | None = None
    """Of this node's lease; None: it has none."""
    process: WorkerProcess | None = None
    intent: Intent | None = None
    """Why the worker is being drained."""
    outgrows: bool = False
    """Its worker is being drained because it grew too large."""
    worker_ending: bool = False
    """Its worker got SIGTERM, is out of sync or without a lease, and about to end: what it has in flight is not the cause."""
    sent_before: deque[int] = field(default_factory=lambda: deque([0], maxlen=ALONE_FROM + 1))
    """How many messages the shard had sent when each of its last workers started."""
    outgrown: deque[float] = field(default_factory=lambda: deque(maxlen=100))
    """When workers were replaced because they grew too large, on the monotonic clock."""
    clean: bool = True
    """Everything of the last worker is settled, so a new one may begin a new journal."""
    unsettled: str | None = None
    """Why the journal of its last worker cannot be read, so nothing is settled yet; it is tried again."""
    blocked: str | None = None
    """Why what an earlier supervisor left behind cannot be settled, so no worker may start; None: it is settled."""
    held: bool = False
    """Drained by an operator: it stays down until it is restarted."""
    crashes_in_a_row: int = 0
    restarts: int = 0
    deaths: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=100))
    """When its last workers died unrequested, in POSIX seconds, and how."""
    hangs: str | None = None
    """Why its worker is being ended although nobody asked for that; None: it is not."""
    ran: bool = False
    """Whether one of its workers has taken jobs."""
    next_start: float = 0.0
    kill_at: float | None = None
    hard_deadline: float | None = None
    """When its worker is ended because the lease was not renewed, on `shardd.clock`; None: it was."""
    last_error: str | None = None
    journal_error: str | None = None
    """Why its worker's journal takes no entries, so nothing may be handed over; None: it does."""
    spool_error: str | None = None
    """Why its worker cannot write incoming messages to the disk; None: it can."""
    since: float = field(default_factory=time.time)
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        """Make the breaker."""
        breaker = self.config.breaker
        self.breaker = Breaker(crashes=breaker.crashes, within=breaker.within, probe_every=breaker.probe_every)

    def configure(self, config: SupervisorConfig) -> None:
        """The config was reloaded."""
        self.config = config
        self.breaker.crashes, self.breaker.within = config.breaker.crashes, config.breaker.within
        self.breaker.probe_every = config.breaker.probe_every

    def move(self, event: str) -> None:
        """Take a transition. KeyError: the table has none, a defect."""
        before, self.state = self.state, SHARD_TRANSITIONS[self.state][event]
        self.since = time.time()
        log.info("shard is %s", self.state.value, action="shard", shard=self.index, before=before.value, cause=event)

    def may_start(self, now: float) -> bool:
        """Whether a worker should be started now."""
        return (
            self.process is None
            and self.clean
            and self.blocked is None
            and not self.held
            and self.epoch is not None
            and self.state in (ShardState.WAITING, ShardState.BACKOFF, ShardState.BROKEN, ShardState.DRAINED)
            and now >= self.next_start
        )

    def spawned(self, process: WorkerProcess) -> None:
        """A worker was started."""
        self.process, self.clean, self.kill_at, self.intent = process, False, None, None
        self.hard_deadline = None
        self.outgrows = self.worker_ending = False
        self.hangs = None
        self.journal_error = None
        self.move("spawn")

    def ready(self) -> None:
        """Its worker takes jobs."""
        if self.state is ShardState.STARTING:
            self.move("ready")
            self.ran, self.last_error = True, None

    def drain(self, intent: Intent, timeout: float, now: float) -> None:
        """Its worker was told to finish; it is killed `timeout` seconds and `CLOSE_GRACE` later."""
        if self.state in (ShardState.STARTING, ShardState.RUNNING):
            self.move("drain")
        self.intent = intent
        self.kill_at = now + timeout + CLOSE_GRACE

    def wind_down(self, hard: float) -> None:
        """Its lease was not renewed: its worker was told to finish, and is ended at this moment of `shardd.clock`."""
        if self.state in (ShardState.STARTING, ShardState.RUNNING):
            self.move("drain")
        self.intent, self.hard_deadline = "fence", hard

    def died(self, how: str, *, now: float) -> None:
        """Its worker is gone."""
        self.process, self.journal_error, self.spool_error = None, None, None
        self._samples.clear()
        intent, self.intent = self.intent, None
        hangs, self.hangs = self.hangs, None
        if intent == "fence" or self.epoch is None:
            self._waits("fence")
            return
        if self.state is ShardState.DRAINING:
            self.move(intent or "respawn")
            self.next_start = now
            return
        # Unrequested, so it counts as a crash whatever the exit code: a worker that always ends at once must not spin.
        self.restarts += 1
        self.crashes_in_a_row += 1
        self.deaths.append((time.time(), how if hangs is None else f"{hangs}: ended by {how}"))
        self.last_error = f"worker died: {self.deaths[-1][1]}"
        self.move("died")
        self.next_start = now + full_jitter(self.crashes_in_a_row, self.config.backoff.first, self.config.backoff.cap)
        log.error("worker died", action="crash", shard=self.index, how=how, again_in=round(self.next_start - now, 1))

    def prepared_alone(self, what: str) -> None:
        """Its last worker died while it prepared nothing but this."""
        if self.deaths:
            at, how = self.deaths.pop()
            self.deaths.append((at, f"{how}, while it prepared {what} alone"))
            self.last_error = f"worker died: {self.deaths[-1][1]}"

    def deaths_lately(self) -> list[tuple[float, str]]:
        """Those of its workers that died within the last hour."""
        since = time.time() - LATELY
        return [death for death in self.deaths if death[0] >= since]

    @property
    def dies_by_itself(self) -> bool:
        """Whether its worker ends unrequested, or because it grew too large: then a job may be the cause."""
        requested = self.intent is not None and not self.outgrows
        return self.epoch is not None and not requested and not self.worker_ending

    @property
    def careful(self) -> bool:
        """Whether its next worker takes one job at a time, because the last ones died."""
        return self.crashes_in_a_row >= ALONE_FROM

    def count_crash(self, now: float) -> None:
        """Its worker's death counts for the breaker: too many stop the shard."""
        if self.breaker.crashed(now) and self.state is ShardState.BACKOFF:
            self.move("broke")
            self.next_start = self.breaker.next_probe() or now

    def discount_crash(self) -> None:
        """A known job caused its worker's death: the backoff does not grow."""
        self.crashes_in_a_row = max(0, self.crashes_in_a_row - 1)

    def reset(self, now: float) -> None:
        """An operator restarts it: reset breaker, backoff and hold."""
        self.breaker.healthy()
        self.crashes_in_a_row, self.next_start, self.held = 0, now, False

    def reset_if_stable(self, now: float) -> None:
        """Forget earlier crashes once its worker has run long enough."""
        process = self.process
        if not self.crashes_in_a_row or process is None or process.ready_at is None:
            return
        if now - process.ready_at >= self.config.backoff.reset_after:
            self.crashes_in_a_row = 0
            self.breaker.healthy()

    def watch(self, now: float) -> None:
        """End its worker if that is overdue or hangs."""
        process, config = self.process, self.config
        if process is None:
            return
        silent = process.silence.look()
        if self.kill_at is not None and now > self.kill_at:
            process.kill()
        elif self.state is ShardState.STARTING and silent > config.start_timeout:
            self.hangs = f"not ready within {config.start_timeout:g} s"
            process.abort()
        elif self.state is ShardState.RUNNING and silent > config.heartbeat_timeout:
            self.hangs = f"no heartbeat for {config.heartbeat_timeout:g} s"
            process.abort()
        elif self.state is ShardState.RUNNING:
            self.reset_if_stable(now)

    def sample(self, now: float, sent: int) -> None:
        """Record how many messages were sent so far, for `rate`."""
        self._samples.append((now, sent))
        while self._samples[0][0] < now - RATE_WINDOW:
            self._samples.popleft()

    def rate(self) -> float:
        """Messages per second, recently."""
        if len(self._samples) < 2:
            return 0.0
        (first, before), (last, after) = self._samples[0], self._samples[-1]
        return (after - before) / (last - first) if last > first else 0.0

    def _waits(self, event: str) -> None:
        if event in SHARD_TRANSITIONS[self.state]:
            self.move(event)


def down_states(shards: Iterable[Shard]) -> dict[int, str]:
    """The states of those of these shards that are this node's and take no jobs."""
    down = (shard for shard in shards if shard.epoch is not None and shard.state is not ShardState.RUNNING)
    return {shard.index: shard.state.value for shard in down}
