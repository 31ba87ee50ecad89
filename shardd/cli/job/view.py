"""Jobs as people and programs see them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shardd.cli.output import (
    SANDBOX,
    SANDBOX_STYLE,
    Lines,
    Text,
    ago,
    count,
    make_console,
    make_facts,
    make_table,
    moment_text,
    sandbox_line,
    state_text,
)
from shardd.queue.jobs import JobCount, JobRow, WholeJob

WIDE: Final = 110
"""Columns from which on a job's campaign, tries and reference are shown."""
AIRY: Final = 140
"""Columns from which on its transport, kind and class are shown, too."""
_NAMED: Final = 64  # characters of a data: URI that are shown; it holds a whole file


def job_json(job: JobRow) -> dict[str, Any]:
    """What `--json` prints of a job."""
    return _plain(job)


def count_json(count: JobCount) -> dict[str, Any]:
    """What `--json` prints of jobs that are alike."""
    return _plain(count)


def show_jobs(jobs: Sequence[JobRow], limit: int) -> None:
    """A table, and below it what it leaves out and which jobs are sandbox."""
    console = make_console()
    if not jobs:
        console.print("no such jobs")
        return
    wide, airy = console.width >= WIDE, console.width >= AIRY
    extra = ["transport", "kind", "class"] if airy else []
    extra += ["campaign", "tries", "reference"] if wide else []
    table = make_table(
        "id",
        "state",
        "device",
        "recipient",
        "changed",
        *extra,
        "waits for, or error",
        right=("id", "tries"),
        whole=("state", "recipient", "changed"),
    )
    for job in jobs:
        row = [
            Text(str(job.id)),
            state_text(job.state),
            Text(job.device_id or f"({job.device_group})"),
            Text(job.recipient),
            Text(ago(job.settled_at or job.created_at)),
        ]
        if airy:
            transport = job.transport or ("" if job.device_id is None else "?")
            row.append(Text(transport, SANDBOX_STYLE if transport == SANDBOX else ""))
            row += [Text(job.kind), Text(job.job_class)]
        if wide:
            row.append(Text(job.campaign or ""))
            row += [Text(f"{job.failures}/{job.max_attempts}"), Text(job.reference or "")]
        table.add_row(*row, Text(job.waits_for or job.error or ""))
    console.print(table)
    more = "; older ones: --limit" if len(jobs) == limit else ""
    console.print(Text(count(len(jobs), "job") + more, "dim"))
    sandbox = sum(job.transport == SANDBOX for job in jobs)
    if sandbox:
        console.print(Text(sandbox_line(sandbox, len(jobs), "jobs"), SANDBOX_STYLE))


def show_counts(counts: Sequence[JobCount], obstacles: Mapping[str, str]) -> None:
    """A table of jobs that are alike; `obstacles`: what keeps them from what was asked, in words."""
    table = make_table("jobs", "state", "class", "campaign", "why not", right=("jobs",))
    for some in sorted(counts, key=lambda some: (some.obstacle is not None, -some.jobs)):
        why = "" if some.obstacle is None else obstacles[some.obstacle]
        table.add_row(
            f"{some.jobs:,}", state_text(some.state), Text(some.job_class), Text(some.campaign or ""), Text(why)
        )
    make_console().print(table)


def show_job(job: WholeJob) -> None:
    """One job, line by line, its message last."""
    console = make_console()
    device = Text(job.device_id or "")
    if job.transport == SANDBOX:
        device.append(" (sandbox: its messages reach nobody)", SANDBOX_STYLE)
    where = f"shard {job.shard} on {job.node}" if job.node is not None else ""
    rows: list[tuple[str, Text | str]] = [
        ("job", str(job.id)),
        ("state", state_text(job.state)),
        ("waits for", job.waits_for or ""),
        ("error", job.error or ""),
        ("error class", job.error_class or ""),
        ("device", device),
        ("device group", job.device_group or ""),
        ("recipient", job.recipient),
        ("class", job.job_class),
        ("campaign", job.campaign or ""),
        ("order group", job.order_group or ""),
        ("reference", job.reference or ""),
        ("tries", f"{job.failures} of {job.max_attempts} failed; claimed {count(job.claims, 'time')}"),
        ("on doubt", job.on_doubt),
        ("priority", str(job.priority) if job.priority else ""),
        ("inserted", moment_text(job.created_at)),
        ("run at", moment_text(job.run_at) if job.run_at != job.created_at else ""),
        ("due at", moment_text(job.due_at)),
        ("expires at", moment_text(job.expires_at)),
        ("claimed", moment_text(job.claimed_at)),
        ("by", where),
        ("ended", moment_text(job.settled_at)),
        ("delivered", moment_text(job.delivered_at)),
        ("read", moment_text(job.read_at)),
        ("message id", job.message_id or ""),
        ("dedupe key", job.dedupe_key or ""),
        ("producer", job.producer),
        ("kind", job.kind),
        ("media", _short(job.media)),
        ("file name", job.file_name or ""),
        ("mime type", job.mime_type or ""),
        ("details", _json_text(job.details)),
        ("metadata", _json_text(job.metadata)),
        ("variables", _json_text(job.variables)),
        ("body", Lines(job.body)),
    ]
    console.print(make_facts(rows))


def _plain(row: JobRow | JobCount) -> dict[str, Any]:
    return {"class" if name == "job_class" else name: value for name, value in dataclasses.asdict(row).items()}


def _json_text(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _short(media: str | None) -> str:
    if media is None or not media.startswith("data:") or len(media) <= _NAMED:
        return media or ""
    return f"{media[:_NAMED]}… ({count(len(media), 'character')})"
