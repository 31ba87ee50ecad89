"""What tokens that operate may have this node's supervisor do: restart a shard, close a client."""

from __future__ import annotations

from collections.abc import Awaitable

from shardd.dashboard.api.acting import act_operation, failure_recorded
from shardd.dashboard.api.looking import LookCalls
from shardd.dashboard.api.models import Acted
from shardd.dashboard.api.operations import Call, Operation
from shardd.dashboard.api.problems import SUPERVISOR
from shardd.dashboard.site import Site
from shardd.dashboard.supervised import close_client, restart_shard
from shardd.errors import SharddError


class NodeActs:
    """See the module."""

    def __init__(self, site: Site, looking: LookCalls) -> None:
        self._site = site
        self._looking = looking

    def operations(self) -> list[Operation]:
        """See the module."""
        return [
            act_operation(
                "/shards/{shard}/restart",
                "restart",
                self.restart_shard,
                "Replace the worker of a shard of this node",
                about="What it has in flight is finished first: the answer may take as long as that.",
                problems=(SUPERVISOR,),
            ),
            act_operation(
                "/devices/{device}/close",
                "close client",
                self.close_client,
                "Close the client of a device of this node; its next message opens it again",
                problems=(SUPERVISOR,),
            ),
        ]

    async def restart_shard(self, call: Call) -> Acted:
        """As `shardd restart`."""
        shard = int(call.path("shard"))
        await self._done(call, f"shard {shard}", restart_shard(self._site, call.caller, shard))
        return Acted(done=True, words=f"shard {shard} has a new worker")

    async def close_client(self, call: Call) -> Acted:
        """Its next message opens it again."""
        name = call.path("device")
        async with failure_recorded(self._site, call, f"device {name}"):
            await self._looking.find_device(self._site.database, name)
        await self._done(call, f"device {name}", close_client(self._site, call.caller, name))
        return Acted(done=True, words=f"the client of device {name} is closed; the next message opens it again")

    async def _done(self, call: Call, target: str, work: Awaitable[SharddError | None]) -> None:
        """Raises SharddError, which is recorded."""
        async with failure_recorded(self._site, call, target):
            failed = await work
        if failed is not None:
            raise failed
