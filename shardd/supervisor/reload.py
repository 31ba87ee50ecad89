"""What a new version of the config file changes while the node runs.

Each field says what it takes (`shardd.config.Reload`): live, a restart of the shards (one after the other), or of the
whole. Fields of the last kind keep their old value until then, and `status` says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel

from shardd.config import Config, diff_config

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """What to do."""

    config: Config
    changed: list[str]
    notes: list[str]
    """Changes that wait for a restart of the whole."""
    restart_shards: bool

    def shards_to_restart(self, held: Iterable[int]) -> list[int]:
        """The shards that need a new worker."""
        return sorted(held) if self.restart_shards else []


def plan_reload(old: Config, new: Config) -> ReloadPlan:
    """Compare. Fields that need a restart of the whole keep the value that the process was started with."""
    changes = diff_config(old, new)
    late = [change for change in changes if change.reload == "restart"]
    kept = new
    for change in late:
        kept = _with_old(kept, old, change.field.split("."))
    return ReloadPlan(
        config=kept,
        changed=[f"{c.field}: {c.old} → {c.new}" for c in changes if c.reload != "restart"],
        notes=[f"{c.field}: {c.old} → {c.new} takes effect with a restart of shardd" for c in late],
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
