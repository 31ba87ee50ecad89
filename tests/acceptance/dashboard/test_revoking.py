"""Taking messages back on the dashboard: a whole campaign, and one job, on its page and with a token."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.acceptance.dashboard.looks import end, is_fit_for_all, is_said, press, waiting
from tests.fixtures.api import MakeProgram
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer

ADD = (
    "INSERT INTO shardd.jobs (device_id, recipient, body, campaign)"
    " SELECT 'd1', '+49151' || 1000000 + g, 'only 1 EUR', 'spring' FROM generate_series(1, %s) g"
)


@pytest.fixture
async def spring(daemon: Daemon, producer: Producer) -> list[int]:
    """A campaign that has sent three messages, one of them to somebody who opted out since; one of its jobs waits."""
    producer.add_devices(1)
    producer.execute("INSERT INTO shardd.campaigns (id) VALUES ('spring')")
    producer.execute(ADD, 3)
    await producer.until_finished(daemon, 3)
    producer.execute("INSERT INTO shardd.opt_outs (recipient) VALUES ('+491511000003')")
    producer.execute("UPDATE shardd.campaigns SET state = 'paused'")
    producer.execute(ADD, 1)
    return [row[0] for row in producer.execute("SELECT id FROM shardd.outcomes ORDER BY id")]


def acts(producer: Producer) -> list[tuple[str, str, str, str]]:
    rows = producer.execute(
        "SELECT act, target, detail, result FROM shardd.acts WHERE act NOT LIKE 'sign%%' AND how <> 'command' ORDER BY id"
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


async def test_the_messages_of_a_campaign_are_revoked_and_the_page_says_which_cannot(
    site: str, daemon: Daemon, producer: Producer, spring: list[int], page: Page
) -> None:
    await page.goto(f"{site}/campaigns/spring")
    await page.get_by_role("button", name="Revoke").click()
    main = page.locator("main")
    await expect(main).to_contain_text("1 job of campaign spring still waits: cancel it")
    await expect(page.get_by_role("row", name="1 sent marketing spring the recipient opted out")).to_be_visible()
    await is_fit_for_all(page)
    await press(page, "Revoke 2 messages")
    await is_said(page, "revoking 2 jobs; 1 job (3): the recipient opted out")
    await producer.until_finished(daemon, 5)
    await page.goto(f"{site}/campaigns/spring/revoke")
    await expect(page.get_by_role("row", name="2 sent marketing spring it is revoked already")).to_be_visible()
    await expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    await page.goto(f"{site}/campaigns/spring")
    await expect(main).to_contain_text("2 sent")
    await are_found_apart(site, daemon, producer, page, spring[:2])
    words = "revoking 2 jobs; 1 job (3): the recipient opted out"
    assert acts(producer)[:2] == [
        ("revoke", "campaign spring", "", "begun"),
        ("revoke", "campaign spring", words, "done"),
    ]


async def are_found_apart(site: str, daemon: Daemon, producer: Producer, page: Page, messages: list[int]) -> None:
    """Revocations among other jobs: from the campaign's numbers, in the list, in doubt, and by a command."""
    shardd = Command(daemon.config_file)
    revocations = [
        producer.execute("SELECT revoked_by FROM shardd.outcomes WHERE id = %s", one)[0][0] for one in messages
    ]
    rows, listed = page.locator("tbody tr"), page.get_by_role("region", name="Jobs")
    await page.locator("dd", has_text="2 sent").get_by_role("link", name="2 sent").click()
    await expect(rows).to_have_count(2)
    for revocation, message in zip(revocations, messages, strict=True):
        await expect(listed).to_contain_text(f"{revocation}revocation of {message}")
    await is_fit_for_all(page)
    await page.goto(f"{site}/jobs?kind=text&state=sent")
    await expect(rows).to_have_count(3)
    await expect(listed).not_to_contain_text("revocation of")
    # A message and a revocation come in doubt.
    (message,) = waiting(producer, 1)
    await producer.until_finished(daemon, 6)
    producer.execute("UPDATE shardd.devices SET paused_at = now()")
    producer.execute("INSERT INTO shardd.jobs (kind, revokes) VALUES ('revoke', %s)", message)
    waiting(producer, 1)
    doubts = [row[0] for row in producer.execute("SELECT id FROM shardd.jobs WHERE campaign IS NULL ORDER BY id")]
    end(producer, doubts, "in_doubt", "its worker died", "worker")
    await page.goto(f"{site}/doubts")
    await expect(rows).to_have_count(2)
    await page.get_by_label("Kind").select_option("revocation")
    await page.get_by_role("button", name="Show").click()
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text(f"{doubts[0]}revocation of {message}")
    await page.get_by_role("button", name="Not sent …").click()
    await press(page, "Record as not sent: 1 job")
    await is_said(page, "resolved 1 job")

    shown = (await shardd("campaign", "show", "spring")).out
    assert "shardd job list --revokes-campaign=spring" in shown
    found = await shardd("job", "list", "--revokes-campaign=spring", "--json")
    assert [one["id"] for one in found.json] == revocations[::-1]
    found = await shardd("job", "list", "--kind=revoke", "--state=failed")
    assert f"revokes {message}; not sent: decided" in " ".join(found.out.split())
    assert (await shardd("job", "list", "--revokes-campaign=autumn")).code == 64


