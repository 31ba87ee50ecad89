"""A token that operates does what the pages and commands do, and the audit log says so."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tests.acceptance.dashboard.looks import StartDaemon
from tests.fixtures.api import HELLO, MakeProgram
from tests.fixtures.browser import free_port
from tests.support.api import Program, make_token, site_of
from tests.support.command import Command
from tests.support.daemon import Daemon, Producer
from tests.support.queue_rows import connect

SOMETIME = {"settled_at": "2026-01-31T09:00:00Z"}
ALL_FAILED = {"state": "failed", "snapshot": "1:1:"}


def acts(producer: Producer) -> list[tuple[str, str, str, str, str]]:
    """What tokens did."""
    rows = producer.execute("SELECT who, how, act, target, result FROM shardd.acts WHERE how = 'token' ORDER BY id")
    return [tuple(row) for row in rows]


async def as_known(program: Program, number: int) -> dict[str, str]:
    """What an act that decides a job says of it."""
    return {"settled_at": (await program.get(f"/jobs/{number}")).json["settled_at"]}


def end_in_doubt(dsn: str, number: int) -> None:
    with connect(dsn) as owner:
        owner.execute("SELECT shardd.end_jobs(array[%s::bigint], 'in_doubt', 'lost', NULL)", [number])


async def test_devices_and_campaigns_are_paused_resumed_and_cancelled(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    assert (await Command(daemon.config_file)("campaign", "add", "spring")).code == 0
    operate, look = await make_program("operate"), await make_program("look")
    assert (await operate.post("/devices/d1/pause", {"why": "new phone"})).json == {
        "done": True,
        "words": "paused device d1",
    }
    shown = (await look.get("/devices/d1")).json
    assert (shown["shown_state"], shown["paused_why"]) == ("paused", "new phone")
    long = await operate.post("/devices/d1/pause", {"why": "x" * 201})
    assert (long.status, long.json["field"], long.json["fix"]) == (
        422,
        "why",
        "write a text of up to 200 characters or null",
    )
    paused_already = {"done": False, "words": "nothing to do: device d1 is paused already"}
    assert (await operate.post("/devices/d1/pause")).json == paused_already
    assert (await look.get("/devices/d1")).json["paused_why"] == "new phone"
    assert (await operate.post("/devices/d1/resume")).json["done"] is True
    resumed_already = {"done": False, "words": "nothing to do: device d1 is not paused"}
    assert (await operate.post("/devices/d1/resume")).json == resumed_already
    assert (await look.get("/devices/d1")).json["shown_state"] == "ready"
    assert (await operate.post("/campaigns/spring/pause")).json["done"] is True
    assert (await look.get("/campaigns/spring")).json["state"] == "paused"
    assert (await operate.post("/campaigns/spring/resume")).json["done"] is True
    running = {"done": False, "words": "nothing to do: campaign spring is not paused"}
    assert (await operate.post("/campaigns/spring/resume")).json == running
    assert (await operate.post("/campaigns/spring/cancel", {"why": "wrong text"})).json["done"] is True
    again = await operate.post("/campaigns/spring/cancel")
    assert (again.status, again.json["done"]) == (200, False)
    final = await operate.post("/campaigns/spring/resume")
    assert (final.status, final.problem) == (409, "conflict")
    assert "cancelled, and that is final" in final.json["detail"]
    assert (await operate.post("/devices/d9/pause")).status == 404
    for ask, path, status, field in (
        (operate.get, "/devices/%00", 404, None),
        (look.get, "/campaigns/%00", 404, None),
        (look.get, "/jobs?campaign=%00", 400, "campaign"),
    ):
        answer = await ask(path)
        assert (answer.status, answer.json.get("field")) == (status, field), (path, answer)
    nul = await operate.post("/devices/d1/pause", {"why": "a\0b"})
    assert (nul.status, nul.problem, nul.json["field"]) == (422, "invalid", "why")
    assert (await look.post("/devices/d1/pause")).status == 403
    who = ("operate-1", "token")
    done = [(*who, *row) for row in (
        ("pause", "device d1", "done"), ("pause", "device d1", paused_already["words"]),
        ("resume", "device d1", "done"), ("resume", "device d1", resumed_already["words"]),
        ("pause", "campaign spring", "done"), ("resume", "campaign spring", "done"),
        ("resume", "campaign spring", running["words"]),
        ("cancel", "campaign spring", "done"), ("cancel", "campaign spring", "campaign spring was cancelled already"),
    )]  # fmt: skip
    found, refused = acts(producer)[: len(done)], acts(producer)[len(done) :]
    assert found == done
    assert [row[:4] for row in refused] == [
        (*who, "resume", "campaign spring"),
        (*who, "pause", "device d9"),
        ("look-2", "token", "pause", "/api/v1/devices/d1/pause"),
    ]
    assert "final" in refused[0][4]
    assert "unknown" in refused[1][4]
    assert "look-2 may look" in refused[2][4]


async def test_campaigns_begin_and_change_on_their_terms(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    operate, look = await make_program("operate"), await make_program("look")
    spring = {"id": "spring", "label": "Spring", "weight": 2, "device_cap": 50, "paused": True}
    assert (await operate.post("/campaigns", spring)).json == {"done": True, "words": "added campaign spring"}
    shown = (await look.get("/campaigns/spring")).json
    assert {name: shown[name] for name in ("label", "weight", "device_cap", "state")} == {
        "label": "Spring", "weight": 2.0, "device_cap": 50, "state": "paused",
    }  # fmt: skip
    assert (await operate.post("/campaigns", spring)).json == {"done": False, "words": "campaign spring already exists"}
    other = await operate.post("/campaigns", spring | {"weight": 3})
    assert (other.status, other.problem, other.json["value"]) == (409, "conflict", "spring")
    assert "already exists with other terms (label Spring, weight 2, device_cap 50)" in other.json["detail"]
    changed = await operate.post("/campaigns/spring/set", {"label": "", "device_cap": 0})
    assert changed.json == {"done": True, "words": "changed campaign spring: label , device_cap 0"}
    shown = (await look.get("/campaigns/spring")).json
    assert (shown["label"], shown["weight"], shown["device_cap"]) == (None, 2.0, None)
    assert (await operate.post("/campaigns/spring/cancel")).json["done"] is True
    final = await operate.post("/campaigns", {"id": "spring"})
    assert (final.status, "that is final" in final.json["detail"]) == (409, True)
    assert (await operate.post("/campaigns/autumn/set", {"weight": 2})).status == 404
    for path, body, field, fix in (
        ("/campaigns", {"id": "a b"}, "id", "write at most 64 of the characters"),
        ("/campaigns", {"label": "x"}, "id", "write a text"),
        ("/campaigns", {"id": "x", "weight": 0}, "weight", "write a number from 0.001 to 1,000"),
        ("/campaigns", {"id": "x", "device_cap": -1}, "device_cap", "write a whole number from 0 to 1,000,000"),
        ("/campaigns/spring/set", {}, "label", "send one or more of label, weight, device_cap"),
        ("/campaigns/spring/set", {"paused": True}, "paused", "known: label, weight, device_cap"),
    ):
        wrong = await operate.post(path, body)
        assert (wrong.status, wrong.json["field"]) == (422, field), body
        assert wrong.json["fix"].startswith(fix), wrong
    told = producer.execute(
        "SELECT act, target, detail FROM shardd.acts WHERE who = 'operate-1' AND result = 'done' ORDER BY id"
    )
    assert [tuple(row) for row in told] == [
        ("add", "campaign spring", "label Spring, weight 2.0, device_cap 50"),
        ("set", "campaign spring", "label , device_cap 0"),
        ("cancel", "campaign spring", ""),
    ]


async def test_a_shard_is_restarted_and_a_client_closed(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    operate, look = await make_program("operate"), await make_program("look")
    before = [shard["pid"] for shard in (await daemon.status())["shards"]]
    assert (await operate.post("/shards/0/restart")).json == {"done": True, "words": "shard 0 has a new worker"}
    after = [shard["pid"] for shard in (await daemon.status())["shards"]]
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    assert (await operate.post("/devices/d1/close")).json["done"] is True
    assert (await operate.post("/shards/999/restart")).status == 422
    assert (await operate.post("/shards/x/restart")).status == 404
    assert (await operate.post("/devices/nobody/close")).status == 404
    assert (await look.post("/shards/0/restart")).status == 403
    assert [one[2:] for one in acts(producer)][:4] == [
        ("restart", "shard 0", "begun"), ("restart", "shard 0", "done"),
        ("close client", "device d1", "begun"), ("close client", "device d1", "done"),
    ]  # fmt: skip


async def test_a_webhook_is_tried_again(start_daemon: StartDaemon, producer: Producer) -> None:
    hook = {"url": f"http://127.0.0.1:{free_port()}/hook", "kinds": ["device.*"], "secret": "whsec_" + "c2VjcmV0" * 4}
    daemon = await start_daemon(webhooks={"crm": hook})
    await daemon.until(lambda _: producer.execute("SELECT name FROM shardd.webhook_cursors") != [])
    producer.execute(
        "INSERT INTO shardd.webhook_failures (name, id, event_id, at, kind, body, tries, error)"
        " VALUES ('crm', 1, 'e1', now(), 'device.state', '{}', 1, 'gone')"
    )
    async with Program(site_of(daemon), await make_token(daemon, "operate-1", "operate")) as operate:
        (failure,) = (await operate.get("/webhooks/crm/failures")).json["failures"]
        assert (failure["event_id"], failure["error"], failure["again"]) == ("e1", "gone", False)
        tried = await operate.post("/webhooks/crm/retry")
        assert tried.json == {"done": True, "words": "webhook crm is tried at once; sent once more: 1 event"}
        for ask, path in ((operate.get, "/webhooks/erp/failures"), (operate.post, "/webhooks/erp/retry")):
            unknown = await ask(path)
            assert (unknown.status, unknown.json["field"], unknown.json["value"]) == (404, "webhook", "erp")
    assert producer.execute("SELECT retries_asked FROM shardd.webhook_cursors") == [(1,)]
    assert [row[2:] for row in acts(producer)] == [
        ("retry", "webhook crm", "done"),
        ("retry", "webhook erp", "webhook erp is unknown; the others: shardd webhook list"),
    ]


async def test_links_for_phones_are_made_and_revoked(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    operate, look = await make_program("operate"), await make_program("look")
    producer.execute(
        "INSERT INTO shardd.devices (id, transport, state)"
        " SELECT 'shop-' || n, 'whatsapp', 'unpaired' FROM generate_series(1, 3) n"
    )
    body = {"devices": ["shop-1", "shop-2", "d1", "d9"], "minutes": 5}
    made = (await operate.post("/pairing-links", body)).json
    first, second, *refused = made["links"]
    assert [one["device"] for one in made["links"]] == body["devices"]
    assert refused == [
        {"device": "d1", "why": "sends by sandbox, which has no phone to link"},
        {"device": "d9", "why": "unknown; the others: shardd device list"},
    ]
    assert "no other device can open" in made["warning"]  # on loopback
    assert len({first["link"], second["link"]}) == 2
    async with aiohttp.ClientSession() as browser, browser.get(first["link"]) as page:
        assert page.status == 200
        assert "link" in (await page.text()).lower()
    page_one = (await look.get("/pairing-links?limit=2")).json
    assert [(one["id"], one["link_state"], one["made_by"]) for one in page_one["phones"]] == [
        ("shop-1", "unopened", "token operate-1"),
        ("shop-2", "unopened", "token operate-1"),
    ]
    page_two = (await look.get(f"/pairing-links?limit=2&after={page_one['later']}")).json
    assert ([one["link_state"] for one in page_two["phones"]], page_two["later"]) == (["none"], None)
    assert first["ends_at"] == page_one["phones"][0]["ends_at"]
    assert (await operate.post("/pairing-links/shop-2/revoke")).json["done"] is True
    assert (await operate.post("/pairing-links/shop-2/revoke")).json["done"] is False
    async with aiohttp.ClientSession() as browser, browser.get(second["link"]) as page:
        assert page.status == 410
    assert (await look.get("/pairing-links?search=op-2")).json["phones"][0]["link_state"] == "none"
    for path, wrong, status, words in (
        ("/pairing-links", {"devices": ["d9"]}, 404, "no link was made: device d9 is unknown"),
        ("/pairing-links", {"devices": ["d1", "d2"]}, 409, "has no phone to link; nor 1 other device"),
        ("/pairing-links", {"devices": []}, 422, "devices is []"),
        ("/pairing-links", {"devices": ["shop-1"], "minutes": 7}, 422, "minutes is 7: write one of 5, 15, 30, 60"),
        ("/pairing-links/d9/revoke", None, 404, "device d9 is unknown"),
    ):
        answer = await operate.post(path, wrong)
        assert (answer.status, words in answer.json["detail"]) == (status, True), answer

    log = (await operate.get("/acts?who=operate-1&limit=3")).json
    assert [(one["act"], one["target"]) for one in log["acts"]] == [
        ("revoke pairing link", "device d9"),
        ("make pairing links", "2 devices"),
        ("make pairing links", "device d9"),
    ]
    older = (await operate.get(f"/acts?who=operate-1&before={log['older']}")).json
    assert [(one["act"], one["target"], one["result"], one["detail"]) for one in older["acts"]] == [
        ("revoke pairing link", "device shop-2", "nothing to do: device shop-2 has no link", ""),
        ("revoke pairing link", "device shop-2", "done", ""),
        ("make pairing links", "2 of 4 devices", "done", "for 5 minutes"),
    ]
    assert older["older"] is None
    printed = (await Command(daemon.config_file)("dashboard", "acts", "--who=operate-1", "--json")).json
    assert printed == log["acts"] + older["acts"]
    assert (await look.get("/acts")).status == 403


async def test_jobs_are_cancelled_retried_and_decided(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram, dsn: str
) -> None:
    operate, send = await make_program("operate"), await make_program("send")
    assert (await operate.post("/devices/d1/pause")).status == 200
    number = (await send.post("/jobs", HELLO)).json["jobs"][0]["id"]
    assert (await operate.post(f"/jobs/{number}/cancel")).json == {"done": True, "words": "cancelled 1 job"}
    cancelled = await operate.post(f"/jobs/{number}/cancel")
    assert cancelled.json["done"] is False
    known = await as_known(operate, number)
    retried = await operate.post(f"/jobs/{number}/retry", known)
    assert retried.json == {"done": True, "words": "retried 1 job"}
    again = await operate.post(f"/jobs/{number}/retry", known)
    assert (again.status, again.json["done"]) == (200, False)
    end_in_doubt(dsn, number)
    known = await as_known(operate, number)
    doubted = await operate.post(f"/jobs/{number}/retry", known)
    assert (doubted.status, doubted.problem, doubted.json["field"]) == (409, "conflict", "may_send_twice")
    assert "retrying may send the message twice" in doubted.json["detail"]
    missing = await operate.post(f"/jobs/{number}/resolve")
    assert (missing.status, missing.json["detail"]) == (422, "sent is missing: write true or false")
    assert (await operate.post(f"/jobs/{number}/resolve", {"sent": True} | known)).json["done"] is True
    assert (await operate.post(f"/jobs/{number}/resolve", {"sent": True} | known)).json["done"] is False
    shown = (await operate.get(f"/jobs/{number}")).json
    assert shown["state"] == "sent"
    assert "token operate-1" in shown["error"]
    refused = await operate.post(f"/jobs/{number}/retry", {"may_send_twice": True} | known)
    assert (refused.status, refused.problem) == (409, "conflict")
    assert "sent already" in refused.json["detail"]
    assert (await operate.post("/jobs/4711/cancel")).status == 404
    assert ("operate-1", "token", "resolve", f"job {number}", "done") in acts(producer)
    cancels = [row[4] for row in acts(producer) if row[2:4] == ("cancel", f"job {number}")]
    assert cancels == ["done", cancelled.json["words"]]


async def test_a_program_decides_only_the_end_of_a_job_that_it_knows(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram, dsn: str
) -> None:
    operate, send = await make_program("operate"), await make_program("send")
    assert (await operate.post("/devices/d1/pause")).status == 200
    number = (await send.post("/jobs", HELLO)).json["jobs"][0]["id"]
    end_in_doubt(dsn, number)
    before = await as_known(operate, number)
    assert (await operate.post(f"/jobs/{number}/retry", before | {"may_send_twice": True})).json["done"] is True
    waits = await operate.post(f"/jobs/{number}/resolve", before | {"sent": False})
    assert (waits.status, waits.json["detail"]) == (409, f"job {number}: not in doubt, but queued")
    end_in_doubt(dsn, number)
    now = await as_known(operate, number)
    for act, body in (("retry", {"may_send_twice": True}), ("resolve", {"sent": True}), ("resolve", {"sent": False})):
        refused = await operate.post(f"/jobs/{number}/{act}", before | body)
        assert (refused.status, refused.problem, refused.json["field"]) == (409, "conflict", "settled_at"), act
        assert refused.json["value"] == before["settled_at"]
        told = f"job {number} is in doubt since {now['settled_at']}, and settled_at is {before['settled_at']}: look at"
        assert refused.json["detail"].startswith(told)
        missing = await operate.post(f"/jobs/{number}/{act}", body)
        assert (missing.status, missing.json["field"]) == (422, "settled_at")
        assert "a time with a time zone" in missing.json["fix"]
    assert producer.states() == {"in_doubt": 1}
    assert (await operate.post(f"/jobs/{number}/resolve", now | {"sent": False})).json["done"] is True


async def test_all_jobs_with_the_same_traits_are_counted_and_then_acted_on(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram, dsn: str
) -> None:
    operate, send, look = await make_program("operate"), await make_program("send"), await make_program("look")
    assert (await operate.post("/devices/d1/pause")).status == 200
    sent = (await send.post("/jobs", [HELLO, HELLO, HELLO])).json["jobs"]
    first, second, third = (one["id"] for one in sent)

    async def count(act: str, **traits: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """(the count, what the act is told of these jobs)."""
        counted = (await operate.get(f"/jobs/all/{act}?{urlencode(traits)}")).json
        assert counted["unfinished"] is False
        return counted, traits | {"snapshot": counted["snapshot"]}

    counted, told = await count("cancel", device="d1")
    group = {"state": "queued", "class": "marketing", "campaign": None, "obstacle": None, "why": None, "jobs": 3}
    assert (counted["jobs"], counted["counts"], counted["warning"]) == (3, [group], "")
    assert (await look.get("/jobs/all/cancel?device=d1")).status == 403
    later = (await send.post("/jobs", HELLO)).json["jobs"][0]["id"]
    cancelled = await operate.post("/jobs/all/cancel", told)
    assert cancelled.json == {"jobs": 3, "already": 0, "left": [], "unfinished": False, "words": "cancelled 3 jobs"}
    assert (await operate.get(f"/jobs/{later}")).json["state"] == "queued"  # nobody saw it counted
    assert (await operate.post("/jobs/all/cancel", told)).json["jobs"] == 0

    _, told = await count("retry", state="cancelled", device="d1")
    assert (await operate.post("/jobs/all/retry", told)).json["jobs"] == 3
    for number in (first, second):
        end_in_doubt(dsn, number)
    doubts, told = await count("retry", state="in_doubt", device="d1")
    assert doubts["warning"] == "2 jobs in doubt may have reached the recipient; retrying may send the message twice"
    refused = await operate.post("/jobs/all/retry", told)
    assert (refused.status, refused.problem, refused.json["field"]) == (409, "conflict", "may_send_twice")
    assert (await operate.post("/jobs/all/retry", told | {"may_send_twice": True})).json["jobs"] == 2
    end_in_doubt(dsn, first)  # once more: nobody saw that
    assert (await operate.post("/jobs/all/retry", told | {"may_send_twice": True})).json["jobs"] == 0
    assert (await operate.post("/jobs/all/resolve", told | {"sent": True})).json["jobs"] == 0
    _, told = await count("resolve", device="d1")
    assert (await operate.post("/jobs/all/resolve", told | {"sent": False})).json["words"] == "resolved 1 job"
    assert "token operate-1" in (await operate.get(f"/jobs/{first}")).json["error"]
    counted, told = await count("revoke", state="sent")
    assert counted["jobs"] == 0
    assert (await operate.post("/jobs/all/revoke", told)).json["jobs"] == 0

    for body, status, field in (
        ({"snapshot": told["snapshot"]}, 422, "state"),  # all jobs at once
        ({"device": "d1"}, 422, "snapshot"),
        ({"device": "d1", "snapshot": "now"}, 422, "snapshot"),
        ({"device": "d1", "snapshot": "9000000:9000000:"}, 422, "snapshot"),
        (told | {"recipient": "x"}, 422, "recipient"),
    ):
        wrong = await operate.post("/jobs/all/cancel", body)
        assert (wrong.status, wrong.json["field"]) == (status, field), body
    assert (await operate.get("/jobs/all/cancel")).json["field"] == "state"
    unknown = await operate.get("/jobs/all/cancel?device=d9")
    assert unknown.status == 422
    assert "device d9 is unknown" in unknown.json["detail"]
    rows = producer.execute(
        "SELECT act, detail, result FROM shardd.acts WHERE who = 'operate-1' AND target = 'jobs' ORDER BY id LIMIT 3"
    )
    assert [tuple(row) for row in rows] == [
        ("cancel", "device d1", "begun"),
        ("cancel", "device d1; cancelled 3 jobs", "done"),
        ("cancel", "device d1", "begun"),
    ]
    queued = (await operate.get("/jobs?state=queued")).json["jobs"]
    assert {job["id"] for job in queued} == {second, third, later}


async def test_what_is_refused_has_the_word_of_what_is_done(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    """Each act of the API is begun, done or refused by the same word."""
    operate, look, send = await make_program("operate"), await make_program("look"), await make_program("send")
    assert (await Command(daemon.config_file)("campaign", "add", "spring")).code == 0
    number = (await send.post("/jobs", HELLO)).json["jobs"][0]["id"]
    paths = {
        "/devices/d1/pause": {}, "/devices/d1/resume": None, "/campaigns/spring/pause": {}, "/campaigns/spring/resume": None,
        "/campaigns/spring/revoke": None, "/campaigns/spring/cancel": {}, f"/jobs/{number}/cancel": None,
        f"/jobs/{number}/retry": SOMETIME, f"/jobs/{number}/revoke": None, f"/jobs/{number}/resolve": {"sent": True} | SOMETIME,
        "/opt-outs": {"recipient": "+4915112345678"}, "/jobs/all/retry": ALL_FAILED, "/jobs/all/cancel": ALL_FAILED,
        "/jobs/all/resolve": {"sent": True} | ALL_FAILED, "/jobs/all/revoke": ALL_FAILED, "/campaigns": {"id": "autumn"},
        "/campaigns/autumn/set": {"weight": 2}, "/webhooks/crm/retry": None,
        "/pairing-links": {"devices": ["d1"]}, "/pairing-links/d1/revoke": None,
    }  # fmt: skip
    for path, body in paths.items():
        ((last,),) = producer.execute("SELECT coalesce(max(id), 0) FROM shardd.acts")
        assert (await look.post(path, body)).status == 403, path
        assert (await operate.post(path, body)).status in {200, 409, 404 if "/crm/" in path else 200}, path
        words = producer.execute("SELECT DISTINCT act, who FROM shardd.acts WHERE id > %s", last)
        assert {who for _, who in words} == {"operate-1", "look-2"}, path
        assert len({act for act, _ in words}) == 1, (path, words)


async def test_jobs_are_found_by_their_recipient(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    look, send = await make_program("look"), await make_program("send")
    sent = (await send.post("/jobs", [HELLO | {"recipient": "+49 151 99999999"}, HELLO])).json["jobs"]
    for spelling in ("0049 151 99999999", "4915199999999@s.whatsapp.net"):
        found = await look.ask("GET", f"/api/v1/jobs?{urlencode({'recipient': spelling})}")
        assert [job["id"] for job in found.json["jobs"]] == [sent[0]["id"]], spelling
        assert found.json["unfinished"] is False
    assert len((await look.get("/jobs?unreadable=false")).json["jobs"]) == 2
    for other in ("device_group=sales", "unreadable=true"):
        assert (await look.get(f"/jobs?{other}")).json["jobs"] == [], other
    wrong = await look.get("/jobs?recipient=0151")
    assert (wrong.status, wrong.json["field"], wrong.json["value"]) == (400, "recipient", "0151")
    assert "its country" in wrong.json["detail"]
    assert (await send.get("/jobs?recipient=0151")).json["field"] == "recipient"  # its role's jobs, by reference only


async def test_somebody_is_opted_out(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    operate, look = await make_program("operate"), await make_program("look")
    added = await operate.post("/opt-outs", {"recipient": "+49 151 / 12345678", "note": "by phone"})
    assert added.json == {"done": True, "words": "+4915112345678 is opted out: no more messages are sent to them."}
    assert (await operate.post("/opt-outs", {"recipient": "+4915112345678"})).json["done"] is False
    (listed,) = (await look.get("/opt-outs")).json["opt_outs"]
    assert (listed["recipient"], listed["source"], listed["note"]) == ("+4915112345678", "operator", "by phone")
    for body, words in (
        ({"recipient": "bob"}, "recipient 'bob' is not a phone number"),
        ({"recipient": " "}, "recipient is empty"),
        ({"recipient": "1" * 101}, "recipient cannot be stored"),
        ({"recipient": "+4915112345678", "note": "x" * 1001}, "note cannot be stored"),
        ({}, "recipient is missing"),
    ):
        refused = await operate.post("/opt-outs", body)
        assert (refused.status, refused.problem) == (422, "invalid")
        assert words in refused.json["detail"]
        assert refused.json["field"] == words.split()[0]
    assert (await look.post("/opt-outs", {"recipient": "+4915112345679"})).status == 403
    (refused_act,) = [row[2:4] for row in acts(producer) if row[0] == "look-2"]
    assert refused_act == ("opt out", "/api/v1/opt-outs")
    told = producer.execute("SELECT act, target, detail, result FROM shardd.acts WHERE who = 'operate-1' ORDER BY id")
    assert [tuple(row) for row in told] == [
        ("opt out", "a person", "added", "done"),
        ("opt out", "a person", "", "already listed"),
        ("opt out", "a person", "", "the number cannot be read"),
    ]


async def test_an_answer_waits_for_the_next_event(
    daemon: Daemon, devices: None, producer: Producer, make_program: MakeProgram
) -> None:
    send, other = await make_program("send"), await make_program("send")
    begin = (await send.get("/events")).json["position"]
    waits = asyncio.create_task(send.get(f"/events?after={begin}&kinds=job.sent&wait=30"))
    nothing = await other.get(f"/events?after={begin}&kinds=job.failed&wait=1")
    assert nothing.json["events"] == []
    assert not waits.done()
    number = (await other.post("/jobs", HELLO)).json["jobs"][0]["id"]
    told = (await waits).json
    assert [(event["kind"], event["job_id"]) for event in told["events"]] == [("job.sent", number)]
    assert (await send.get(f"/events?after={told['position']}&kinds=job.*")).json["events"] == []


async def test_a_request_that_waits_ends_with_its_token(
    daemon: Daemon, devices: None, make_program: MakeProgram
) -> None:
    send, other = await make_program("send"), await make_program("send")
    begin = (await send.get("/events")).json["position"]
    waits = asyncio.create_task(send.get(f"/events?after={begin}&wait=30"))
    await other.get(f"/events?after={begin}&wait=1")
    assert (await Command(daemon.config_file)("token", "remove", "send-1")).code == 0
    await other.post("/jobs", HELLO)
    answer = await waits
    assert (answer.status, answer.problem) == (401, "bad-token")
