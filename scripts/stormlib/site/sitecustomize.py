"""Makes each worker of a node write down what it starts and what it learns, in a file that is never trimmed.

The journal itself forgets what is settled. A line is written before each of the journal's own (`starting`, `ending`) and one
after it (`started`, `outcome`), so that a kill in between leaves no doubt about what the journal may have, and what it has.

First on PYTHONPATH; the next `sitecustomize` there, which makes a worker trust the test WhatsApp server, is run as well.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "SHARDD_STORM_WITNESS"
MODULE = "shardd.journal"


def _observe(module: ModuleType) -> None:
    journal: Any = module.Journal
    started, outcome = journal.started, journal.outcome
    path = Path(os.environ[VARIABLE]) / f"{os.getpid()}-{time.time_ns()}.jsonl"
    opened: list[int] = []

    def write(*line: Any) -> None:
        if not opened:  # only workers write a journal; supervisors read them
            opened.append(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
        os.write(opened[0], json.dumps([time.time(), *line]).encode() + b"\n")

    def observed_start(self: Any, claim: Any) -> None:
        write("starting", *claim)
        started(self, claim)
        write("started", *claim)

    def observed_outcome(self: Any, found: Any) -> None:
        write("ending", *found.key)
        outcome(self, found)
        write("outcome", *found.key, str(found.verdict))

    journal.started, journal.outcome = observed_start, observed_outcome


class _Loader(importlib.abc.Loader):
    def __init__(self, real: importlib.abc.Loader) -> None:
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        _observe(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def _run_next() -> None:
    here = Path(__file__).resolve().parent
    for folder in sys.path:
        file = Path(folder) / "sitecustomize.py"
        if folder and file.is_file() and file.resolve().parent != here:
            spec = importlib.util.spec_from_file_location("storm_next_site", file)
            assert spec is not None
            assert spec.loader is not None
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
            return


if os.environ.get(VARIABLE):
    sys.meta_path.insert(0, _Finder())
_run_next()
