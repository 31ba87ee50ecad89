"""Opt-outs for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from shardd.cli.output import count, make_console, make_table, moment_text
from shardd.queue.opt_out_admin import OptOut, Saying, StoppedJob


def show_opt_outs(found: Sequence[OptOut], limit: int) -> None:
    """A table, newest first."""
    console = make_console()
    if not found:
        console.print("nobody")
        return
    table = make_table("address", "source", "by", "since", "words or note")
    for one in found:
        who = one.device_id or one.created_by
        table.add_row(
            *(Text(_printable(cell)) for cell in (one.address, one.source, who)),
            Text(moment_text(one.created_at)),
            Text(_printable(one.words or one.note or "")),
        )
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
    table = make_table("", "")
    table.show_header = False
    for name, value in (
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
    ):
        if value:
            table.add_row(name, Text(_printable(value)))
    console.print(table)
    if stopped:
        console.print(f"\nthe newest jobs that this stopped ({len(stopped)})")
        jobs = make_table("job", "device", "campaign", "class", "reference", "stopped", right=("job",))
        for job in stopped:
            cells = (job.device_id or "", job.campaign or "", job.job_class, job.reference or "")
            jobs.add_row(str(job.id), *(Text(_printable(cell)) for cell in cells), moment_text(job.settled_at))
        console.print(jobs)


def _printable(text: str) -> str:
    """What people wrote comes from anywhere: what would move a terminal's cursor is spelled out."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
