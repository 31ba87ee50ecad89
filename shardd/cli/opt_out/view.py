"""Opt-outs for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shardd.cli.output import Text, ago, count, make_console, make_facts, make_table, moment_text
from shardd.queue.opt_outs import OptOut, Saying, StoppedJob

WIDE: Final = 110
"""Columns from which on moments are written out in tables."""


def show_opt_outs(found: Sequence[OptOut], limit: int) -> None:
    """A table, newest first."""
    console = make_console()
    if not found:
        console.print("nobody")
        return
    table = make_table("address", "source", "by", "since", "words or note", whole=("since",))
    since = moment_text if console.width >= WIDE else ago
    for one in found:
        who = one.device_id or one.created_by
        table.add_row(one.address, one.source, who, since(one.created_at), one.words or one.note or "")
    console.print(table)
    more = "; there may be more: --limit, or shardd opt-out export" if len(found) == limit else ""
    console.print(Text(count(len(found), "opt-out") + more, "dim"))


def show_opt_out(address: str, found: OptOut | None, heard: Sequence[Saying], stopped: Sequence[StoppedJob]) -> None:
    """One recipient, whether opted out or not."""
    console = make_console()
    if found is None:
        console.print(f"{address}: has not opted out")
        return
    console.print(f"{address}: opted out")
    rows = [
        ("recipient", found.recipient),
        ("source", found.source),
        ("device", found.device_id or ""),
        ("words", found.words or ""),
        ("note", found.note or ""),
        ("said", moment_text(found.said_at)),
        ("on the list", moment_text(found.created_at)),
        ("by", found.created_by),
        *(
            ("said again", f"{moment_text(one.said_at or one.created_at)}: {one.words or ''}")
            for one in heard
            if one.again
        ),
    ]
    console.print(make_facts(rows))
    if stopped:
        console.print()
        console.print(f"the newest jobs that this stopped ({len(stopped)})")
        jobs = make_table(
            "job", "device", "campaign", "class", "reference", "stopped", right=("job",), whole=("stopped",)
        )
        when = moment_text if console.width >= WIDE else ago
        for job in stopped:
            names = (job.device_id or "", job.campaign or "", job.job_class, job.reference or "")
            jobs.add_row(str(job.id), *names, when(job.settled_at))
        console.print(jobs)
