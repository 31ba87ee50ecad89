"""`shardd cluster`: the nodes that share the database, and which of them take shards.

It works on the database alone: a node notices a change at once, whether shardd runs on this host or not. `list` also shows the
nodes of several databases at once (`regions.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from shardd.cli.acts import acts, change
from shardd.cli.completion import complete_nodes
from shardd.cli.database import with_database
from shardd.cli.help import examples
from shardd.cli.listing import Column, Listing
from shardd.cli.names import confirm
from shardd.cli.nodes import moves_in_words, ranges, state_of
from shardd.cli.options import database_config_option, database_configs_option, json_option, yes_option
from shardd.cli.output import Text, make_console, number_text, print_json, say
from shardd.cli.regions import list_regions
from shardd.config import Config
from shardd.config.values import closest
from shardd.errors import UsageError
from shardd.queue.leases import Node, all_nodes, set_cordoned
from shardd.queue.queries import Queries
from shardd.states import NodeState
from shardd.supervisor.cluster.node_shares import NodeShare, look, shares_of, sharing_as_json
from shardd.words import count

_node = click.argument("node", shell_complete=complete_nodes)

NODES: Final = Listing[NodeShare](
    one="node",
    none="no nodes yet: each registers when it starts",
    columns=[
        Column("node", lambda row: row.node.name),
        Column("state", state_of, whole=True),
        Column("shards", lambda row: number_text(len(row.holds)), right=True),
        Column("which", lambda row: ranges(row.holds)),
        Column("version", lambda row: row.node.version, at_least=80),
        Column("host", lambda row: row.node.host, at_least=80),
    ],
)


@click.group("cluster", epilog=examples("shardd cluster list"))
def cluster_group() -> None:
    """List nodes, and choose which take shards.

    Those that do have equally many shards, to within one: nothing needs to be rebalanced.
    """


@cluster_group.command("list", epilog=examples("shardd cluster list"))
@json_option("Print an object with shards, nodes and moves, for programs; times in ISO 8601.")
@database_configs_option
def list_(*, as_json: bool, configs: list[Config]) -> None:
    """List nodes, their shards, and what moves where.

    A node that is `serving` takes shards. One that is `cordoned` holds none until `shardd cluster uncordon`; one that is `away`
    has lost its state folder; one that is `leaving` stops. One that is `silent` is dead, or cut off from the database.

    With several --config, one for each region: the nodes of all, with their devices and problems; a region whose database does
    not answer is listed as such. The exit code is then 1 if a region does not answer, has a problem, or has a shard that no node
    holds. With --json: an object whose `regions` are such objects with `config` and `error`.
    """
    if len(configs) > 1:
        list_regions(configs, as_json=as_json)
        return
    nodes, sharing = with_database(configs[0], look)
    if as_json:
        print_json(sharing_as_json(nodes, sharing))
        return
    NODES.show(shares_of(nodes, sharing), counted=False)
    console = make_console()
    for words in moves_in_words(sharing.moves(), {node.id: node.name for node in nodes}):
        console.print(Text(f"moves: {words}", "yellow" if sharing.planned else "red"))


@cluster_group.command("cordon", epilog=examples("shardd cluster cordon host-b"))
@_node
@yes_option
@database_config_option
@acts("cordon")
def cordon(node: str, *, yes: bool, config: Config) -> None:
    """Have a node give its shards to the others.

    Each goes as soon as what it has in flight is finished. The node goes on running and takes no shards, also after a restart,
    until `shardd cluster uncordon`.
    """
    nodes, sharing = with_database(config, look)
    found = find_node(nodes, node)
    if found.serves and not any(one.serves for one in nodes if one.id != found.id):
        confirm(f"no other node takes shards: while {found.name} is cordoned, nothing is sent. Cordon it?", yes=yes)
    if not change(
        config,
        "node",
        lambda database: set_cordoned(database, found.id, cordoned=True),
        changed=lambda changed: [found.name] if changed else [],
    ):
        say(f"node {found.name} is cordoned already")
        return
    gives = f"it gives {count(len(sharing.held_by(found.id)), 'shard')} back; see: shardd cluster list"
    words = gives if found.alive else "it does not run now"
    say(f"cordoned node {found.name}: {words}")


@cluster_group.command("uncordon", epilog=examples("shardd cluster uncordon host-b"))
@_node
@database_config_option
@acts("uncordon")
def uncordon(node: str, config: Config) -> None:
    """Let a node take shards again."""

    async def work(database: Queries) -> tuple[Node, bool]:
        found = find_node(await all_nodes(database), node)
        return found, await set_cordoned(database, found.id, cordoned=False)

    found, changed = change(config, "node", work, changed=lambda result: [result[0].name] if result[1] else [])
    if not changed:
        say(f"node {found.name} is not cordoned")
        return
    say(f"uncordoned node {found.name}: " + ("it takes its share" if found.alive else "it does not run now"))


def find_node(nodes: Sequence[Node], name: str) -> Node:
    """The node of this name, or with this id. Raises UsageError.

    A name may have been another node's before: one that runs is meant rather than one that is silent, and that rather than
    one that has stopped.
    """
    named = [node for node in nodes if name in (node.id, node.name)]
    if not named:
        near = closest(name, [node.name for node in nodes])
        fix = f"did you mean {near}? All: shardd cluster list" if near else "the others: shardd cluster list"
        raise UsageError(f"node {name} is unknown; {fix}")
    for states in (set(NodeState) - {NodeState.SILENT, NodeState.STOPPED}, {NodeState.SILENT}, {NodeState.STOPPED}):
        if len(meant := [node for node in named if node.state in states]) == 1:
            return meant[0]
        if meant:
            ids = ", ".join(f"{node.id} (on {node.host}, {node.state_dir})" for node in meant)
            raise UsageError(f"{len(meant)} nodes have the name {name}: write the id of one: {ids}")
    raise AssertionError("a node has a state")
