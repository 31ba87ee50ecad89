"""A seeded minute of the storm: nothing is lost, repeated, reordered or doubted without need."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.marked import Mark

ROOT = Path(__file__).parents[2]
PATIENCE = 1800.0
"""Seconds after which the storm is called hung, on a busy machine."""


@pytest.mark.timeout(PATIENCE + 60)
def test_a_minute_of_the_storm_breaks_no_promise(tmp_path: Path) -> None:
    mark = Mark()
    environ = {**mark.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, "-m", "stormlib", "--seconds=60", "--seed=7", "--whatsapp=3"],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "No promise was broken." in said
    # It was a storm: messages were delivered, and faults of both kinds were made.
    counts = re.search(r"([\d,]+) messages delivered, ([\d,]+) of them by WhatsApp", said)
    assert counts is not None, said
    delivered, by_whatsapp = (int(count.replace(",", "")) for count in counts.groups())
    assert delivered > 200
    assert by_whatsapp > 0
    assert re.search(r"│ (kill|freeze|stop|cut|part) ", said)
    assert mark.processes() == []
