"""The nodes of several regions at once, each with a database of its own: the one status over all of them.

What a node says about itself is as old as its last report to its database (`lease.renew_every`). A database that does not answer
takes nothing from the others: it is shown with its error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click

from shardd.cli.database import reach_database
from shardd.cli.listing import Column, Listing
from shardd.cli.nodes import moves_in_words, state_of
from shardd.cli.output import Text, make_console, number_text, print_json
from shardd.cli.running import run_coroutine
from shardd.config import Config
from shardd.errors import SharddError
from shardd.queue.leases import Node
from shardd.states import CAN_SEND
from shardd.supervisor.cluster.node_shares import NodeShare, look, shares_of, sharing_as_json
from shardd.supervisor.cluster.picture import summary_of
from shardd.supervisor.cluster.sharing import Sharing
from shardd.supervisor.status import NodeSummary
from shardd.words import count

DEGRADED: Final = 1
"""Exit code when a region does not answer or is not healthy, as of `shardd status`."""


@dataclass(frozen=True, slots=True)
class Region:
    """What the database of one config says."""

    name: str
    config: Config
    nodes: Sequence[Node] = ()
    sharing: Sharing = field(default_factory=lambda: Sharing(0, {}, {}))
    error: str | None = None
    """Why it does not answer."""

    @property
    def summaries(self) -> Iterator[NodeSummary]:
        """What its nodes that run say about themselves."""
        return (said for node in self.nodes if node.alive and (said := summary_of(node)) is not None)

    @property
    def idle_shards(self) -> int:
        """Those that no node holds."""
        return self.sharing.shards - len(self.sharing.held)

    @property
    def healthy(self) -> bool:
        """Whether all its shards are held, and no node reports a problem."""
        served = bool(self.nodes) and self.error is None and self.idle_shards == 0
        return served and not any(said.problems for said in self.summaries)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        about = {"config": str(self.config.source), "healthy": self.healthy, "error": self.error}
        return {**about, **sharing_as_json(self.nodes, self.sharing)}


@dataclass(frozen=True, slots=True)
class _Row:
    region: str
    row: NodeShare

    @property
    def said(self) -> NodeSummary | None:
        return summary_of(self.row.node) if self.row.node.alive else None

    def shards(self) -> Text:
        holds, planned = len(self.row.holds), len(self.row.planned)
        return number_text(holds) if holds == planned else Text(f"{holds} → {planned}", "yellow")

    def devices(self) -> Text:
        """Those that can send, of all."""
        return _dash() if self.said is None else Text("/".join(map(str, _devices(self.said))))

    def rate(self) -> Text:
        return _dash() if self.said is None else Text(f"{self.said.sent_per_second:.1f}")

    def problems(self) -> Text:
        return _dash() if self.said is None else number_text(self.said.problems, "red" if self.said.problems else "")


_NODES: Final = Listing[_Row](
    one="node",
    none="no nodes yet: each registers when it starts",
    columns=[
        Column("region", lambda row: row.region, whole=True),
        Column("node", lambda row: row.row.node.name),
        Column("state", lambda row: state_of(row.row), whole=True),
        Column("shards", _Row.shards, right=True),
        Column("devices", _Row.devices, right=True),
        Column("sent/s", _Row.rate, right=True),
        Column("problems", _Row.problems, right=True),
        Column("host", lambda row: row.row.node.host, at_least=100),
    ],
)


def list_regions(configs: Sequence[Config], *, as_json: bool) -> None:
    """Print them; exits with 1 unless all are healthy."""
    regions = run_coroutine(_look_at_all(configs))
    if as_json:
        print_json({"regions": [region.as_json() for region in regions]})
    else:
        _show(regions)
    if not all(region.healthy for region in regions):
        raise click.exceptions.Exit(DEGRADED)


def names_of(configs: Sequence[Config]) -> list[str]:
    """A short name for each: that of its file, or the whole path where two files have one name."""
    paths = [config.source for config in configs]
    stems = ["" if path is None else path.stem for path in paths]
    return [stem if stems.count(stem) == 1 else str(path) for stem, path in zip(stems, paths, strict=True)]


async def _look_at_all(configs: Sequence[Config]) -> list[Region]:
    return await asyncio.gather(
        *(_look_at(name, config) for name, config in zip(names_of(configs), configs, strict=True))
    )


async def _look_at(name: str, config: Config) -> Region:
    try:
        async with reach_database(config) as database:
            nodes, sharing = await look(database)
    except SharddError as error:
        return Region(name, config, error=str(error))
    return Region(name, config, nodes, sharing)


def _show(regions: Sequence[Region]) -> None:
    rows = [_Row(region.name, row) for region in regions for row in shares_of(region.nodes, region.sharing)]
    _NODES.show(rows, counted=False)
    console = make_console()
    for region in regions:
        for words in moves_in_words(region.sharing.moves(), {node.id: node.name for node in region.nodes}):
            console.print(Text(f"{region.name}: moves: {words}", "yellow" if region.sharing.planned else "red"))
        if region.error is not None:
            console.print(Text(f"{region.name}: no answer: {region.error}", "bold red"))
        elif not region.nodes:
            console.print(Text(f"{region.name}: no node has ever run there", "bold red"))
    console.print(Text(_sum_of(regions), "bold"))


def _sum_of(regions: Sequence[Region]) -> str:
    said = [summary for region in regions for summary in region.summaries]
    ready, devices = (sum(pair) for pair in zip((0, 0), *map(_devices, said), strict=True))
    problems = sum(summary.problems for summary in said)
    silent = sum(region.error is not None for region in regions)
    parts = [
        f"{ready:,} of {count(devices, 'device')} can send",
        f"{sum(summary.sent_per_second for summary in said):.1f} sent/s",
        count(problems, "problem"),
    ]
    unknown = f" ({silent:,} unknown)" if silent else ""
    return f"{count(len(regions), 'region')}{unknown}: {', '.join(parts)}"


def _devices(said: NodeSummary) -> tuple[int, int]:
    """How many can send, and how many there are."""
    return sum(number for name, number in said.devices.items() if name in CAN_SEND), sum(said.devices.values())


def _dash() -> Text:
    return Text("-", "dim")
