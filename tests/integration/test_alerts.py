"""The alerts for Prometheus, with its own promtool: they load, each fires when it should, and says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from shardd.states import DeviceState
from shardd.supervisor.problems import ProblemKind
from tests.support.commands_in_text import assert_command_exists, commands_in
from tests.support.guide import blocks
from tests.support.prometheus import ALERTS, CONFIG, promtool, rules

TESTS = ALERTS.with_name("alerts.test.yaml")
NAMES = [rule["alert"] for rule in rules()]
ALARMED_OTHERWISE = {ProblemKind.LIBRARY, ProblemKind.SHARD}
"""By alerts of their own, on what these problems are made from."""


def check(*arguments: str | Path) -> None:
    ran = promtool(*arguments)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def changed(folder: Path, number: int, **fields: str) -> Path:
    """The tests of one alert, in a folder with the rules, of which that one has other fields."""
    read = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    rule = [rule for group in read["groups"] for rule in group["rules"]][number]
    rule |= fields
    (folder / ALERTS.name).write_text(yaml.safe_dump(read))
    tests = yaml.safe_load(TESTS.read_text(encoding="utf-8"))
    tests["tests"] = [one for one in tests["tests"] if f'alertname="{rule["alert"]}"' in str(one)]
    file = folder / TESTS.name
    file.write_text(yaml.safe_dump(tests))
    return file


def test_promtool_finds_nothing_wrong() -> None:
    check("check", "rules", "--lint=all", "--lint-fatal", ALERTS)


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    check("test", "rules", TESTS)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=lambda number: f"{number}-{NAMES[number]}")
def test_the_tests_notice_an_alert_that_never_fires_or_fires_too_soon(number: int, tmp_path: Path) -> None:
    check("test", "rules", changed(tmp_path, number))
    assert promtool("test", "rules", changed(tmp_path, number, expr="vector(0) > 1")).returncode != 0
    if "for" in rules()[number]:
        assert promtool("test", "rules", changed(tmp_path, number, **{"for": "0s"})).returncode != 0


def test_an_alert_names_what_it_is_about() -> None:
    """Every label in its texts is one that it has when it fires."""
    fired: dict[str, set[str]] = {}
    for one in yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]:
        for query in one.get("promql_expr_test", []):
            for sample in query["exp_samples"]:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
                fired.setdefault(labels["alertname"], set()).update(labels)
    for rule in rules():
        used = {name for text in rule["annotations"].values() for name in re.findall(r"\$labels\.(\w+)", text)}
        assert used <= fired[rule["alert"]], rule["alert"]


def test_an_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in rules():
        assert rule["alert"].startswith("Shardd")
        assert rule["labels"]["severity"] in ("critical", "warning")
        summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
        assert "\n" not in summary + description, rule["alert"]
        assert not summary.endswith(".")
        assert description.endswith(".")
        named = commands_in(description)
        assert named or "`journalctl -u shardd`" in description, rule["alert"]
        for words, rest in named:
            assert_command_exists(words, rest)


def test_every_kind_of_problem_raises_one_alert() -> None:
    matchers = [
        re.search(r'kind(=~|!~)"([^"]+)"', rule["expr"]) for rule in rules() if rule["alert"] == "SharddProblem"
    ]
    assert len(matchers) == 2
    for kind in ProblemKind:
        raised = [one for one in matchers if one and bool(re.fullmatch(one[2], kind)) == (one[1] == "=~")]
        assert len(raised) == (0 if kind in ALARMED_OTHERWISE else 1), kind


def test_the_states_of_devices_are_those_there_are() -> None:
    named = [
        set(found[1].split("|"))
        for rule in rules()
        for found in re.finditer(r'shardd_devices\{state[=!]~"([^"]+)"', rule["expr"])
    ]
    assert len(named) == 3
    assert all(states <= {*DeviceState, "paused"} for states in named)


def test_the_config_in_the_guide_and_that_of_the_containers_load(tmp_path: Path) -> None:
    (block,) = (
        block for block in blocks("operate") if block.heading == "Prometheus and Grafana" and block.language == "yaml"
    )
    shipped = (CONFIG / "container" / "prometheus.yaml").read_text(encoding="utf-8")
    for number, text in enumerate((block.text, shipped)):
        read: dict[str, Any] = yaml.safe_load(text)
        assert [job["job_name"] for job in read["scrape_configs"]][:1] == ["shardd"]
        assert len(read["rule_files"]) == 1
        file = tmp_path / f"{number}.yml"
        file.write_text(yaml.safe_dump({**read, "rule_files": [str(ALERTS)]}))
        check("check", "config", file)
