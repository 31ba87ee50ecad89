"""Makes any Python child process trust the test server, without its code knowing.

A test puts this folder first on PYTHONPATH and the root key, as hex, into SHARDD_TEST_NOISE_ROOT. When the process
imports neonize, however late, the key is planted right after the library is loaded. Without the variable nothing
happens. A key that cannot be planted makes the import of neonize fail, so that no test goes on untrusted.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from types import ModuleType

VARIABLE = "SHARDD_TEST_NOISE_ROOT"
LOADING_MODULE = "neonize._binder"  # the module that loads the shared library


class _PlantingLoader(importlib.abc.Loader):
    """Runs the real loader, then plants the key."""

    def __init__(self, real: importlib.abc.Loader, public_key: bytes) -> None:
        self._real = real
        self._public_key = public_key

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        from noise_root import (  # type: ignore[import-not-found]  # noqa: PLC0415 - beside this file; only when needed
            plant_noise_root,
        )

        self._real.exec_module(module)
        plant_noise_root(self._public_key)


class _PlantingFinder(importlib.abc.MetaPathFinder):
    """Wraps the loader of the one module that loads the library; every other import passes by."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != LOADING_MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _PlantingLoader(spec.loader, self._public_key)
        return spec


if os.environ.get(VARIABLE):
    sys.meta_path.insert(0, _PlantingFinder(bytes.fromhex(os.environ[VARIABLE])))
