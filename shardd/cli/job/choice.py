"""Which jobs a command is for: their ids, or the traits that they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import click

from shardd.cli.completion import complete_devices
from shardd.cli.names import job_ids, short_names
from shardd.cli.options import Decorator, OneOf, all_of
from shardd.config.transports.definition import KINDS
from shardd.errors import ErrorClass, UsageError
from shardd.pacing import CLASSES
from shardd.queue.bulk_actions import Choice
from shardd.queue.job_admin import Traits
from shardd.states import JobState

_ERROR_CLASSES: Final = [one.value for one in ErrorClass]
_AS_THEY_ARE: Final = ("campaign", "job_class", "error_class", "order_group", "reference", "kind", "revokes_campaign")
_traits: Final = all_of(
    click.option(
        "--device", "device_id", metavar="ID", shell_complete=complete_devices, help="Only jobs of this device."
    ),
    click.option("--campaign", metavar="ID", help="Only jobs of this campaign."),
    click.option("--class", "job_class", type=OneOf(CLASSES), help="Only jobs of this class."),
    click.option(
        "--error-class",
        type=OneOf(_ERROR_CLASSES),
        metavar="KIND",
        help=f"Only jobs whose last error was of this kind: {', '.join(_ERROR_CLASSES)}.",
    ),
    click.option("--order-group", metavar="TEXT", help="Only jobs of this order group."),
    click.option("--reference", metavar="TEXT", help="Only jobs with this reference."),
    click.option("--kind", type=OneOf(KINDS), metavar="KIND", help=f"Only jobs of this kind: {', '.join(KINDS)}."),
    click.option("--revokes-campaign", metavar="ID", help="Only revocations of messages of this campaign."),
)


def trait_options(states: Iterable[JobState]) -> Decorator:
    """Options for what jobs have in common; `states`: the choices of --state."""
    words = [state.value for state in states]
    help_text = f"Only jobs in this state: {', '.join(words)}."
    return all_of(click.option("--state", type=OneOf(words), metavar="STATE", help=help_text), _traits)


def read_traits(options: dict[str, Any]) -> Traits:
    """The values of `trait_options`."""
    state, device = options["state"], options["device_id"]
    return Traits(
        state=None if state is None else JobState(state),
        device_ids=None if device is None else short_names([device], "device"),
        **{name: options[name] for name in _AS_THEY_ARE},
    )


def read_choice(ids: tuple[str, ...], options: dict[str, Any]) -> Choice:
    """Ids and traits together. Raises UsageError when neither is given."""
    numbers, traits = job_ids(ids), read_traits(options)
    if not ids and traits == Traits():
        raise UsageError(
            "say which jobs: their ids, or --state, --device, --campaign, --class, --error-class, --order-group, --reference, "
            "--kind or --revokes-campaign"
        )
    return Choice(numbers if ids else None, traits)
