"""Options that many commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

DEFAULT_CONFIG: Final = "/etc/shardd/shards.yaml"

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=lambda: os.environ.get("SHARDD_CONFIG", DEFAULT_CONFIG),
    show_default=f"$SHARDD_CONFIG, else {DEFAULT_CONFIG}",
    help="Config file.",
)
