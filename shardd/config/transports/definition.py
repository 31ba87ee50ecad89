"""The definition of a transport: one object, from which everything outside its implementation derives.

That is the config's section and the sample file, the choices of the command line, the settings of a device and which of them
are secret, what the database accepts as a transport, and the class that a worker loads. To add a transport, write its
definition in a module beside this one, name it in `TransportsConfig`, and write the class that sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from pydantic import Field

from shardd.config.fields import Section, setting

C = TypeVar("C", bound=Section)

MEDIA_KINDS: Final = ("image", "video", "audio", "voice", "document")
"""The kinds of jobs that carry a file."""
KINDS: Final = ("text", *MEDIA_KINDS, "location", "contact", "template", "revoke")
"""All kinds of jobs, the same that check_content in 0004_admission.sql admits (tests/integration/queue/test_job_kinds.py)."""


def region_option() -> Any:
    """The option `default_region`."""
    return setting(
        None,
        "Country of phone numbers that are written without + and country code, such as ID; sandbox devices read numbers by "
        "it, too. null: without +, only numbers that begin with a country code are read.",
    )


@dataclass(frozen=True, slots=True)
class DeviceSetting:
    """One of the settings of a device; `what`: its meaning, for whoever writes it."""

    name: str
    what: str
    shape: str = r"[!-~]{1,2000}"
    needed: bool = True
    secret: bool = False
    """Never shown; devices with the same secrets share an account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportDefinition(Generic[C]):
    """One way in which devices send."""

    name: str
    summary: str
    """Comment over its section in the sample file."""
    implementation: str
    """`module:Class` of the `shardd.transports.base.Transport`; a name, because only workers with such devices load it."""
    config: type[C]
    kinds: tuple[str, ...] = KINDS
    """Jobs of another kind are refused, or fail if they are of a group with other transports."""
    link_preview: bool = True
    """Whether a job can choose that the recipient of a text sees a preview of its link."""
    device_settings: tuple[DeviceSetting, ...] = ()
    """Of an HTTP platform. Without any, a device's settings are ignored."""
    has_sessions: bool = False
    """Whether its devices must be paired before they can send."""

    def section(self) -> C:
        """The field of the config that holds its section."""
        extra: dict[str, Any] = {"definition": self}
        field: Any = Field(default_factory=self.config, description=self.described, json_schema_extra=extra)
        return cast("C", field)  # pydantic declares fields with the type of their values

    @property
    def described(self) -> str:
        """For the sample file: the summary, and of an HTTP platform its kinds of jobs and the settings of its devices."""
        if not self.device_settings:
            return self.summary
        needed, others = (
            ", ".join(f"{one.name} ({one.what})" for one in self.device_settings if one.needed is wanted)
            for wanted in (True, False)
        )
        return f"{self.summary} They send {', '.join(self.kinds)}. Settings of each: {needed}; if need be {others}."
