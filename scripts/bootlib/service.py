"""The service on a machine, as its operator and a producer use it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any, Final

from bootlib.machine import CommandError, Machine
from bootlib.page import Block, Pages

CONFIG: Final = "/etc/shardd/shards.yaml"
UNPACED: Final = "pacing: {gap_min: 0, gap_max: 0, hourly_limit: 0, daily_limit: 0}"
FEW: Final = "shards: 2"
"""Added to every config: eight workers at each of a dozen starts would take most of the time of a small machine."""
HEALTHY_WITHIN: Final = 180.0
"""Seconds in which the service must recover."""
PATIENCE: Final = 1200.0
"""Seconds in which a block of commands must end, also on a busy machine."""


class Service:
    """Commands and waits; every one raises CommandError, or TimeoutError."""

    def __init__(self, machine: Machine, pages: Pages) -> None:
        self.machine = machine
        self.run = machine.run
        self.until = machine.until
        self.config = ""
        """The config that the pages had last."""
        self.producer = ""
        """What psql connects to as a producer."""
        self._pages = pages
        self._numbers = itertools.count(1)

    def carry_out(self, heading: str) -> None:
        """The blocks under a heading of the pages: commands are run, files are written."""
        for block in self._pages.take(heading):
            self._carry_out_block(block)

    def _carry_out_block(self, block: Block) -> None:
        if block.file is not None:
            self.write(block.file, block.text)
        elif block.language == "sql":
            self.run(f"runuser -u postgres -- psql --set=ON_ERROR_STOP=1 <<'END'\n{block.text}\nEND")
        else:
            assert block.language == "sh", block
            self.run(block.text, timeout=PATIENCE)

    def write(self, path: str, text: str) -> None:
        """Write the config, with few shards."""
        self.config = f"{text}\n{FEW}"
        self.run(f"cat > {path} <<'END'\n{self.config}\nEND")

    def reload(self, more: str) -> None:
        """Add this to the page's config."""
        self.run(f"cat > {CONFIG} <<'END'\n{self.config}\n{more}\nEND")
        self.run("systemctl reload shardd")

    def status(self) -> dict[str, Any]:
        """What `shardd status` knows."""
        status: dict[str, Any] = self.parsed("shardd status --json")
        return status

    def parsed(self, command: str) -> Any:
        """The JSON that a command prints."""
        # With an error in the file, or a problem, the exit code is not 0 and there may be a warning.
        return json.loads(self.run(f"{command} 2> /tmp/stderr || [ $? = 1 ]"))

    def stop(self) -> None:
        """Stop it, with nothing left."""
        self.run("systemctl stop shardd")
        assert self.property("Result") == "success"
        assert self.run("find /proc -maxdepth 1 -user shardd") == ""

    def property(self, name: str) -> str:
        """What systemd says of the unit."""
        return self.run(f"systemctl show --property={name} --value shardd")

    def wait_healthy(self, also: Callable[[], bool] = lambda: True) -> None:
        """Wait until it is healthy, and something else is true, too."""

        def look() -> bool:
            status = self.status()
            if not (also() and status["healthy"]):
                raise CommandError(f"{status.get('problems')}")
            return True

        self.until("healthy", look, HEALTHY_WITHIN)

    def wait_logged(self, text: str) -> None:
        """Wait until its log has this."""
        self.until(f"the log has {text!r}", lambda: text in self.run("journalctl --unit=shardd --boot"), 30)

    def send(self) -> None:
        """Insert a job as the documented producer, and wait until it was sent."""
        name = self.insert(1)
        self.until("the job is sent", lambda: self.count(name, "sent") == 1, HEALTHY_WITHIN)

    def insert(self, count: int, *, run_at: str = "now()") -> str:
        """Insert jobs; returns their common reference."""
        name = f"boot-{next(self._numbers)}"
        self.psql(
            "INSERT INTO shardd.jobs (device_id, recipient, body, class, reference, run_at) "
            f"SELECT 'me', '+4915112345678', 'Hello', 'service', '{name}', {run_at} FROM generate_series(1, {count})"
        )
        return name

    def count(self, name: str, state: str) -> int:
        """How many of the jobs of a reference are in a state."""
        return int(self.psql(f"SELECT count(*) FROM shardd.outcomes WHERE reference = '{name}' AND state = '{state}'"))

    def messages(self) -> int:
        """How many messages the sandbox has delivered."""
        return int(self.run("cat /var/lib/shardd/sandbox/*.jsonl | wc --lines"))

    def problem_kinds(self) -> list[str]:
        """The kinds of the problems that there are."""
        return [kind for kind, count in self.status()["problem_kinds"].items() if count]

    def psql(self, statement: str) -> str:
        """The last line that a statement of the producer returns."""
        command = f'psql {self.producer} --no-align --tuples-only --quiet --command="{statement}"'
        # Only the last line: with an error in the config, `db dsn` warns.
        return self.run(command).rpartition("\n")[2]
