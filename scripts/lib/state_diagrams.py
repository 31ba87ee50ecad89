"""Generates the diagrams in shardd/guide/how-it-works.md from the tables of `shardd.states`.

Usage: python scripts/lib/state_diagrams.py
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from shardd.states import DEVICE_TRANSITIONS, FINISHED, JOB_TRANSITIONS, LIBRARY_TRANSITIONS, SHARD_TRANSITIONS

PAGE = Path(__file__).parents[2] / "shardd/guide/how-it-works.md"
SECTION = re.compile("(<!-- states: begin -->\n).*?(<!-- states: end -->)", re.DOTALL)


def diagram(table: Mapping[str, Mapping[str, str]], first: tuple[str, ...], last: frozenset[str]) -> str:
    """A Mermaid diagram; events with the same origin and target share an arrow."""
    lines = ["```mermaid", "stateDiagram-v2", *(f"    [*] --> {state}" for state in first)]
    for state, events in table.items():
        arrows: dict[str, list[str]] = {}
        for event, after in events.items():
            if after != state:
                arrows.setdefault(str(after), []).append(str(event))
        lines += [f"    {state} --> {after}: {', '.join(names)}" for after, names in arrows.items()]
    lines += [f"    {state} --> [*]" for state in sorted(last)]
    return "\n".join([*lines, "```"])


def section() -> str:
    """The text between the page's markers."""
    jobs = diagram(JOB_TRANSITIONS, ("queued", "scheduled"), frozenset(FINISHED))
    devices = diagram(DEVICE_TRANSITIONS, ("ready", "unpaired"), frozenset())
    shards = diagram(SHARD_TRANSITIONS, ("waiting",), frozenset({"stopped"}))
    library = diagram(LIBRARY_TRANSITIONS, ("accepted",), frozenset())
    return (
        f"A job:\n\n{jobs}\n\nA device:\n\n{devices}\n\nA shard:\n\n{shards}\n\n"
        f"The installed version of the WhatsApp library:\n\n{library}\n"
    )


def main() -> None:
    """Write the page."""
    text = section()
    PAGE.write_text(
        SECTION.sub(lambda marks: marks[1] + text + marks[2], PAGE.read_text(encoding="utf-8")), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
