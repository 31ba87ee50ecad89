"""An operator looks for devices on the dashboard, and pauses one."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect

from tests.acceptance.dashboard.looks import is_fit_for_all, is_said
from tests.support.daemon import Daemon, Producer

LONG = "a_word_without_any_break_" * 8
MARKUP = "<img src=x onerror=alert(1)> & 'quotes' \"too\""


async def ids(page: Page) -> list[str]:
    return await page.locator("tbody tr td:first-child").all_inner_texts()


async def test_devices_are_found_page_by_page(site: str, producer: Producer, page: Page) -> None:
    producer.execute(
        "INSERT INTO shardd.devices (id, transport) SELECT 'd' || g, 'sandbox' FROM generate_series(1000, 1249) g"
    )
    await page.goto(f"{site}/devices")
    every = [f"d{number}" for number in range(1000, 1250)]
    assert await ids(page) == every[:100]
    await expect(page.locator(".states")).to_contain_text("250 devices")
    await page.get_by_role("link", name="Next").click()
    await expect(page.get_by_role("link", name="d1100", exact=True)).to_be_visible()
    assert await ids(page) == every[100:200]
    await page.get_by_role("link", name="Next").click()
    await expect(page.get_by_role("link", name="d1200", exact=True)).to_be_visible()
    assert await ids(page) == every[200:]
    await expect(page.get_by_role("link", name="Next")).to_have_count(0)
    await page.get_by_role("link", name="Previous").click()
    await expect(page.get_by_role("link", name="d1100", exact=True)).to_be_visible()
    assert await ids(page) == every[100:200]
    await page.get_by_role("link", name="Previous").click()
    await expect(page.get_by_role("link", name="d1000", exact=True)).to_be_visible()
    assert await ids(page) == every[:100]
    await expect(page.get_by_role("link", name="Previous")).to_have_count(0)
    await is_fit_for_all(page)


async def test_filters_narrow_the_list_down(daemon: Daemon, site: str, producer: Producer, page: Page) -> None:
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, label, paused_at, paused_why)"
        " VALUES ('berlin-1', 'sandbox', 'Shop', NULL, NULL), ('berlin-2', 'sandbox', 'Zoo', now(), %s),"
        " ('paris-1', 'sandbox', 'berlin too', NULL, NULL), ('rome', 'wablas', NULL, NULL, NULL)",
        LONG,
    )
    producer.execute("INSERT INTO shardd.device_groups (id, label) VALUES ('north', 'Sales in the north')")
    producer.execute("INSERT INTO shardd.device_group_members VALUES ('north', 'berlin-1'), ('north', 'rome')")
    await page.goto(f"{site}/devices")
    assert await ids(page) == ["berlin-1", "berlin-2", "paris-1", "rome"]

    async def search(name: str, value: str, found: list[str]) -> None:
        await page.goto(f"{site}/devices")
        field = page.locator(f"form [name={name}]")
        if await field.evaluate("one => one.tagName") == "SELECT":
            await field.select_option(value)
        else:
            await field.fill(value)
        await page.get_by_role("button", name="Show").click()
        await page.wait_for_url("**/devices?*")
        assert await ids(page) == found

    await search("search", "BERLIN", ["berlin-1", "berlin-2", "paris-1"])
    await search("state", "paused", ["berlin-2"])
    await search("transport", "wablas", ["rome"])
    await search("group", "north", ["berlin-1", "rome"])
    await expect(page.locator("main")).to_contain_text("Group north: Sales in the north")
    await page.get_by_role("link", name="berlin-1").click()
    await expect(page.locator(".facts")).to_contain_text("north Sales in the north")
    await search("order", "label", ["rome", "paris-1", "berlin-1", "berlin-2"])
    await search("search", "nowhere", ["No such devices. Show all"])
    shards = {0: set[str](), 1: set[str]()}
    for shard in shards:
        await page.goto(f"{site}/devices?shard={shard}")
        shards[shard] = set(await ids(page)) - {"No such devices. Show all"}
    assert shards[0] | shards[1] == {"berlin-1", "berlin-2", "paris-1", "rome"}
    assert not shards[0] & shards[1]
    await page.goto(f"{site}/devices?state=paused")
    await expect(page.get_by_text(LONG)).to_be_visible()
    await is_fit_for_all(page)
    await page.goto(f"{site}/devices?state=nonsense")
    await expect(page.locator("main")).to_contain_text("state is 'nonsense': choose one of ready")
    await page.goto(f"{site}/devices?shard=9")
    await expect(page.locator("main")).to_contain_text("there is no shard 9: they are numbered 0 to 1")
    assert daemon.dashboard_pids() != []


async def test_a_device_that_is_paused_here_sends_nothing_until_it_is_resumed(
    daemon: Daemon, site: str, producer: Producer, page: Page
) -> None:
    producer.add_devices(1)
    producer.add_jobs(1, 1)
    await producer.until_finished(daemon, 1)
    await page.goto(f"{site}/devices/d1")
    await expect(page.locator(".facts")).to_contain_text("nothing to do")
    await page.get_by_label("Why").fill(MARKUP)
    await page.get_by_role("button", name="Pause").click()
    await is_said(page, "paused device d1")
    await expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("d1 paused"))
    await expect(page.locator(".facts")).to_contain_text(MARKUP)
    await daemon.until(lambda status: status["device_states"]["paused"] == 1)
    producer.add_jobs(1, 1)
    await page.reload()
    await expect(page.get_by_role("row", name="queued")).to_contain_text(f"its device: paused, {MARKUP}")
    await expect(page.locator(".facts")).to_contain_text(f"not now: it is paused: {MARKUP}")
    assert producer.states() == {"sent": 1, "queued": 1}
    await is_fit_for_all(page)
    await page.get_by_role("button", name="Resume").click()
    await is_said(page, "resumed device d1")
    await producer.until_finished(daemon, 2)
    assert producer.states() == {"sent": 2}
    acts = producer.execute(
        "SELECT act, target, detail, result FROM shardd.acts WHERE act IN ('pause', 'resume') ORDER BY id"
    )
    assert acts == [("pause", "device d1", MARKUP, "done"), ("resume", "device d1", "", "done")]


async def test_a_device_shows_its_groups_its_replies_and_when_it_may_send(
    daemon: Daemon, site: str, producer: Producer, page: Page
) -> None:
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, gap_min, gap_max, daily_limit, warm)"
        " VALUES ('d1', 'sandbox', 3600, 3600, 7, true)"
    )
    producer.execute("INSERT INTO shardd.device_groups (id, label) VALUES ('north', 'Sales in the north')")
    producer.execute("INSERT INTO shardd.device_group_members VALUES ('north', 'd1')")
    producer.add_jobs(2, 1)
    await producer.until_finished(daemon, 1)
    producer.execute(
        "INSERT INTO shardd.messages"
        " (device_id, message_id, sender, name, own, status, kind, text, opt_out, written_at, job_id)"
        " SELECT 'd1', 'm', '+4915112345678', %s, false, false, 'text', %s, false, now(), id FROM shardd.archive",
        *(MARKUP, LONG),
    )
    await page.goto(f"{site}/devices/d1")
    facts = page.locator(".facts")
    await expect(facts).to_contain_text("1 of 7")
    await expect(facts).to_contain_text("its gap")
    await expect(facts).to_contain_text("1h to 1h")
    await expect(facts.get_by_role("link", name="north")).to_be_visible()
    replies = page.get_by_role("region", name="Latest replies")
    await expect(replies).to_contain_text(LONG)
    await expect(replies).to_contain_text(MARKUP)
    await is_fit_for_all(page)


async def test_an_unknown_device_is_answered_with_the_one_that_was_meant(
    site: str, producer: Producer, page: Page
) -> None:
    producer.add_devices(1, prefix="berlin-")
    await page.goto(f"{site}/devices/berlim-1")
    await expect(page.locator("main")).to_contain_text("device berlim-1 is unknown; did you mean berlin-1?")
