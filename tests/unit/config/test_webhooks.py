"""Sections under names of the user's choice, and the values that only webhooks have."""

from __future__ import annotations

import pytest

from shardd.config import diff_config, parse_config
from shardd.errors import ConfigError
from shardd.supervisor.reload import plan_reload

HOME = {"HOME": "/home/x"}
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
GOOD = {"url": "https://crm.example/in", "secret": f"whsec_{KEY}"}


def webhook(**options: str) -> str:
    return "webhooks:\n  crm:\n" + "".join(f"    {name}: {value}\n" for name, value in (GOOD | options).items())


def issues(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "x.yaml", HOME)
    return str(caught.value).splitlines()


def test_a_webhook_and_its_defaults() -> None:
    crm = parse_config(webhook(), "x.yaml", HOME).webhooks["crm"]
    assert (crm.url, crm.kinds, crm.timeout, crm.concurrency) == (
        GOOD["url"],
        ("job.*", "message.received", "message.media", "device.state", "library.state"),
        15.0,
        8,
    )
    assert (crm.backoff.first, crm.backoff.cap, crm.give_up) == (5.0, 3600.0, 3 * 86400.0)


@pytest.mark.parametrize("text", ["", "webhooks:\n", "webhooks: {}\n", "webhooks: null\n"])
def test_none_is_the_default(text: str) -> None:
    assert parse_config(text, "x.yaml", HOME).webhooks == {}


def test_every_error_in_named_sections_is_reported_at_once() -> None:
    text = f"""\
webhooks:
  crm:
    url: http://example.com/geheim
    secret: whsec_geheim
    kinds: [job.sent, job.sendt]
    tiemout: 3s
    backoff: {{first: 2h}}
  Bad Name: {{url: 'https://x/y', secret: whsec_{KEY}}}
  nothing:
  word: hello
  good:
    url: https://crm.example/a
    secret: whsec_{KEY}
    give_up: 30d
    backoff: {{first: 2h}}
timeout: 3s
"""
    options = "url, secret, previous_secret, kinds, timeout, concurrency, backoff, give_up"
    assert issues(text) == [
        (
            "x.yaml:3: webhooks.crm.url: would send phone numbers over the internet unencrypted; write https://… "
            "(http is for this host, private addresses and names without a dot)"
        ),
        (
            "x.yaml:4: webhooks.crm.secret: is not whsec_ and 24 to 64 random bytes in base64; make one with: "
            'echo "whsec_$(openssl rand -base64 32)", and write it as ${NAME}'
        ),
        "x.yaml:5: webhooks.crm.kinds: has a part job.sendt that is not a kind of event; write job.sent",
        "x.yaml:6: webhooks.crm.tiemout: is not an option of webhooks.crm; did you mean timeout?",
        "x.yaml:8: webhooks.Bad Name: is not a name (a-z, 0-9, '_', '-', at most 40 characters); write one such as crm",
        "x.yaml:9: webhooks.nothing.secret: is missing; write it",
        "x.yaml:9: webhooks.nothing.url: is missing; write it",
        f"x.yaml:10: webhooks.word: is not a section; write its options below it, indented: {options}",
        "x.yaml:14: webhooks.good.give_up: 30d is longer than events.keep (7d); write 7d or less, or a longer keep",
        (
            "x.yaml:15: webhooks.good.backoff.first: 2h is longer than webhooks.good.backoff.cap (1h); write 1h or less, or a "
            "longer cap"
        ),
        "x.yaml:16: timeout: is not an option; did you mean webhooks.NAME.timeout?",
    ]
    (said,) = issues("webhooks: [crm]\n")
    assert said.startswith(
        "x.yaml:1: webhooks: is not a section; write a name below it, indented, such as crm:, and below"
    )


def test_a_webhook_without_events_is_reported() -> None:
    (said,) = issues("events: {keep: 0}\n" + webhook())
    assert said == (
        "x.yaml:1: events.keep: 0 means that no events are written, so webhooks.crm would receive nothing; write 7d, or no "
        "webhooks"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example:8443/a?b=c", "http://localhost/x", "http://127.0.0.1:8080", "http://[::1]:80/x",
        "http://10.1.2.3/x", "http://192.168.0.9/x", "http://crm:8000/hooks", "http://crm.internal/x",
    ],
)  # fmt: skip
def test_urls_that_events_may_be_sent_to(url: str) -> None:
    assert parse_config(webhook(url=f"'{url}'"), "x.yaml", HOME).webhooks["crm"].url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://crm.example/x", "http://8.8.8.8/x", "ftp://crm/x", "crm.example", "https://", "https://x:99999/",
        "https://u:geheim@crm/x", "https://crm/x#y", "https://crm/a b", "",
    ],
)  # fmt: skip
def test_urls_that_may_not(url: str) -> None:
    (said,) = issues(webhook(url=f"'{url}'"))
    assert said.startswith("x.yaml:3: webhooks.crm.url: ")
    assert "geheim" not in said


@pytest.mark.parametrize("secret", ["geheim", "whsec_", "whsec_Z2VoZWlt", "whsec_!", f"whsec_{'A' * 100}", KEY])
def test_secrets_that_are_none(secret: str) -> None:
    (said,) = issues(webhook(secret=f"'{secret}'"))
    assert said.startswith("x.yaml:4: webhooks.crm.secret: is not whsec_ and 24 to 64 random bytes")
    assert secret == "whsec_" or secret not in said


@pytest.mark.parametrize("kinds", ["job.*", "'*'", "job.sent, job.read", "[job.sent, job.read]", "device.*"])
def test_kinds(kinds: str) -> None:
    found = parse_config(webhook(kinds=kinds), "x.yaml", HOME).webhooks["crm"].kinds
    assert found == tuple(kinds.strip("[]'").split(", "))


@pytest.mark.parametrize("kinds", ["''", "sent", "job_sent", "job.sent job.read", "[job.sent, [job.read]]", "{a: b}"])
def test_kinds_that_are_none(kinds: str) -> None:
    (said,) = issues(webhook(kinds=kinds))
    assert said.startswith("x.yaml:5: webhooks.crm.kinds: ")


def test_no_secret_is_shown_and_a_reload_takes_a_webhook_and_drops_it() -> None:
    without = parse_config("", "x.yaml", HOME)
    geheim = webhook(url="https://crm/geheim", previous_secret=GOOD["secret"])
    config = parse_config(geheim, "x.yaml", HOME)
    added, dropped = plan_reload(without, config), plan_reload(config, without)
    assert (added.config.webhooks, dropped.config.webhooks) == (config.webhooks, {})
    assert (added.notes, added.restart_shards, dropped.notes) == ([], False, [])
    assert (added.changed, dropped.changed) == (["webhooks.crm: added"], ["webhooks.crm: removed"])
    other = plan_reload(config, parse_config(webhook(url="https://crm/geheim", give_up="2d"), "x.yaml", HOME))
    assert other.changed == ["webhooks.crm.previous_secret: (hidden) → null", "webhooks.crm.give_up: 3d → 2d"]
    shown = f"{config!r} {config.webhooks['crm']} {diff_config(without, config)} {added.changed}"
    assert "geheim" not in shown
    assert KEY not in shown
