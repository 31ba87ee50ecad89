"""A person decides on the dashboard what became of jobs in doubt."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.dashboard.looks import end, is_fit_for_all, is_said, press, waiting
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer


@pytest.fixture
async def site(site: str, producer: Producer) -> str:
    """With a device d1 that is paused."""
    producer.execute("INSERT INTO shardd.devices (id, transport, paused_at) VALUES ('d1', 'sandbox', now())")
    return site


def in_doubt(producer: Producer, number: int) -> list[int]:
    ids = waiting(producer, number)
    end(producer, ids, "in_doubt", "its worker died", "worker")
    return ids


async def test_a_decision_shows_in_the_database_and_in_the_command(
    daemon: Daemon, site: str, producer: Producer, page: Page
) -> None:
    shardd = Command(daemon.config_file)
    sent, not_sent, again = in_doubt(producer, 3)
    await page.goto(f"{site}/doubts")
    await expect(page.locator("main")).to_contain_text("3 messages were handed over")
    await expect(page.get_by_role("region", name="Jobs in doubt")).to_contain_text("its worker died")
    await is_fit_for_all(page)
    # Where each row is a paragraph, it is a row for a screen reader nevertheless.
    await page.set_viewport_size({"width": 390, "height": 800})
    await expect(page.get_by_role("columnheader")).to_have_count(8)
    await expect(page.get_by_role("row")).to_have_count(4)
    await expect(page.get_by_role("cell", name="its worker died", exact=True)).to_have_count(3)
    await page.set_viewport_size({"width": 1280, "height": 720})

    await expect(page.get_by_role("button", name="Sent", exact=True)).to_be_disabled()
    await page.get_by_label("Choose all").check()
    await expect(page.locator("[data-chosen]")).to_have_text("3 chosen")
    await page.get_by_role("button", name="Retry", exact=True).click()
    await expect(page.locator("#question")).to_have_text(
        "Retry 3 jobs? What had reached its recipient after all is sent twice."
    )
    await page.locator("#sure").get_by_role("button", name="Back").click()
    await page.get_by_label("Choose all").uncheck()
    await expect(page.locator("[data-chosen]")).to_have_text("none chosen")
    await page.get_by_label(f"Job {sent}", exact=True).check()
    await page.get_by_role("button", name="Sent", exact=True).click()
    await expect(page.locator("#question")).to_contain_text("Record 1 job as sent, as you decide?")
    await page.locator("#sure").get_by_role("button", name="Sent", exact=True).click()
    await is_said(page, "resolved 1 job")
    await expect(page.get_by_label(f"Job {sent}", exact=True)).to_have_count(0)
    await page.get_by_label(f"Job {not_sent}", exact=True).check()
    await press(page, "Not sent")
    await expect(page.get_by_label(f"Job {not_sent}", exact=True)).to_have_count(0)
    await page.get_by_label(f"Job {again}", exact=True).check()
    await press(page, "Retry")
    await is_said(page, "retried 1 job")
    await expect(page.locator("main")).to_contain_text("No job is in doubt.")

    shown = [(await shardd("job", "show", job, "--json")).json for job in (sent, not_sent, again)]
    assert [one["state"] for one in shown] == ["sent", "failed", "queued"]
    (who,) = producer.execute("SELECT DISTINCT who FROM shardd.acts WHERE act = 'resolve'")[0]
    assert shown[0]["error"].startswith(f"sent: decided by {who} on ")
    assert shown[1]["error"].startswith(f"not sent: decided by {who} on ")
    acts = producer.execute("SELECT act, target, detail FROM shardd.acts WHERE target LIKE 'job%%' ORDER BY id")
    assert acts == [
        ("resolve", f"job {sent}", "sent; resolved 1 job"),
        ("resolve", f"job {not_sent}", "not sent; resolved 1 job"),
        ("retry", f"job {again}", "retried 1 job"),
    ]
    await page.goto(f"{site}/jobs/{sent}")
    await expect(page.locator(".story")).to_contain_text(f"decided by {who}")
    await expect(page.locator(".story")).to_contain_text("its worker died")


async def test_whoever_changes_their_mind_decides_nothing(site: str, producer: Producer, page: Page) -> None:
    (job,) = in_doubt(producer, 1)
    await page.goto(f"{site}/jobs/{job}")
    await page.get_by_role("button", name="Retry").click()
    await expect(page.locator("#question")).to_contain_text("may send it twice")
    await page.locator("#sure").get_by_role("button", name="Back").click()
    await expect(page.locator("#sure")).to_be_hidden()
    assert producer.states() == {"in_doubt": 1}
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {job} in doubt")
    await page.goto(f"{site}/doubts")
    await page.get_by_role("button", name="Sent", exact=True).evaluate("button => (button.disabled = false)")
    await press(page, "Sent")
    await expect(page.locator("#failed")).to_contain_text("no job is chosen")
    assert producer.states() == {"in_doubt": 1}


async def test_all_that_match_are_decided_together_oldest_first(site: str, producer: Producer, page: Page) -> None:
    producer.execute("INSERT INTO shardd.devices (id, transport, paused_at) VALUES ('d2', 'sandbox', now())")
    ids = in_doubt(producer, 130)
    others = waiting(producer, 1, device_id="d2")
    end(producer, others, "in_doubt")
    await page.goto(f"{site}/doubts?device=d1")
    await expect(page.locator("main")).to_contain_text("130 of 131 jobs in doubt match.")
    await expect(page.locator("main")).not_to_contain_text("131 messages")
    await expect(page.locator("main")).to_contain_text("In the order in which the jobs were inserted")
    boxes = page.locator("tbody input[name=id]")
    assert [int(await box.input_value()) for box in await boxes.all()] == ids[:100]
    await boxes.last.check()
    await expect(page.get_by_role("button", name="Sent", exact=True)).to_be_in_viewport()
    await boxes.last.uncheck()
    await page.get_by_role("link", name="Next").click()
    await expect(boxes).to_have_count(30)
    await page.get_by_role("button", name="Not sent …").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Record as not sent")
    await is_fit_for_all(page)
    await press(page, "Record as not sent: 130 jobs")
    await is_said(page, "resolved 130 jobs")
    await expect(page.locator("main")).to_contain_text("No job matches now.")
    assert producer.states() == {"failed": 130, "in_doubt": 1}


async def test_a_doubt_of_a_cancelled_campaign_is_decided_and_not_retried(
    site: str, producer: Producer, page: Page
) -> None:
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    ids = waiting(producer, 2, campaign="spring")
    end(producer, ids, "in_doubt", "its worker died", "worker")
    retry = page.get_by_role("button", name="Retry")
    await page.goto(f"{site}/jobs/{ids[0]}")
    await expect(retry).to_be_visible()
    await expect(page.locator(".facts").first).to_contain_text(
        "a person who decides whether it was sent, or retries it"
    )
    producer.execute("UPDATE shardd.campaigns SET state = 'cancelled' WHERE id = 'spring'")
    await page.reload()
    await expect(page.locator(".facts").first).to_contain_text("the campaign was cancelled, which is final")
    await expect(page.locator(".facts").first).not_to_contain_text("retries it")
    await expect(retry).to_have_count(0)
    await page.goto(f"{site}/jobs?state=in_doubt")
    await expect(page.get_by_role("row", name=f"{ids[0]} in doubt")).to_contain_text(
        re.compile("a person who decides whether it was sent$")
    )
    await page.goto(f"{site}/doubts")
    await expect(page.get_by_role("row", name=f"Job {ids[0]}")).to_contain_text("its worker died; cannot be retried")
    await page.goto(f"{site}/jobs/{ids[0]}")
    await press(page, "It was sent")
    await is_said(page, "resolved 1 job")


async def test_the_audit_log_has_the_outcome_of_many_and_whole_ids(site: str, producer: Producer, page: Page) -> None:
    producer.execute("SELECT setval(pg_get_serial_sequence('shardd.jobs', 'id'), 123456789012)")
    ids = in_doubt(producer, 100)
    await page.goto(f"{site}/doubts")
    await page.get_by_label("Choose all").check()
    await press(page, "Sent")
    await is_said(page, "resolved 100 jobs")
    (detail,) = producer.execute(
        "SELECT detail FROM shardd.acts WHERE act = 'resolve' AND result = 'done' AND detail LIKE 'sent; resolved 100%%'"
    )[0]
    assert detail.startswith(f"sent; resolved 100 jobs; jobs {ids[0]}, ")
    listed, _, more = detail.partition("; jobs ")[2].partition(" and ")
    assert [int(one) for one in listed.split(", ")] == ids[: 100 - int(more.removesuffix(" more"))]


@pytest.mark.parametrize("path", ["/doubts", "/jobs/{job}"])
async def test_a_page_that_has_not_seen_the_latest_attempt_decides_nothing(
    daemon: Daemon, site: str, producer: Producer, page: Page, path: str
) -> None:
    (job,) = in_doubt(producer, 1)
    await page.goto(site + path.format(job=job))
    # Somebody else retries it, and it comes in doubt once more.
    retried = await Command(daemon.config_file)("job", "retry", str(job), "--yes")
    assert retried.out == "retried 1 job\n"
    end(producer, [job], "in_doubt", "its worker died again", "worker")
    if path == "/doubts":
        await page.get_by_label("Choose all").check()
    await press(page, "Retry")
    await expect(page.locator("#failed")).to_contain_text("changed in the meantime; look again")
    assert producer.states() == {"in_doubt": 1}
    await page.reload()
    if path == "/doubts":
        await page.get_by_label("Choose all").check()
    await press(page, "Retry")
    await is_said(page, "retried 1 job")
