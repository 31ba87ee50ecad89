"""An act on a page that changes nothing says so, and so does its line of the audit log."""

from __future__ import annotations

from pathlib import Path

from tests.support.dashboard_here import dashboard_here
from tests.support.queue_rows import add_campaigns, add_devices, connect
from tests.support.visitor import visitor_of

ACTS = "SELECT act, target, result FROM shardd.acts WHERE act <> 'sign in' ORDER BY id"


async def test_what_is_so_already_is_not_done_again(dsn: str, tmp_path: Path) -> None:
    add_devices(dsn, "d1")
    add_campaigns(dsn, "spring")
    steps = [
        (act, target, words if is_new else nothing)
        for target in ("device d1", "campaign spring")
        for act, words, nothing in (
            ("pause", "paused", f"nothing to do: {target} is paused already"),
            ("resume", "resumed", f"nothing to do: {target} is not paused"),
        )
        for is_new in (True, False)
    ]
    async with dashboard_here(dsn, tmp_path) as site, visitor_of(site) as ada:
        await ada.sign_in("ada")
        for act, target, words in steps:
            one, name = target.split()
            answer = await ada.request("POST", f"/{one}s/{name}/{act}", headers={"HX-Request": "true"})
            assert answer.status == 200
            assert words in await answer.text()
    with connect(dsn) as connection:
        recorded = connection.execute(ACTS).fetchall()
    assert recorded == [(act, target, words if words.startswith("nothing") else "done") for act, target, words in steps]
