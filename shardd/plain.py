"""Rows as JSON has them: for commands with `--json`, and for programs that ask the dashboard. No I/O."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

RENAMED = {"job_class": "class"}
"""Fields whose names in JSON are keywords in Python."""


def plain(value: Any) -> Any:
    """Rows as objects, times in ISO 8601, and null for numbers that JSON does not have."""
    if value is None or isinstance(value, (str, int)):  # nearly all
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = ((field.name, RENAMED.get(field.name, field.name)) for field in dataclasses.fields(value))
        return {shown: plain(getattr(value, name)) for name, shown in names}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value
