"""The sections `events` and `webhooks`: what is kept of what happened, and which programs are told of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shardd.config.fields import Section, section, setting
from shardd.config.sections import BackoffConfig
from shardd.config.values import Seconds, Whole
from shardd.config.webhook_values import Kinds, WebhookSecret, WebhookUrl


class EventsConfig(Section):
    """How long programs can read in shardd.events what happened; the same on every host."""

    keep: Annotated[float, Seconds("0", "366d")] = setting(
        "7d",
        "How long an event can be read: longer than any reader is ever away. 0: none are written, which saves a settle about "
        "a quarter of its work in the database; webhooks are told nothing then.",
        reload="live",
    )
    most: Annotated[int, Whole(1000, 1_000_000_000)] = setting(
        "1000000",
        "Events kept at most; a message makes up to three. Each takes about 0.3 kB. More if readers miss some.",
        reload="live",
    )


class WebhookBackoffConfig(BackoffConfig):
    """Waits before a receiver that failed is tried again."""

    cap: Annotated[float, Seconds("10ms", "7d")] = setting("1h", "Upper end of every wait.", reload="live")


class WebhookConfig(Section):
    """A program that is told by HTTP, signed as Standard Webhooks says."""

    url: Annotated[str, WebhookUrl(), Field(repr=False)] = setting(
        ...,
        "Where events are posted; https, or http within your own network.",
        reload="live",
        sample="https://crm.example/hooks/shardd",
    )
    secret: Annotated[str, WebhookSecret(), Field(repr=False)] = setting(
        ...,
        "What signs them: whsec_ and 24 to 64 random bytes in base64. The receiver checks it with any library of "
        "standardwebhooks.com.",
        reload="live",
        sample="${CRM_WEBHOOK_SECRET}",
    )
    previous_secret: Annotated[str | None, WebhookSecret(), Field(repr=False)] = setting(
        None,
        "The secret before: events are signed with both, until the receiver knows the new one. null: none.",
        reload="live",
    )
    kinds: Annotated[tuple[str, ...], Kinds()] = setting(
        "job.*, device.state",
        "Which events, with commas between them: job.*, job.sent, job.failed, job.in_doubt, job.expired, job.opted_out, "
        "job.cancelled, job.retried, job.delivered, job.read, device.state. Fewer spare the receiver.",
        reload="live",
    )
    timeout: Annotated[float, Seconds("100ms", "5m")] = setting(
        "15s",
        "How long the receiver may take to answer. It should only store the event and answer at once.",
        reload="live",
    )
    concurrency: Annotated[int, Whole(1, 100)] = setting(
        "8",
        "Requests at the same time. Events of one job are sent one after the other, others may overtake. 1: everything in "
        "order. More for a receiver that answers slowly: at 50 ms each, 8 are about 150 events in a second.",
        reload="live",
    )
    backoff: WebhookBackoffConfig = section(
        WebhookBackoffConfig,
        "Waits before a receiver that failed is tried again; a Retry-After of its own counts, too.",
    )
    give_up: Annotated[float, Seconds("1s", "366d")] = setting(
        "3d",
        "An event that is older than this and still not taken is set aside for `shardd webhook retry`. Shorter than events.keep.",
        reload="live",
    )
