"""Reload of the config file while the node runs.

Each field declares what a change takes (`shardd.config.Reload`): nothing, a restart of the shards (one after the other), or a
restart of the daemon. Fields of the last kind keep their old value until then, and `status` shows that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from shardd.config import Config, diff_config, load_config
from shardd.errors import ConfigError, SharddError, UsageError
from shardd.logs import get_logger, set_log_level
from shardd.supervisor.scheduling.current_config import CurrentConfig
from shardd.supervisor.services import Service
from shardd.supervisor.systemd import Notifier

log = get_logger(__name__)

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """What to do."""

    config: Config
    changed: list[str]
    notes: list[str]
    """Changes that wait for a restart of the daemon."""
    restart_shards: bool


def plan_reload(old: Config, new: Config) -> ReloadPlan:
    """Compare. Fields that need a restart of the daemon keep the value that it was started with."""
    changes = diff_config(old, new)
    late = [change for change in changes if change.reload == "restart"]
    kept = new
    for change in late:
        kept = _with_old(kept, old, change.field.split("."))
    return ReloadPlan(
        config=kept,
        changed=list(dict.fromkeys(change.words for change in changes if change.reload != "restart")),
        notes=[f"{change.words} takes effect with a restart of shardd" for change in late],
        restart_shards=any(change.reload == "shard" for change in changes),
    )


def _with_old(new: Model, old: Model, path: list[str]) -> Model:
    """A copy of `new` that has the old value at the path."""
    name, *rest = path
    value = getattr(old, name)
    inner = getattr(new, name)
    if rest and isinstance(inner, BaseModel) and isinstance(value, BaseModel):
        value = _with_old(inner, value, rest)
    return new.model_copy(update={name: value})


class Reload(Service):
    """Reads the config file again, when `asked` is set (by a signal) or `reload` is called."""

    def __init__(
        self,
        current: CurrentConfig,
        notifier: Notifier,
        asked: asyncio.Event,
        *,
        apply: Callable[[Config], None],
        held: Callable[[], Iterable[int]],
        restart: Callable[[int], Awaitable[None]],
    ) -> None:
        """`apply`: passes the new config on; `held`: the shards of this node; `restart`: a shard, raises SharddError."""
        self._current = current
        self._notifier = notifier
        self._apply = apply
        self._held = held
        self._restart = restart
        self._asked = asked
        self._one_at_a_time = asyncio.Lock()
        self._notes: list[str] = []

    def notes(self) -> list[str]:
        """What a person should know about the last reload."""
        return self._notes

    async def serve(self) -> None:
        """Reload when asked."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            try:
                await self.reload()
            except SharddError as error:
                # A refused file has been logged.
                if not isinstance(error, ConfigError):
                    log.error("reload failed", action="reload", error=str(error))

    async def reload(self) -> list[str]:
        """Reload now; returns what changed, in words. Raises SharddError; with a ConfigError nothing has changed."""
        async with self._one_at_a_time:
            plan = self._read()
            log.info("config reloaded", action="reload", changed=plan.changed, notes=plan.notes)
            if plan.restart_shards:
                await self._restart_all(sorted(self._held()))
            return plan.changed + plan.notes

    def _read(self) -> ReloadPlan:
        before = self._current.config
        if before.source is None:
            raise UsageError("this node was started without a config file")
        self._notifier.reloading()
        try:
            plan = plan_reload(before, load_config(Path(before.source)))
        except SharddError as error:
            self._notes = [f"config refused at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC: {error}"]
            log.error("config refused; the old one stays", action="reload", error=str(error))
            raise
        finally:
            self._notifier.ready("reloaded")
        self._current.set_config(plan.config)
        self._notes = list(plan.notes)
        set_log_level(plan.config.log.level)
        self._apply(plan.config)
        return plan

    async def _restart_all(self, shards: Iterable[int]) -> None:
        """One after the other. A shard that does not come up does not leave the others on the old config."""
        failed: list[str] = []
        for shard in shards:
            try:
                await self._restart(shard)
            except SharddError as error:
                failed.append(str(error))
        if failed:
            text = f"the config is reloaded, but not for every shard: {'; '.join(failed)}"
            self._notes.append(text)
            log.error("shards not restarted with the new config", action="reload", error="; ".join(failed))
            raise SharddError(text)
