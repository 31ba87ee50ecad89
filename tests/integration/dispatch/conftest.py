"""Every pass through the queue has several pages."""

from __future__ import annotations

import pytest

from shardd.queue.job_pass import JobPass


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobPass, "size", 1)
