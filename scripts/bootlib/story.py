"""What is done with a machine, step by step: the install page, and what an operator and bad luck do to a service."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from bootlib.machine import CLONE, CommandError, Machine
from bootlib.page import Block, Page
from bootlib.steps import Steps

HEALTHY_WITHIN: Final = 90.0
"""Seconds in which the service must recover."""


class Story:
    """The steps on one machine; `play` goes through them in order."""

    def __init__(self, machine: Machine, page: Page, steps: Steps) -> None:
        self._machine = machine
        self._page = page
        self._step = steps.step

    def play(self) -> None:
        """Everything. Raises what a step raises."""
        self._install()
        self._embedded()
        self._uninstall()

    def _install(self) -> None:
        for heading in ("Program", "Service"):
            with self._step(f"install page: {heading}"):
                self._carry_out(heading)

    def _embedded(self) -> None:
        with self._step("install page: Embedded database"):
            self._carry_out("Embedded database")
        self._send_and_recover()
        with self._step("PostgreSQL is killed: it runs again"):
            postgres = self._machine.run("head --lines=1 /var/lib/shardd/pg/data/postmaster.pid")
            self._machine.run(f"kill -KILL {postgres}")
            self._wait_healthy(
                lambda: self._machine.run("head --lines=1 /var/lib/shardd/pg/data/postmaster.pid") != postgres
            )
            self._send()
        with self._step("a stop is clean"):
            self._machine.run("systemctl stop shardd", timeout=120)
            assert self._property("Result") == "success"
            assert self._machine.run("find /proc -maxdepth 1 -user shardd") == ""
            self._machine.run("systemctl start shardd", timeout=320)
            self._wait_healthy()

    def _send_and_recover(self) -> None:
        with self._step("the service is active, and healthy as root"):
            assert self._property("ActiveState") == "active"
            self._wait_healthy()
        with self._step("install page: Operators without root"):
            self._machine.run("useradd --create-home alice; useradd --create-home stranger")
            self._carry_out("Operators without root")
            assert "healthy" in self._machine.run("shardd status", user="alice")
            assert "permission denied" in self._machine.run("shardd status", user="stranger", fails=True)
        with self._step("a job of a producer is sent"):
            self._send()
        with self._step("a reload changes what it may"):
            self._edit("log: {level: debug}")
            self._machine.run("systemctl reload shardd")
            self._wait_logged("log.level: info → debug")
        with self._step("a reload of a broken config is refused, and shardd continues"):
            self._edit("pacing: {gap_min: soon}")
            self._machine.run("systemctl reload shardd")
            self._machine.until("status reports the file", lambda: "gap_min" in str(self._status()["notes"]), 30)
            assert self._property("ActiveState") == "active"
            self._send()
            self._edit("")
            self._machine.run("systemctl reload shardd")
            self._wait_healthy()
        with self._step("a worker is killed: another takes its place"):
            pid = self._status()["shards"][0]["pid"]
            self._machine.run(f"kill -KILL {pid}")
            self._wait_healthy(lambda: self._status()["shards"][0]["pid"] not in (None, pid))
        with self._step("the supervisor is killed: systemd starts it again"):
            self._lose_supervisor("KILL")
        with self._step("the supervisor hangs: the watchdog ends it"):
            self._lose_supervisor("STOP")
            assert (
                "watchdog" in self._machine.run("journalctl --unit=shardd --boot | grep --ignore-case watchdog").lower()
            )

    def _lose_supervisor(self, signal: str) -> None:
        pid, restarts = self._property("MainPID"), int(self._property("NRestarts"))
        self._machine.run(f"kill -{signal} {pid}")
        self._machine.until("systemd restarts it", lambda: int(self._property("NRestarts")) > restarts, 90)
        self._wait_healthy(lambda: self._property("ActiveState") == "active")
        self._send()

    def _uninstall(self) -> None:
        with self._step("install page: Uninstall"):
            self._carry_out("Uninstall")
            left = self._machine.run("find / -xdev -name '*shardd*' -not -path '/root/*'")
            assert left == "", left
            assert "shardd" not in self._machine.run("cat /etc/passwd /etc/group")

    # ---- small parts

    def _carry_out(self, heading: str) -> None:
        for block in self._page.take(heading):
            self._carry_out_block(block)

    def _carry_out_block(self, block: Block) -> None:
        if block.file is not None:
            self._write(block.file, block.text)
        elif block.language == "sql":
            self._machine.run(f"runuser -u postgres -- psql --set=ON_ERROR_STOP=1 <<'END'\n{block.text}\nEND")
        else:
            assert block.language == "sh", block
            self._machine.run(block.text, timeout=400)

    def _write(self, path: str, text: str) -> None:
        self._machine.run(f"cat > {path} <<'END'\n{text}\nEND")
        self._config = text

    def _edit(self, more: str) -> None:
        self._machine.run(f"cat > /etc/shardd/shards.yaml <<'END'\n{self._config}\n{more}\nEND")

    def _status(self) -> dict[str, Any]:
        return self._parsed("shardd status --json")

    def _parsed(self, command: str) -> Any:
        # With an error in the file, or a problem, the exit code is not 0 and there may be a warning.
        return json.loads(self._machine.run(f"{command} 2> /tmp/stderr || [ $? = 1 ]"))

    def _property(self, name: str) -> str:
        return self._machine.run(f"systemctl show --property={name} --value shardd")

    def _wait_healthy(self, also: Any = lambda: True) -> None:
        def look() -> bool:
            status = self._status()
            if not (also() and status["healthy"]):
                raise CommandError(f"{status.get('problems')}")
            return True

        self._machine.until("healthy", look, HEALTHY_WITHIN)

    def _wait_logged(self, text: str) -> None:
        self._machine.until(
            f"the journal has {text!r}", lambda: text in self._machine.run("journalctl --unit=shardd --boot"), 30
        )

    def _send(self) -> None:
        """Insert a job as the documented producer, and wait until it was sent."""
        insert = (
            "INSERT INTO shardd.jobs (device_id, recipient, body, class) "
            "VALUES ('me', '+4915112345678', 'Hello', 'service') RETURNING id"
        )
        job = self._psql(insert)
        self._machine.until(
            "the job is sent",
            lambda: self._psql(f"SELECT state FROM shardd.outcomes WHERE id = {job}") == "sent",
            HEALTHY_WITHIN,
        )

    def _psql(self, statement: str) -> str:
        dsn = '"$(shardd db dsn --role=producer)"'
        # Only the last line: with an error in the config, `db dsn` warns.
        return self._machine.run(f'psql {dsn} --no-align --tuples-only --quiet -c "{statement}"').splitlines()[-1]


def put_clone(clone: Path, root: Path) -> None:
    """Copy what git knows of the clone, as it is now, into the root."""
    target = root / CLONE.lstrip("/")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=clone, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, names):
        source = clone / name.decode()
        if source.exists():
            copy = target / name.decode()
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
