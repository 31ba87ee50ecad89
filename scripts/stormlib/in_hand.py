"""What the workers have handed over without an answer at this moment: whoever is killed then leaves a doubt.

Followed in the files that workers write: the witness, and the record of the sandbox, which has a message from its delivery on.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from stormlib.node import Node, send
from stormlib.producers import REPEATABLE
from stormlib.records import Claim, Witness

LOOK_EVERY = 0.02
"""A small part of the time for which the sandbox keeps an answer back."""


class InHand:
    """`witness`: the folder of what workers know."""

    def __init__(self, witness: Path) -> None:
        self._folder = witness
        self._read: defaultdict[Path, int] = defaultdict(int)
        self._witness = Witness()
        self._by_pid: defaultdict[int, set[Claim]] = defaultdict(set)
        self._delivered: set[tuple[int, int]] = set()

    async def stop_one(self, node: Node, wait: float) -> tuple[int, int] | None:
        """Stop (SIGSTOP) a worker that has delivered what must not be repeated, and has no answer; returns it, and how many.

        None: within `wait` seconds none had.
        """
        end = asyncio.get_running_loop().time() + wait
        while asyncio.get_running_loop().time() < end:
            for pid in node.worker_pids():
                if not self.unanswered(node, pid):
                    continue
                send(pid, signal.SIGSTOP)
                if count := self.unanswered(node, pid):  # the answer may have come in the last moment
                    return pid, count
                send(pid, signal.SIGCONT)
            await asyncio.sleep(LOOK_EVERY)
        return None

    def unanswered(self, node: Node, pid: int) -> int:
        """How many messages a worker has delivered without an answer; those that may be repeated do not count."""
        for file in (node.state_dir / "sandbox").glob("shard-*.jsonl"):
            for line in self._news(file):
                one = json.loads(line)
                if not one["body"].endswith(REPEATABLE):
                    self._delivered.add((one["job"], one["attempt"]))
        for file in self._folder.glob(f"{pid}-*.jsonl"):
            for line in self._news(file):
                claim = self._witness.note(line)
                (self._by_pid[pid].discard if claim in self._witness.ending else self._by_pid[pid].add)(claim)
        return sum((claim[0], claim[2]) in self._delivered for claim in self._by_pid[pid])

    def _news(self, file: Path) -> Iterator[str]:
        """The complete lines that were added since the last call."""
        with file.open("rb") as stream:
            stream.seek(self._read[file])
            whole, found, _ = stream.read().rpartition(b"\n")
        self._read[file] += len(whole) + len(found)
        yield from whole.decode().splitlines()
