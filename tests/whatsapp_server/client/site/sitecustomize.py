"""Makes a Python process trust the test server without any change to the program that it runs.

A test puts this folder first on PYTHONPATH and sets SHARDD_TEST_NOISE_ROOT to the root key as hex. The key is replaced
right after the process loads neonize's library. Without the variable nothing happens. If the key cannot be replaced, the
import of neonize fails, so no test continues with WhatsApp's own key.

It fails, too, where a shardd is installed that is not the one of a clone: an installed shardd trusts only WhatsApp,
whatever its environment names. (No part of this folder is in shardd's wheel.)
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

VARIABLE = "SHARDD_TEST_NOISE_ROOT"
LOADING_MODULE = "neonize._binder"  # the module that loads the shared library


class _PlantingLoader(importlib.abc.Loader):
    """Runs the real loader, then replaces the key."""

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
    """Wraps the loader of the one module that loads the library, and ignores every other import."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != LOADING_MODULE:
            return None
        installed = importlib.machinery.PathFinder.find_spec("shardd")
        if installed is not None and installed.origin is not None:
            package = Path(installed.origin).resolve().parent
            if not (package.parent / "pyproject.toml").is_file():
                raise ImportError(
                    f"{package} is an installed shardd, which does not trust a test server: unset {VARIABLE}"
                )
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _PlantingLoader(spec.loader, self._public_key)
        return spec


if os.environ.get(VARIABLE):
    sys.meta_path.insert(0, _PlantingFinder(bytes.fromhex(os.environ[VARIABLE])))
