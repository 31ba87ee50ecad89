"""A host whose clock is wrong says so, in the status and on the overview."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shardd.supervisor.cluster.wall_clock import FIX
from tests.fixtures.browser import free_port
from tests.support.command import Command
from tests.support.daemon import Daemon
from tests.support.visitor import visitor

SITE = str(Path(__file__).parents[2] / "support" / "defect_site")
WORDS = "the clock of node test is 40s ahead of the database's: times are shown wrong"


async def test_a_clock_that_is_wrong_is_a_problem_with_its_fix(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(shards=1, dashboard={"listen": f"127.0.0.1:{free_port()}"})
    daemon.environ = {"PYTHONPATH": SITE, "SHARDD_TEST_DEFECT": "clock 40"}
    await daemon.start()
    status = await daemon.until(lambda status: status["problem_kinds"]["clock"] == 1)
    (problem,) = status["problems"]
    assert problem.startswith(WORDS)
    assert problem.endswith(FIX)
    shown = await Command(daemon.config_file)("status")
    assert shown.code == 1
    assert WORDS in " ".join(shown.out.split())
    async with visitor(daemon) as somebody:
        await somebody.sign_in_by_link(daemon)
        page = await (await somebody.get("/")).text()
    assert FIX in page
