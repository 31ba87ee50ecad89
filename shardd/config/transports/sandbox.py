"""The transport `sandbox`."""

from __future__ import annotations

from typing import Annotated, Final

from shardd.config.fields import Section, setting
from shardd.config.transports.definition import TransportDefinition
from shardd.config.values import Bytes, Flag, Seconds, Whole
from shardd.config.values.numbers import Share


class SandboxConfig(Section, reload="shard"):
    """Delivers nothing: for trying, testing and measuring."""

    latency_min: Annotated[float, Seconds("0", "1h")] = setting("50ms", "Shortest time that a send takes.")
    latency_max: Annotated[float, Seconds("0", "1h")] = setting("200ms", "Longest time that a send takes.")
    connect_for: Annotated[float, Seconds("0", "1h")] = setting(
        "0s", "Time before each send in which the message can still be held back, as while connecting."
    )
    transient_rate: Share = setting("0.0", "Share of sends that fail and may be tried again.")
    permanent_rate: Share = setting("0.0", "Share of sends that fail for good.")
    unavailable_rate: Share = setting("0.0", "Share of sends whose device is unavailable.")
    in_doubt_rate: Share = setting("0.0", "Share of sends whose outcome cannot be known.")
    hang_rate: Share = setting("0.0", "Share of sends that hang.")
    hang_for: Annotated[float, Seconds("0", "1d")] = setting("5m", "How long a send hangs.")
    poison: Annotated[bool, Flag()] = setting(
        "false",
        "Whether a job ends its worker while it is being prepared, if its body has !crash (it is killed), !hang (it does "
        "nothing any more) or !bloat (it takes poison_memory for a minute): to see what becomes of it, and of the others.",
    )
    poison_memory: Annotated[int, Bytes()] = setting("1GiB", "See poison.")
    record: Annotated[bool, Flag()] = setting(
        "true", "Whether each message is written to a file that a test can read. false for measuring speed."
    )
    in_flight: Annotated[int, Whole(1, 1000)] = setting(
        "1", "Messages of one device at the same time. More for measuring speed; then their order is not kept."
    )


SANDBOX: Final = TransportDefinition(
    name="sandbox",
    summary="Delivers nothing: for trying, testing and measuring.",
    implementation="shardd.transports.sandbox:SandboxTransport",
    config=SandboxConfig,
)
