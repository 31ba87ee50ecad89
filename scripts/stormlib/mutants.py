"""Safeties of shardd, each of which can be removed in a copy of the package: the storm must notice.

A safety is removed by replacing a text that occurs exactly once, so one that has moved is noticed, too (tests/unit/storm).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from stormlib.place import ROOT


@dataclass(frozen=True)
class Mutant:
    """A removed safety. `file`: in the package."""

    name: str
    file: str
    before: str
    after: str

    def plant(self, folder: Path) -> Path:
        """Copy the package without this safety into a folder, which is returned. Raises ValueError if it is not where it was."""
        shutil.copytree(ROOT / "shardd", folder / "shardd", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)  # the mark of a clone, which may trust a test server
        path = folder / "shardd" / self.file
        text = path.read_text()
        if text.count(self.before) != 1:
            raise ValueError(f"{self.file} has {text.count(self.before)} times: {self.before}")
        path.write_text(text.replace(self.before, self.after))
        return folder


MUTANTS = (
    Mutant(
        "the supervisor does not end its workers at the deadline",
        "supervisor/cluster/ownership.py",
        "if self._keeper.epochs and not self._keeper.good():",
        "if False:",
    ),
    Mutant(
        "a lost lease ends no worker",
        "supervisor/workers/pool.py",
        "                self.fence([shard.index])\n",
        "                pass\n",
    ),
    Mutant(
        "a shard that is given back keeps its epoch",
        "supervisor/workers/pool.py",
        '        self.shards[index].epoch = None\n        return self._drain(self.shards[index], "fence")',
        '        return self._drain(self.shards[index], "fence")',
    ),
    Mutant(
        "a worker starts before what its predecessor left is settled",
        "supervisor/workers/shard.py",
        "            and self.clean\n",
        "",
    ),
    Mutant(
        "a start does not wait for the workers of the one before",
        "supervisor/takeover.py",
        "        await self.recovery.outlive_orphans()\n",
        "",
    ),
    Mutant(
        "the deadline is counted from the answer",
        "supervisor/cluster/leases.py",
        "end = began + self._ttl\n",
        "end = boot_now() + self._ttl\n",
    ),
    Mutant(
        "a worker does not know when its lease ends",
        "worker/worker.py",
        '        log.warning("the lease was not renewed: another node may soon have the shard", action="lease")\n',
        "        return\n",
    ),
    Mutant(
        "what was handed over goes back to the queue",
        "supervisor/dispatch/verdicts.py",
        "*claim.key, Verdict.IN_DOUBT, error=DIED,",
        "*claim.key, Verdict.RETURNED, error=DIED,",
    ),
    Mutant(
        "what a journal knows is in doubt",
        "supervisor/dispatch/verdicts.py",
        "            return record.outcomes[claim.key]\n",
        "            return Outcome(*claim.key, Verdict.IN_DOUBT, error=LOST, at=now, error_class=ErrorClass.WORKER)\n",
    ),
    Mutant(
        "a claim needs no lease",
        "queue/sql/jobs.sql",
        "      JOIN shardd.leases l ON l.epoch = d.epoch AND l.expires_at > now()\n",
        "",
    ),
    Mutant(
        "a job is claimed although another node has it",
        "queue/sql/jobs.sql",
        """             AND claimed_epoch IS NULL AND (expires_at IS NULL OR expires_at > now())
           ORDER BY ord, id LIMIT d.room""",
        """             AND (expires_at IS NULL OR expires_at > now())
           ORDER BY ord, id LIMIT d.room""",
    ),
)
