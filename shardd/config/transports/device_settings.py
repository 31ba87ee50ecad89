"""The `settings` of a device of an HTTP platform: their names and shapes, and which of them are secret.

They are part of the transport's definition; the command that adds a device, the transport that sends for it, and the views
that must not show a secret all read them there. A value may be `${NAME}`: it is taken from the environment of the process
that sends, so that no secret is in the database.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from shardd.config.source import substitute
from shardd.config.transports import TRANSPORTS
from shardd.config.transports.definition import DeviceSetting
from shardd.config.transports.platforms import BASE
from shardd.config.values import RefusedError, closest
from shardd.config.values.network import PLATFORM_URL
from shardd.errors import DeviceSettingsError
from shardd.proxies import parse_proxy
from shardd.states import DEVICE_REMEDY, DeviceState
from shardd.urls import safe_url

MASK: Final = "***"
_SECRET_NAME: Final = re.compile(r"token|secret|password|key|auth", re.IGNORECASE)
_REFERENCE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


def remedy_of(transport: str, state: DeviceState) -> str:
    """How a person fixes a device in this state, with {id} for its name."""
    if state is DeviceState.LOGGED_OUT and settings_of(transport):
        names = " and ".join(sorted(secret_names(transport)))
        return f"the platform refuses its {names}; give it another: shardd device set {{id}} --settings JSON"
    return DEVICE_REMEDY[state]


def check_device(transport: str, settings: Mapping[str, Any], proxy: str | None) -> None:
    """Whether a transport can use this; references are not resolved. Raises DeviceSettingsError with the fix."""
    known = settings_of(transport)
    if not known:
        return
    names = [setting.name for setting in known]
    for name in settings:
        if name not in names:
            near = closest(name, names)
            fix = f"write {near}" if near else f"write {', '.join(names)}"
            raise DeviceSettingsError(f"settings.{name}: is not known to transport {transport!r}; {fix}")
    for setting in known:
        value = settings.get(setting.name)
        if not (isinstance(value, str) and "${" in value):
            _checked(transport, setting, value)
    check_proxy(transport, proxy)


def check_proxy(transport: str, proxy: str | None) -> None:
    """Whether this transport can connect through this proxy. Raises DeviceSettingsError, without the password."""
    if proxy is None or not settings_of(transport):
        return
    try:
        scheme = parse_proxy(proxy).scheme
    except ValueError as error:
        raise DeviceSettingsError(f"proxy: {error}") from None
    if scheme != "http":
        raise DeviceSettingsError(
            f"proxy: is a {scheme} proxy, which transport {transport!r} cannot use; write http://user:password@host:port"
        )


def read_settings(transport: str, settings: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that a transport knows, references resolved. Raises DeviceSettingsError."""
    found = {}
    for setting in settings_of(transport):
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


def settings_of(transport: str) -> tuple[DeviceSetting, ...]:
    """The settings of an HTTP platform's devices; empty for other transports, and for those of a newer release."""
    definition = TRANSPORTS.get(transport)
    return definition.device_settings if definition else ()


def secret_names(transport: str) -> frozenset[str]:
    """The secret settings of a transport."""
    return frozenset(setting.name for setting in settings_of(transport) if setting.secret)


def account_of(transport: str, settings: Mapping[str, Any]) -> str | None:
    """A name for the account that a device sends with; None if its transport has no accounts or its key is missing.

    A hash, so that it may be logged. Devices have the same account when their keys, and the base, if they name one, are
    written in the same way.
    """
    if not isinstance(settings, Mapping):  # a row can hold any JSON
        return None
    keys = [str(settings[name]) for name in sorted(secret_names(transport)) if settings.get(name)]
    if not keys:
        return None
    whole = "\0".join([transport, str(settings.get("base") or "").rstrip("/"), *keys])
    return f"{transport}-{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def masked_settings(transport: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that may be shown: secrets are masked, and so is any value with the name of one."""
    return {name: _masked(transport, name, value) for name, value in settings.items()}


def _masked(transport: str, name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {inner: _masked(transport, inner, one) for inner, one in value.items()}
    if isinstance(value, list):
        return [_masked(transport, name, one) for one in value]
    if name not in secret_names(transport) and not _SECRET_NAME.search(name):
        return value
    # The name of a variable is not secret, and needed to find an error.
    return value if isinstance(value, str) and _REFERENCE.fullmatch(value) else MASK


def _checked(transport: str, setting: DeviceSetting, value: Any) -> str | None:
    if value is None or value == "":
        if setting.needed:
            raise DeviceSettingsError(
                f"settings.{setting.name}: is missing, but transport {transport!r} needs it; write {setting.what}"
            )
        return None
    shown = "the value (not shown)" if setting.secret else repr(value)
    if not isinstance(value, str):
        raise DeviceSettingsError(f"settings.{setting.name}: {shown} is not text; put {setting.what}, in quotes")
    if setting is BASE:
        try:
            return str(PLATFORM_URL.read(value))
        except RefusedError as refused:
            raise DeviceSettingsError(f"settings.base: {safe_url(value)} {refused}") from None
    if not re.fullmatch(setting.shape, value):
        raise DeviceSettingsError(f"settings.{setting.name}: {shown} has another shape; write {setting.what}")
    return value
