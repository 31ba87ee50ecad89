"""An operator looks for jobs on the dashboard, reads the story of one, and retries and cancels some."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from playwright.async_api import Page, expect

from tests.acceptance.dashboard.looks import end, is_fit_for_all, is_said, press, waiting
from tests.acceptance.test_cloud_statuses import Meta
from tests.acceptance.test_platforms import add_device, insert, row, until
from tests.fixtures.browser import free_port, sign_in
from tests.platform_server.server import PlatformServer
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer

LONG = "a_word_without_any_break_" * 30


@pytest.fixture
async def site(site: str, producer: Producer) -> str:
    """With a device d1 that is paused, and d2."""
    producer.execute("INSERT INTO shardd.devices (id, transport, paused_at) VALUES ('d1', 'sandbox', now())")
    producer.execute("INSERT INTO shardd.devices (id, transport) VALUES ('d2', 'sandbox')")
    return site


async def numbers(page: Page) -> list[int]:
    return [int(text) for text in await page.locator("tbody tr td:first-child").all_inner_texts() if text.isdigit()]


async def test_jobs_are_found_page_by_page(site: str, producer: Producer, page: Page) -> None:
    ids = waiting(producer, 250)[::-1]
    end(producer, ids[40:160], "failed")  # some pages have live and finished ones
    await page.goto(f"{site}/jobs")
    assert await numbers(page) == ids[:100]
    await page.get_by_role("link", name="Older").click()
    await expect(page.get_by_role("link", name=str(ids[100]), exact=True)).to_be_visible()
    assert await numbers(page) == ids[100:200]
    await page.get_by_role("link", name="Older").click()
    await expect(page.get_by_role("link", name=str(ids[200]), exact=True)).to_be_visible()
    assert await numbers(page) == ids[200:]
    await expect(page.get_by_role("link", name="Older")).to_have_count(0)
    await page.get_by_role("link", name="Newer").click()
    await expect(page.get_by_role("link", name=str(ids[100]), exact=True)).to_be_visible()
    assert await numbers(page) == ids[100:200]
    await page.get_by_role("link", name="Newer").click()
    await expect(page.get_by_role("link", name=str(ids[0]), exact=True)).to_be_visible()
    assert await numbers(page) == ids[:100]
    await is_fit_for_all(page)


async def test_every_filter_finds_its_jobs(site: str, producer: Producer, page: Page) -> None:
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    producer.execute("INSERT INTO shardd.device_groups (id, label) VALUES ('north', 'Sales in the north')")
    producer.execute("INSERT INTO shardd.device_group_members VALUES ('north', 'd1')")
    others = waiting(producer, 3)
    own = {
        "campaign=spring": waiting(producer, campaign="spring"),
        "class=service": waiting(producer, **{"class": "service"}),
        "reference=order-1": waiting(producer, reference="order-1"),
        "order_group=o1": waiting(producer, order_group="o1"),
        "recipient=0049+151+99999999": waiting(producer, recipient="+49 151 99999999"),
        "state=failed": waiting(producer),
        "unreadable=1": waiting(producer),
    }
    end(producer, own["state=failed"], "failed")
    end(producer, own["unreadable=1"], "sent")
    producer.execute(
        "UPDATE shardd.archive SET error = NULL, unreadable_at = now(), unreadable_why = %s WHERE state = 'sent'", LONG
    )
    own["error_class=timeout&state=failed"] = own["state=failed"]
    for query, expected in own.items():
        await page.goto(f"{site}/jobs?{query}")
        assert await numbers(page) == expected, query
    await page.goto(f"{site}/jobs?device=d1&state=queued")
    assert set(await numbers(page)) >= set(others)
    insert = (
        "INSERT INTO shardd.jobs (device_group, recipient, body) VALUES ('north', '+4915112345678', 'x') RETURNING id"
    )
    await page.goto(f"{site}/jobs/{producer.execute(insert)[0][0]}")
    await expect(page.locator(".facts").first).to_contain_text("north Sales in the north")
    await page.goto(f"{site}/jobs?unreadable=1")
    await expect(page.get_by_text(LONG)).to_be_visible()
    await is_fit_for_all(page)
    for query, words in {
        "device=d9": "device d9 is unknown",
        "campaign=autumn": "campaign autumn is unknown",
        "recipient=nobody": "recipient 'nobody' is not a phone number",
        "state=lost": "state is 'lost': choose one of",
        "before=x": "before is 'x': write a whole number",
        "reference=%00": "reference has a NUL character",
    }.items():
        await page.goto(f"{site}/jobs?{query}")
        await expect(page.locator("main")).to_contain_text(words)
    # What was typed stays, with the error at the form.
    await page.goto(f"{site}/jobs?state=failed&recipient=0151+99999999&device=d1")
    await expect(page.get_by_role("alert").filter(has_text="0151 99999999")).to_contain_text("its country")
    await expect(page.get_by_role("textbox", name="Recipient")).to_have_value("0151 99999999")
    await expect(page.get_by_role("textbox", name="Recipient")).to_have_attribute("aria-invalid", "true")
    await expect(page.get_by_role("textbox", name="Device")).to_have_value("d1")
    await expect(page.get_by_role("combobox", name="State")).to_have_value("failed")
    await is_fit_for_all(page)
    await page.get_by_role("textbox", name="Recipient").fill("+49 151 99999999")
    await page.get_by_role("combobox", name="State").select_option(label="any")
    await page.get_by_role("button", name="Show").click()
    await expect(page.get_by_role("region", name="Jobs").get_by_role("row")).to_have_count(2)


async def test_the_story_of_a_message_that_was_read(
    make_daemon: Callable[..., Daemon], producer: Producer, platforms: PlatformServer, page: Page
) -> None:
    meta = Meta(make_daemon, platforms, dashboard={"listen": f"127.0.0.1:{free_port()}"})
    add_device(producer, "cloud_api", "p1", {"phone_number_id": "1", "token": "token"})
    job = insert(producer, "p1", "hello")
    await meta.daemon.start()
    await producer.until_finished(meta.daemon, 1)
    message = row(producer, job)["message_id"]
    await meta.report("1", message, "failed", errors=[{"code": 131053, "title": "Media upload error"}])
    await until(meta.daemon, lambda: row(producer, job)["state"] == "failed")
    await meta.report("1", message, "delivered")
    await meta.report("1", message, "read")
    await until(meta.daemon, lambda: row(producer, job)["read_at"] is not None)
    url = await sign_in(page, meta.daemon)
    await page.goto(f"{url}/jobs/{job}")
    story = page.locator(".story li")
    first = ["inserted", "claimed", f"sent message id {message}"]
    told = [" ".join(one.split()) for one in await story.all_inner_texts()]
    assert all(one.endswith(words) or words in one for one, words in zip(told, first, strict=False)), told
    # Meta's clock has whole seconds, so what it reports may come before what we noted in the same one.
    for words in (
        "failed",
        "131053: Media upload error",
        "delivered to the recipient's phone",
        "read by the recipient",
    ):
        assert any(words in one for one in told[3:]), words
    assert sum(f"sent message id {message}" in one for one in told) == 2, "before and after it failed"
    await expect(page.locator("pre")).to_have_text("hello")
    await is_fit_for_all(page)


async def test_a_job_is_cancelled_and_retried_on_its_page(
    daemon: Daemon, site: str, producer: Producer, page: Page
) -> None:
    (job,) = waiting(producer, body=LONG)
    await page.goto(f"{site}/jobs/{job}")
    await expect(page.locator(".facts").first).to_contain_text("its device: paused")
    await press(page, "Cancel")
    await is_said(page, "cancelled 1 job")
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {job} cancelled")
    assert row(producer, job)["error"] == "cancelled by an operator"
    await page.get_by_role("button", name="Retry").click()
    await is_said(page, "retried 1 job")
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Job {job} queued")
    story = page.locator(".story")
    await expect(story).to_contain_text("cancelled")
    await expect(story).to_contain_text("put back into the queue")
    await is_fit_for_all(page)
    producer.execute("UPDATE shardd.devices SET paused_at = NULL")
    await producer.until_finished(daemon, 1)
    # The page is older than the state: nothing happens, and it says why.
    await press(page, "Cancel")
    await expect(page.locator("#failed")).to_contain_text("sent already")
    assert producer.states() == {"sent": 1}


async def test_all_jobs_of_a_filter_are_counted_before_they_are_retried(
    daemon: Daemon, site: str, producer: Producer, page: Page
) -> None:
    ids = waiting(producer, 12, reference="mine")
    gone = waiting(producer, 1, reference="mine", expires_at="2090-01-01")
    end(producer, [*ids, *gone], "failed")
    producer.execute("UPDATE shardd.archive SET expires_at = now() WHERE id = %s", gone[0])
    waiting(producer, 1, reference="other")
    await page.goto(f"{site}/jobs?reference=mine&state=failed")
    await page.get_by_role("button", name="Retry jobs").click()
    plan = page.get_by_role("region", name="What there is to do")
    await expect(plan).to_contain_text("12")
    await expect(plan).to_contain_text("expires_at has passed")
    assert producer.states() == {"failed": 13, "queued": 1}
    dry = await Command(daemon.config_file)("job", "retry", "--reference=mine", "--dry-run", "--json")
    assert dry.json["retried"] == 12
    await is_fit_for_all(page)
    end(producer, waiting(producer, 2, reference="mine"), "failed")
    await press(page, "Retry: 12 jobs")
    await is_said(page, "retried 12 jobs; 1 job")
    assert producer.states() == {"failed": 3, "queued": 13}, "nobody saw the two that failed after the count"
    begun, act = producer.execute("SELECT target, detail, result FROM shardd.acts WHERE act = 'retry' ORDER BY id")
    assert begun == ("jobs", "state failed, one reference", "begun")
    assert act[::2] == ("jobs", "done")
    assert act[1].startswith("state failed, one reference; retried 12 jobs; 1 job"), "a reference may name a person"
    await page.goto(f"{site}/audit")
    await expect(page.get_by_role("row").filter(has_text="retried 12 jobs")).to_be_visible()
    await expect(page.locator(".bad")).to_have_count(0)


async def test_only_jobs_that_were_counted_are_cancelled(site: str, producer: Producer, page: Page) -> None:
    waiting(producer, 3)
    await page.goto(f"{site}/jobs/all/cancel?device=d1")
    await expect(page.get_by_role("button", name="Cancel: 3 jobs")).to_be_visible()
    waiting(producer, 2)
    await press(page, "Cancel: 3 jobs")
    await is_said(page, "cancelled 3 jobs")
    assert producer.states() == {"cancelled": 3, "queued": 2}


async def test_jobs_of_a_transaction_that_was_open_at_the_count_are_not_cancelled(
    site: str, producer: Producer, page: Page
) -> None:
    """Their created_at is before the count."""
    waiting(producer, 1)
    with psycopg.connect(producer.dsn) as program:
        program.execute(
            "INSERT INTO shardd.jobs (device_id, recipient, body) SELECT 'd1', '+4915112345678', 'x' FROM generate_series(1, 900)"
        )
        await page.goto(f"{site}/jobs/all/cancel?device=d1")
        await expect(page.get_by_role("button", name="Cancel: 1 job")).to_be_visible()
    await press(page, "Cancel: 1 job")
    await is_said(page, "cancelled 1 job")
    assert producer.states() == {"cancelled": 1, "queued": 900}


async def test_no_filter_is_no_reason_to_cancel_everything(site: str, producer: Producer, page: Page) -> None:
    waiting(producer, 2)
    await page.goto(f"{site}/jobs/all/cancel")
    await expect(page.locator("main")).to_contain_text("all jobs at once are too many")
    await page.goto(f"{site}/jobs")
    await expect(page.get_by_role("button", name="Cancel jobs")).to_have_count(0)


async def test_unknown_jobs_are_answered_in_words(site: str, page: Page) -> None:
    for number, words in {
        "4711": "job 4711 is unknown",
        "9" * 30: "job is '999999999999999999999999999999': write a whole number",
    }.items():
        await page.goto(f"{site}/jobs/{number}")
        await expect(page.locator("main")).to_contain_text(words)
