"""Which transports there are.

They are imported when a shard has a device of theirs, not before: one of them loads a large library.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

from shardd.errors import SharddError
from shardd.transports.base import Events, Transport

TRANSPORTS: Final = MappingProxyType(
    {
        "sandbox": "shardd.transports.sandbox:SandboxTransport",
        "whatsapp": "shardd.transports.whatsapp.transport:WhatsappTransport",
        "cloud_api": "shardd.transports.platforms.cloud_api:CloudApiTransport",
        "wablas": "shardd.transports.platforms.wablas:WablasTransport",
        "whacenter": "shardd.transports.platforms.whacenter:WhacenterTransport",
    }
)

NEEDS_SESSION: Final = frozenset({"whatsapp"})
"""Those whose devices must be paired before they can send."""


def make_transport(name: str, settings: dict[str, Any], events: Events) -> Transport:
    """A new transport. Raises SharddError when there is none of this name or its library cannot be loaded."""
    try:
        module, _, attribute = TRANSPORTS[name].partition(":")
    except KeyError:
        raise SharddError(f"transport {name!r} is unknown: one of {', '.join(TRANSPORTS)}") from None
    try:
        factory: type[Transport] = getattr(import_module(module), attribute)
    except ImportError as error:
        raise SharddError(f"transport {name!r} cannot be loaded: {error}") from error
    return factory(settings, events)
