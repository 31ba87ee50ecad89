"""What the dashboard must know of the config that is in effect: by it, a device's pace and its shard follow from its row."""

from __future__ import annotations

from typing import Any

import msgspec

from shardd.config import Config


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """As of the last reload."""

    shards: int
    default_region: str | None
    """Of phone numbers in national spelling."""
    visit_every: float
    """Seconds between visits of a WhatsApp device; 0: none."""
    pacing: dict[str, Any]
    """`PacingConfig`, as JSON."""
    webhooks: tuple[str, ...] = ()
    """The names of those that it has."""


def settings_of(config: Config) -> NodeSettings:
    """The settings in a config."""
    whatsapp = config.transports.whatsapp
    return NodeSettings(
        shards=config.shards,
        default_region=whatsapp.default_region,
        visit_every=whatsapp.visit_every,
        pacing=config.pacing.model_dump(mode="json"),
        webhooks=tuple(config.webhooks),
    )
