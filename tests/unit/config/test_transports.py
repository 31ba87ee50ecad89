"""What derives from the definitions of the transports."""

from __future__ import annotations

from importlib import import_module

import pytest

from shardd.config import TRANSPORTS, parse_config
from shardd.config.transports.definition import KINDS
from shardd.transports.base import Transport
from shardd.transports.platforms.http_platform import HttpPlatform

HOME = {"HOME": "/home/of"}


@pytest.mark.parametrize("name", TRANSPORTS)
def test_a_definition_is_named_like_its_section_and_finds_its_class(name: str) -> None:
    definition = TRANSPORTS[name]
    assert definition.name == name
    assert set(definition.kinds) <= set(KINDS)
    section = getattr(parse_config(f"transports: {{{name}: {{}}}}", "x", HOME).transports, name)
    assert type(section) is definition.config
    module, _, attribute = definition.implementation.partition(":")
    implementation = getattr(import_module(module), attribute)
    assert issubclass(implementation, Transport)
    assert issubclass(implementation, HttpPlatform) == bool(definition.device_settings)
    if issubclass(implementation, HttpPlatform):
        assert implementation.definition is definition


def test_options_of_a_transport_are_found_by_its_name() -> None:
    text = "transports: {sandbox: {in_flight: 3}, wablas: {default_region: ID}, whatsapp: {default_region: DE}}"
    transports = parse_config(text, "x", HOME).transports
    assert {name: transports.in_flight_of(name) for name in TRANSPORTS} == dict.fromkeys(TRANSPORTS, 1) | {"sandbox": 3}
    assert (transports.region_of("wablas"), transports.region_of("sandbox")) == ("ID", None)
    assert transports.regions == {"wablas": "ID", "whatsapp": "DE"}


def test_a_transport_of_a_newer_release_has_no_options() -> None:
    transports = parse_config("", "x", HOME).transports
    assert (transports.in_flight_of("pigeon"), transports.region_of("pigeon")) == (1, None)
