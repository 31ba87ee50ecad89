"""The transports: each is defined once, in a module of its own, and listed here.

See `definition` for what derives from a definition.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from shardd.config.fields import Section, extra_of
from shardd.config.transports.cloud_api import CLOUD_API, CloudApiConfig
from shardd.config.transports.definition import TransportDefinition
from shardd.config.transports.platforms import WABLAS, WHACENTER, WablasConfig, WhacenterConfig
from shardd.config.transports.sandbox import SANDBOX, SandboxConfig
from shardd.config.transports.whatsapp import WHATSAPP, WhatsappConfig


class TransportsConfig(Section):
    """The ways in which devices send, in the order of the sample file."""

    sandbox: SandboxConfig = SANDBOX.section()
    whatsapp: WhatsappConfig = WHATSAPP.section()
    wablas: WablasConfig = WABLAS.section()
    whacenter: WhacenterConfig = WHACENTER.section()
    cloud_api: CloudApiConfig = CLOUD_API.section()

    def in_flight_of(self, transport: str) -> int:
        """How many jobs a device of this transport may have in flight."""
        return self._option(transport, "in_flight") or 1

    def region_of(self, transport: str) -> str | None:
        """The default region of numbers without +, if there is one."""
        region: str | None = self._option(transport, "default_region")
        return region

    @property
    def regions(self) -> dict[str, str]:
        """The default regions, by transport; without those that have none."""
        return {name: region for name in TRANSPORTS if (region := self.region_of(name)) is not None}

    def as_plain(self) -> dict[str, Any]:
        """All sections as dicts of str, int, float, bool and None, ready for msgpack; durations in seconds, sizes in bytes.

        Without the webhooks, whose secrets workers do not need.
        """
        return self.model_dump(mode="json", exclude={name: {"webhook"} for name in TRANSPORTS})

    def _option(self, transport: str, option: str) -> Any:
        # A device may name a transport that only a newer release knows.
        return getattr(self.__dict__.get(transport), option, None)


TRANSPORTS: Final[Mapping[str, TransportDefinition[Any]]] = MappingProxyType(
    {name: extra_of(field, "definition") for name, field in TransportsConfig.model_fields.items()}
)
"""All of them, by name."""
REPORTING: Final = tuple(name for name, one in TRANSPORTS.items() if "webhook" in one.config.model_fields)
"""Those whose platforms report what people write, whether or not shardd has the device."""
