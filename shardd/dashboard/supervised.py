"""Acts that this node's supervisor carries out: no transaction, so the audit log has them as begun and as ended."""

from __future__ import annotations

from typing import Final

from shardd.dashboard.site import Site, failure
from shardd.errors import SharddError, UsageError
from shardd.hashing import shard_of
from shardd.pairing.context import CLOSE_TIMEOUT, close_path
from shardd.queue.act_log import Actor

RESTART_TIMEOUT: Final = 600.0
"""Seconds: as long as a worker may finish what it has in flight, and its successor start, by any sensible config."""


async def restart_shard(site: Site, actor: Actor, shard: int) -> SharddError | None:
    """Replace the worker of a shard; returns why that failed, which is recorded. Raises DatabaseError: nothing was begun."""
    return await _carry_out(site, actor, f"shard {shard}", f"/shards/{shard}/restart", RESTART_TIMEOUT)


async def close_client(site: Site, actor: Actor, device_id: str) -> SharddError | None:
    """Close the client of a device; otherwise like `restart_shard`. UsageError: another node serves it."""
    status, settings = await site.supervisor.status(), await site.supervisor.settings()
    shard = shard_of(device_id, settings.node.shards)
    if not any(one.shard == shard and one.epoch is not None for one in status.shards):
        raise UsageError(
            f"this node does not serve the shard of device {device_id}: close its client on the node that does"
        )
    return await _carry_out(site, actor, f"device {device_id}", close_path(device_id), CLOSE_TIMEOUT)


async def _carry_out(site: Site, actor: Actor, target: str, path: str, timeout: float) -> SharddError | None:
    async with site.under_way(actor, target) as here:
        try:
            await site.supervisor.act(path, timeout=timeout)
        except SharddError as error:
            _, here.result = failure(error)
            return error
    return None
