"""The sections `events` and `webhooks`: how long events are kept, and which programs receive them."""

from __future__ import annotations

from typing import Annotated

from shardd.config.fields import Section, section, setting
from shardd.config.sections import BackoffConfig
from shardd.config.values import Seconds, Whole
from shardd.config.values.network import WebhookUrl
from shardd.config.values.words import EventKinds, WebhookSecret


class EventsConfig(Section, reload="live"):
    """How long programs can read events in shardd.events; the same on every host."""

    keep: Annotated[float, Seconds("0", "366d")] = setting(
        "7d",
        "How long an event can be read: longer than any reader is ever down. 0: no events are written, which saves about a "
        "quarter of the database's work to settle a job, and webhooks receive nothing.",
    )
    most: Annotated[int, Whole(1000, 1_000_000_000)] = setting(
        "1000000",
        "Number of events kept, at most. A message produces up to three, of about 0.3 kB each. Raise it if readers miss some.",
    )


class WebhookBackoffConfig(BackoffConfig, reload="live"):
    """Waits before a failed delivery is tried again."""

    cap: Annotated[float, Seconds("10ms", "7d")] = setting("1h", "Upper limit of every wait.")


class WebhookConfig(Section, reload="live"):
    """A receiver of events over HTTP, signed as Standard Webhooks specifies."""

    url: WebhookUrl = setting(
        ...,
        "URL to which events are posted: https, or http within your own network.",
        sample="https://crm.example/hooks/shardd",
    )
    secret: WebhookSecret = setting(
        ...,
        "Key that signs events: whsec_ and 24 to 64 random bytes in base64. The receiver verifies the signature with any "
        "library of standardwebhooks.com.",
        sample="${CRM_WEBHOOK_SECRET}",
    )
    previous_secret: WebhookSecret | None = setting(
        None, "The previous key: events are signed with both until the receiver knows the new one. null: none."
    )
    kinds: EventKinds = setting(
        "job.*, message.received, message.media, device.state, library.state",
        "Kinds of events to send, separated by commas: job.*, job.sent, job.failed, job.in_doubt, job.expired, job.opted_out, "
        "job.cancelled, job.retried, job.delivered, job.read, job.unreadable, opt_out.taken_back, message.received, "
        "message.media, device.state, library.state.",
    )
    timeout: Annotated[float, Seconds("100ms", "5m")] = setting(
        "15s", "How long the receiver may take to answer. It should only store the event and answer at once."
    )
    concurrency: Annotated[int, Whole(1, 100)] = setting(
        "8",
        "Requests at the same time. Events of one job are sent in order, others may overtake each other. 1: everything in "
        "order. Raise it for a slow receiver: at 50 ms per answer, 8 requests deliver about 150 events a second.",
    )
    backoff: WebhookBackoffConfig = section(
        WebhookBackoffConfig, "Waits before a failed delivery is tried again; the receiver's Retry-After counts too."
    )
    give_up: Annotated[float, Seconds("1s", "366d")] = setting(
        "3d",
        "Age at which an undelivered event is set aside for `shardd webhook retry`. Not longer than events.keep.",
    )
