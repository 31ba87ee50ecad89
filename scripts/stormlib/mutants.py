"""Safeties of shardd, each of which can be removed in a copy of the package: the storm must notice, or else a test.

A safety is removed by replacing a text that occurs exactly once, so one that has moved is noticed, too (tests/unit/storm). Some
are backed by others: while these hold, no fault shows that one is missing, and only a test of that one does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from stormlib.place import ROOT


@dataclass(frozen=True)
class Mutant:
    """A removed safety. `file`: in the package; `test`: of tests/, fails without it."""

    name: str
    file: str
    before: str
    after: str
    test: str

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

    def fails_its_test(self, folder: Path) -> bool:
        """Whether its test fails with the package in the folder, where `plant` has put it."""
        # Beside the package, because the folder of the tests comes before all others.
        for name in ("tests", "scripts"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
            )
        words = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{self.test}"]
        path = os.pathsep.join([str(folder), str(folder / "scripts")])
        ended = subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            check=False,
            text=True,
        )
        if ended.returncode not in (0, 1):
            raise RuntimeError(f"{self.test} cannot be run:\n{ended.stdout}{ended.stderr}")
        return ended.returncode == 1


MUTANTS = (
    Mutant(
        "the supervisor does not end its workers at the deadline",
        "supervisor/cluster/ownership.py",
        "if self._keeper.epochs and not self._keeper.good():",
        "if False:",
        "acceptance/test_lease_deadlines.py::"
        "test_sends_that_outlast_the_trust_in_a_lease_end_in_time_and_are_not_in_doubt",
    ),
    Mutant(
        "a lost lease ends no worker",
        "supervisor/workers/pool.py",
        "                self.fence([shard.index])\n",
        "                pass\n",
        "unit/workers/test_pool.py::test_a_lease_that_is_lost_while_its_worker_is_started_ends_the_worker",
    ),
    Mutant(
        "a shard that is given back keeps its epoch",
        "supervisor/workers/pool.py",
        '        self.shards[index].epoch = None\n        return self._drain(self.shards[index], "fence")',
        '        return self._drain(self.shards[index], "fence")',
        "unit/workers/test_pool.py::test_a_shard_that_is_given_back_gets_no_worker_while_its_lease_is_still_held",
    ),
    Mutant(
        "a worker starts before what its predecessor left is settled",
        "supervisor/workers/shard.py",
        "            and self.clean\n",
        "",
        "unit/workers/test_pool.py::test_a_shard_gets_no_worker_before_its_dead_one_is_settled",
    ),
    Mutant(
        "a start does not wait for the workers of the one before",
        "supervisor/takeover.py",
        "        await self.recovery.outlive_orphans()\n",
        "",
        "integration/cluster/test_takeover.py::test_while_a_worker_of_the_earlier_run_lives_its_leases_stay",
    ),
    Mutant(
        "the deadline is counted from the answer",
        "supervisor/cluster/leases.py",
        "end = began + self._ttl\n",
        "end = boot_now() + self._ttl\n",
        "integration/cluster/test_leases.py::test_a_renewal_that_waits_in_the_database_counts_from_when_it_was_sent",
    ),
    Mutant(
        "a worker does not know when its lease ends",
        "worker/worker.py",
        '        log.warning("the lease was not renewed: another node may soon have the shard", action="lease")\n',
        "        return\n",
        "unit/workers/test_pool.py::test_a_worker_that_ends_because_it_was_told_of_no_renewal_gets_no_more_jobs",
    ),
    Mutant(
        "what was handed over goes back to the queue",
        "supervisor/dispatch/verdicts.py",
        "*claim.key, Verdict.IN_DOUBT, error=DIED,",
        "*claim.key, Verdict.RETURNED, error=DIED,",
        "unit/dispatch/test_verdicts.py::test_how_far_it_was_and_who_wanted_the_end_decide",
    ),
    Mutant(
        "what a journal knows is in doubt",
        "supervisor/dispatch/verdicts.py",
        "            return record.outcomes[claim.key]\n",
        "            return Outcome(*claim.key, Verdict.IN_DOUBT, error=LOST, at=now, error_class=ErrorClass.WORKER)\n",
        "unit/dispatch/test_verdicts.py::test_how_far_it_was_and_who_wanted_the_end_decide",
    ),
    Mutant(
        "a claim needs no lease",
        "queue/sql/jobs.sql",
        "      JOIN shardd.leases l ON l.epoch = d.epoch AND l.expires_at > now()\n",
        "",
        "integration/queue/test_jobs_queries.py::test_without_a_good_lease_nothing_is_claimed",
    ),
    Mutant(
        "a job is claimed although another node has it",
        "queue/sql/jobs.sql",
        """             AND claimed_epoch IS NULL AND (expires_at IS NULL OR expires_at > now())
           ORDER BY ord, id LIMIT d.room""",
        """             AND (expires_at IS NULL OR expires_at > now())
           ORDER BY ord, id LIMIT d.room""",
        "integration/queue/test_jobs_queries.py::test_two_claimers_never_get_the_same_job",
    ),
)
