"""What a device of an HTTP platform must be told: the names in its `settings`, their shapes, and which of them are secret.

One table for everybody who asks: the command that adds a device, the transport that sends for it, the views that must not show
a secret. A value may be `${NAME}`: it is taken from the environment of whoever sends, so that no secret stands in the database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from shardd.config.platform_values import PlatformUrl
from shardd.config.substitute import substitute
from shardd.config.values import RefusedError, closest
from shardd.errors import DeviceSettingsError
from shardd.states import DEVICE_REMEDY, DeviceState
from shardd.transports.upstream import parse_proxy
from shardd.urls import safe_url

MASK: Final = "***"
_SECRET_NAME: Final = re.compile(r"token|secret|password|key|auth", re.IGNORECASE)
_REFERENCE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


@dataclass(frozen=True, slots=True)
class Setting:
    """One name in the settings of a device; `what` it is, for who must write it."""

    name: str
    what: str
    shape: str = r"[!-~]{1,2000}"
    needed: bool = True
    secret: bool = False


_BASE: Final = Setting("base", "where the platform is, such as https://api.example.com", needed=False)

PLATFORM_SETTINGS: Final = MappingProxyType(
    {
        "wablas": (Setting("token", "the API token of the device at Wablas", secret=True), _BASE),
        # Whoever knows the id of a Whacenter device can send with it.
        "whacenter": (Setting("device_id", "the device id at Whacenter", secret=True), _BASE),
        "cloud_api": (
            Setting("phone_number_id", "the id of the phone number at Meta, digits only", r"[0-9]{1,32}"),
            Setting("token", "the access token of the system user at Meta", secret=True),
            Setting("version", "a version of the Graph API, such as v23.0", r"v[0-9]{1,3}\.[0-9]{1,2}", needed=False),
            _BASE,
        ),
    }
)
"""The HTTP platforms, by the name of their transport. Settings of other transports are not looked at."""


def remedy_of(transport: str, state: DeviceState) -> str:
    """What a person does about a device in this state, with {id} for its name."""
    if state is DeviceState.LOGGED_OUT and transport in PLATFORM_SETTINGS:
        names = " and ".join(sorted(secret_names(transport)))
        return f"the platform refuses its {names}; give it another: shardd device set {{id}} --settings JSON"
    return DEVICE_REMEDY[state]


def check_device(transport: str, settings: Mapping[str, Any], proxy: str | None) -> None:
    """Whether a transport could use this; references are not looked up. Raises DeviceSettingsError that tells the mend."""
    known = PLATFORM_SETTINGS.get(transport)
    if known is None:
        return
    names = [setting.name for setting in known]
    for name in settings:
        if name not in names:
            near = closest(name, names)
            mend = f"write {near}" if near else f"write {', '.join(names)}"
            raise DeviceSettingsError(f"settings.{name}: is not known to transport {transport!r}; {mend}")
    for setting in known:
        value = settings.get(setting.name)
        if not (isinstance(value, str) and "${" in value):
            _checked(transport, setting, value)
    check_proxy(transport, proxy)


def check_proxy(transport: str, proxy: str | None) -> None:
    """Whether the connections of this transport can go through this proxy. Raises DeviceSettingsError without its password."""
    if proxy is None or transport not in PLATFORM_SETTINGS:
        return
    try:
        scheme = parse_proxy(proxy).scheme
    except ValueError as error:
        raise DeviceSettingsError(f"proxy: {error}") from None
    if scheme != "http":
        raise DeviceSettingsError(
            f"proxy: is of kind {scheme}, which transport {transport!r} cannot use; write http://user:password@host:port"
        )


def read_settings(transport: str, settings: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that a platform's transport knows, references replaced. Raises DeviceSettingsError."""
    found = {}
    for setting in PLATFORM_SETTINGS[transport]:
        value = settings.get(setting.name)
        if isinstance(value, str):
            try:
                value = substitute(value, environ)
            except RefusedError as refused:
                raise DeviceSettingsError(f"settings.{setting.name}: {refused}") from None
        value = _checked(transport, setting, value)
        if value is not None:
            found[setting.name] = value
    return found


def secret_names(transport: str) -> frozenset[str]:
    """The settings of a transport that nobody may be shown."""
    return frozenset(setting.name for setting in PLATFORM_SETTINGS.get(transport, ()) if setting.secret)


def masked_settings(transport: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that may be shown: secrets are masked, and so is whatever has the name of one."""
    return {name: _masked(transport, name, value) for name, value in settings.items()}


def _masked(transport: str, name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _masked(transport, inner, one) for inner, one in value.items()}
    if isinstance(value, list):
        return [_masked(transport, name, one) for one in value]
    if name not in secret_names(transport) and not _SECRET_NAME.search(name):
        return value
    # The name of a variable is no secret, and without it nobody could find out what is wrong.
    return value if isinstance(value, str) and _REFERENCE.fullmatch(value) else MASK


def _checked(transport: str, setting: Setting, value: Any) -> str | None:
    if value is None or value == "":
        if setting.needed:
            raise DeviceSettingsError(
                f"settings.{setting.name}: is missing, which transport {transport!r} needs; write {setting.what}"
            )
        return None
    shown = "the value (not shown)" if setting.secret else repr(value)
    if not isinstance(value, str):
        raise DeviceSettingsError(f"settings.{setting.name}: {shown} is not text; put {setting.what}, in quotes")
    if setting is _BASE:
        try:
            return str(PlatformUrl().check(value))
        except RefusedError as refused:
            raise DeviceSettingsError(f"settings.base: {safe_url(value)} {refused}") from None
    if not re.fullmatch(setting.shape, value):
        raise DeviceSettingsError(f"settings.{setting.name}: {shown} has another shape; write {setting.what}")
    return value
