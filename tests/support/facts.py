"""Facts of the WhatsApp library that shardd relies on: each has a test that names it.

`./scripts/test --library VERSION` runs them with another version of the library, and reports those that are different there, with
the code that relies on them.
"""

from __future__ import annotations

import pytest

ROOM = "shardd/transports/whatsapp/"


def fact(what: str, *relied_on_in: str) -> pytest.MarkDecorator:
    """Marks the test of a fact. `relied_on_in`: files; those of the transport are named from its folder on."""
    return pytest.mark.fact(what, tuple(one if one.startswith("shardd/") else ROOM + one for one in relied_on_in))


def record(item: pytest.Item) -> None:
    """Put the facts of a test into its report, and so into the file that `pytest --junitxml` writes."""
    for mark in item.iter_markers("fact"):
        what, files = mark.args
        item.user_properties.append(("fact", what))
        item.user_properties += [("relied_on_in", file) for file in files]
