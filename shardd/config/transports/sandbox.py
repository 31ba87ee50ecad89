"""The transport `sandbox`."""

from __future__ import annotations

from typing import Annotated, Final

from shardd.config.fields import Section, setting
from shardd.config.transports.definition import TransportDefinition
from shardd.config.values import Bytes, Flag, Fraction, Seconds, Whole


class SandboxConfig(Section):
    """A stand-in that delivers to nobody: for trying, testing and measuring."""

    latency_min: Annotated[float, Seconds("0", "1h")] = setting(
        "50ms", "Shortest time that a send takes.", reload="shard"
    )
    latency_max: Annotated[float, Seconds("0", "1h")] = setting(
        "200ms", "Longest time that a send takes.", reload="shard"
    )
    connect_for: Annotated[float, Seconds("0", "1h")] = setting(
        "0s",
        "Time before each send in which the message can still be held back, as connecting takes it.",
        reload="shard",
    )
    transient_rate: Annotated[float, Fraction()] = setting(
        "0.0", "Share of sends that fail and may be tried again.", reload="shard"
    )
    permanent_rate: Annotated[float, Fraction()] = setting("0.0", "Share of sends that fail for good.", reload="shard")
    unavailable_rate: Annotated[float, Fraction()] = setting(
        "0.0", "Share of sends whose device turns out unable.", reload="shard"
    )
    in_doubt_rate: Annotated[float, Fraction()] = setting(
        "0.0", "Share of sends whose end nobody can know.", reload="shard"
    )
    hang_rate: Annotated[float, Fraction()] = setting("0.0", "Share of sends that hang.", reload="shard")
    hang_for: Annotated[float, Seconds("0", "1d")] = setting("5m", "How long a send hangs.", reload="shard")
    poison: Annotated[bool, Flag()] = setting(
        "false",
        "Whether a job ends its worker while it is being prepared, if its body has !crash (it is killed), !hang (it does "
        "nothing any more) or !bloat (it takes poison_memory for a minute): to see what becomes of it, and of the others.",
        reload="shard",
    )
    poison_memory: Annotated[int, Bytes()] = setting("1GiB", "See poison.", reload="shard")
    record: Annotated[bool, Flag()] = setting(
        "true",
        "Whether each message is written to a file that a test can read. false for measuring speed.",
        reload="shard",
    )
    in_flight: Annotated[int, Whole(1, 1000)] = setting(
        "1",
        "Messages of one device at the same time. More for measuring speed; then their order is not kept.",
        reload="shard",
    )


SANDBOX: Final = TransportDefinition(
    name="sandbox",
    summary="A stand-in that delivers to nobody: for trying, testing and measuring.",
    implementation="shardd.transports.sandbox:SandboxTransport",
    config=SandboxConfig,
)
