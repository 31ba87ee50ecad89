"""A kill hits a worker that has delivered something without an answer."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from stormlib.in_hand import InHand
from stormlib.log import Log
from stormlib.node import Node
from stormlib.producers import REPEATABLE

CLAIM = (7, 1, 1, 77)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """With folders, but without a process."""
    made = Node(
        "n", tmp_path / "n", {}, {}, Log(tmp_path / "log"), cable=None, databases=[], sessions=None, whatsapp=None
    )
    for name in ("journal", "sandbox"):
        (made.state_dir / name).mkdir()
    return made


@pytest.fixture
def worker(node: Node) -> Iterator[int]:
    """A process that seems to be its worker: it has the name and a journal."""
    journal = node.state_dir / "journal" / "shard-000"
    command = f"exec 3>'{journal}'; echo; exec -a shardd.worker sleep 600"
    with subprocess.Popen(["/bin/bash", "-c", command], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def say(folder: Path, pid: int, *what: str) -> None:
    with (folder / f"{pid}-1.jsonl").open("a") as stream:
        stream.writelines(json.dumps([1.0, one, *CLAIM, "sent"]) + "\n" for one in what)


def deliver(node: Node, reference: str) -> None:
    with (node.state_dir / "sandbox" / "shard-000.jsonl").open("a") as stream:
        stream.write(json.dumps({"job": CLAIM[0], "attempt": CLAIM[2], "body": reference}) + "\n")


def is_stopped(child: int) -> bool:
    """Waits until a child is stopped, or has ended."""
    _, status = os.waitpid(child, os.WUNTRACED)
    return os.WIFSTOPPED(status)


def test_what_is_delivered_without_an_answer_is_in_hand(node: Node, tmp_path: Path) -> None:
    hand = InHand(tmp_path)
    say(tmp_path, 5, "starting", "started")
    assert hand.unanswered(node, 5) == 0
    deliver(node, "p0-1")
    assert hand.unanswered(node, 5) == 1
    assert hand.unanswered(node, 6) == 0
    say(tmp_path, 5, "ending", "outcome")
    assert hand.unanswered(node, 5) == 0


def test_what_may_be_repeated_leaves_no_doubt(node: Node, tmp_path: Path) -> None:
    say(tmp_path, 5, "starting", "started")
    deliver(node, f"p0-1{REPEATABLE}")
    assert InHand(tmp_path).unanswered(node, 5) == 0


async def test_such_a_worker_is_stopped_and_no_other(node: Node, worker: int, tmp_path: Path) -> None:
    hand = InHand(tmp_path)
    say(tmp_path, worker, "starting", "started")
    assert await hand.stop_one(node, 0.1) is None
    deliver(node, "p0-1")
    assert await hand.stop_one(node, 60) == (worker, 1)
    assert is_stopped(worker)
