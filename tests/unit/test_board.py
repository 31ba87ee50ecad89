"""The dashboard for Grafana: Grafana's own library knows every field of it, and it begins with what is wrong.

That its queries are answered is in tests/acceptance/test_monitoring.py.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support.commands_in_text import assert_command_exists, commands_in
from tests.support.prometheus import BOARD, rules

TEXT = BOARD.read_text(encoding="utf-8")
READ: dict[str, Any] = json.loads(TEXT)
ROWS = [one for one in READ["panels"] if one["type"] == "row"]
PANELS = [one for one in READ["panels"] if one["type"] != "row"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24


def lost(given: Any, kept: Any, path: str = "") -> list[str]:
    """Where `kept` lacks something of `given`, or has another value."""
    if isinstance(given, dict) and isinstance(kept, dict):
        absent = [f"{path}.{name}" for name in given.keys() - kept.keys()]
        return absent + [
            one for name in given.keys() & kept.keys() for one in lost(given[name], kept[name], f"{path}.{name}")
        ]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [
            one for number, pair in enumerate(zip(given, kept, strict=True)) for one in lost(*pair, f"{path}[{number}]")
        ]
    return [] if given == kept else [path]


def by_library(board: dict[str, Any]) -> Any:
    """What Grafana's library makes of a board; it drops what it does not know."""
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder))


def test_grafanas_library_knows_every_field() -> None:
    assert lost(READ, by_library(READ)) == []
    assert READ["schemaVersion"] == Dashboard().schema_version


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"gridPos"', '"gridPosition"'),
        ('"colorMode"', '"colourMode"'),
        ('"lineWidth"', '"linewidth"'),
        ('"showHeader"', '"header"'),
        ('"legendFormat"', '"legend"'),
        ('"allValue"', '"all"'),
    ],
)
def test_a_misspelt_field_would_be_noticed(right: str, wrong: str) -> None:
    assert right in TEXT
    board = json.loads(TEXT.replace(right, wrong))
    assert lost(board, by_library(board))


def test_nothing_in_it_is_of_one_grafana_only() -> None:
    assert READ["uid"] == "shardd"
    assert not {"id", "version", "gnetId", "__inputs", "__requires"} & READ.keys()
    for panel in PANELS:
        assert panel["datasource"] == SOURCE
        assert "pluginVersion" not in panel
    (builtin,) = READ["annotations"]["list"]
    assert builtin["datasource"]["uid"] == "-- Grafana --"
    variables = {one["name"]: one for one in READ["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "node", "shard"]
    assert variables.pop("datasource")["query"] == "prometheus"
    for one in variables.values():
        assert one["datasource"] == SOURCE
        assert one["current"]["value"] == ["$__all"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [one["id"] for one in READ["panels"]]
    assert len({*ids}) == len(ids)
    taken = [
        (x, y)
        for place in (one["gridPos"] for one in READ["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len({*taken}) == len(taken)
    assert max(x for x, _ in taken) == COLUMNS - 1
    assert {y for _, y in taken} == set(range(max(y for _, y in taken) + 1)), "there is an empty line"


def test_what_is_wrong_comes_first() -> None:
    assert [row["title"] for row in ROWS] == [
        "Is it well?",
        "Throughput and outcomes",
        "Latencies",
        "Devices",
        "Workers",
        "Queue",
        "Webhooks",
    ]
    first, second = ROWS[0]["gridPos"]["y"], ROWS[1]["gridPos"]["y"]
    top = [panel for panel in PANELS if first < panel["gridPos"]["y"] < second]
    assert {"Problems", "Nodes down", "Oldest due job", "In doubt", "Alerts that fire"} <= {
        panel["title"] for panel in top
    }
    assert not any(row["collapsed"] for row in ROWS)


def test_a_panel_says_what_it_shows_and_what_to_do() -> None:
    titles = [panel["title"] for panel in PANELS]
    assert len({*zip(titles, (panel["type"] for panel in PANELS), strict=True)}) == len(titles)
    found = 0
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        for words, rest in commands_in(panel["description"]):
            assert_command_exists(words, rest)
            found += 1
    assert found > 20
    named = set(re.findall(r"\bShardd[A-Z]\w+", TEXT))
    assert named <= {rule["alert"] for rule in rules()}


def test_a_query_is_of_the_chosen_nodes() -> None:
    for panel in PANELS:
        names = [target["refId"] for target in panel["targets"]]
        assert names == list(itertools.islice("ABCDEFG", len(names)))
        for target in panel["targets"]:
            assert target["datasource"] == SOURCE
            metrics = re.findall(r"\b(?:shardd_\w+|up)\{([^}]*)\}", target["expr"])
            assert metrics or target["expr"].startswith("ALERTS{"), target["expr"]
            assert all('job=~"$job"' in one for one in metrics), target["expr"]