async def test_a_job_is_revoked_and_tells_its_story(
    site: str, daemon: Daemon, producer: Producer, spring: list[int], page: Page
) -> None:
    first, _, _, waits = spring
    await page.goto(f"{site}/jobs/{waits}")
    await expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    await expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    await page.goto(f"{site}/jobs/{first}")
    await press(page, "Revoke")
    await is_said(page, "revoking 1 job")
    await producer.until_finished(daemon, 4)
    await page.goto(f"{site}/jobs/{first}")
    ((revocation,),) = producer.execute("SELECT revoked_by FROM shardd.outcomes WHERE id = %s", first)
    await expect(page.locator("main")).to_contain_text(f"job {revocation}, which is sent")
    await expect(page.locator("ol.story")).to_contain_text(f"deletion sent by job {revocation}")
    await expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    await page.get_by_role("link", name=f"job {revocation}").click()
    await expect(page.locator("main")).to_contain_text(f"the message of job {first}")
    await expect(page.get_by_role("button", name="Revoke")).to_have_count(0)
    assert acts(producer) == [("revoke", f"job {first}", "revoking 1 job", "done")]


async def test_a_token_revokes(
    daemon: Daemon, producer: Producer, spring: list[int], make_program: MakeProgram
) -> None:
    operate, look, send = [await make_program(may) for may in ("operate", "look", "send")]
    first, second, stopped, waits = spring
    assert (await operate.post(f"/jobs/{first}/revoke")).json == {"done": True, "words": "revoking 1 job"}
    again = await operate.post(f"/jobs/{first}/revoke")
    assert again.json == {"done": False, "words": "revoking 0 jobs; 1 job was already done"}
    for job, words in ((waits, "it was not sent; cancel it instead"), (stopped, "the recipient opted out")):
        refused = await operate.post(f"/jobs/{job}/revoke")
        assert (refused.status, refused.problem) == (409, "conflict")
        assert words in refused.json["detail"]
    assert (await operate.post("/jobs/4711/revoke")).status == 404
    all_of_it = (await operate.post("/campaigns/spring/revoke")).json
    assert all_of_it == {
        "done": True,
        "words": "revoking 1 job; 1 job was already done; 1 job (3): the recipient opted out",
    }
    assert (await operate.post("/campaigns/spring/revoke")).json["done"] is False
    assert (await operate.post("/campaigns/autumn/revoke")).status == 404
    assert (await look.post(f"/jobs/{second}/revoke")).status == 403
    await producer.until_finished(daemon, 5)
    of_spring = (await look.get("/jobs?revokes_campaign=spring&kind=revoke")).json["jobs"]
    assert [one["revokes"] for one in of_spring] == [second, first]
    assert (await look.get("/jobs?revokes_campaign=autumn")).json["jobs"] == []
    shown = (await look.get(f"/jobs/{first}")).json
    assert (shown["revocation_state"], shown["revoked_at"] is None) == ("sent", False)
    # A program that sends has the column of the INSERT.
    refused = await send.post("/jobs", {"kind": "revoke", "revokes": first})
    assert (refused.status, refused.json["field"]) == (422, "revokes")
    assert f"job {first} is revoked by job {shown['revoked_by']} already" in refused.json["detail"]
    assert acts(producer)[0] == ("revoke", f"job {first}", "", "done")
