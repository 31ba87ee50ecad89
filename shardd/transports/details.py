"""What a job says beside its text: read where it is used, so that what cannot be read ends that one job."""

from __future__ import annotations

from typing import Any, Final

from shardd.errors import ErrorClass, PermanentError
from shardd.ipc import JobSpec
from shardd.json_values import UnreadableError, read_object

MOST: Final = 8192
"""Bytes, as the gate has it (check_sizes in 0004_admission.sql)."""


def read_details(job: JobSpec) -> dict[str, Any]:
    """The job's details; empty when it has none. Raises PermanentError."""
    if job.details is None:
        return {}
    try:
        return read_object(job.details, MOST)
    except UnreadableError as error:
        raise PermanentError(f"details {error}", error_class=ErrorClass.CONTENT) from None
