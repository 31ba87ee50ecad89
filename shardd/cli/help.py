"""What a command's `--help` ends with."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """Command lines that somebody may copy, as click's epilog; a test parses each."""
    # Click keeps the lines of a paragraph that begins with \b.
    return "\b\n" + "\n".join(["Examples:" if len(lines) > 1 else "Example:", *(f"  {line}" for line in lines)])
