"""What is done with a machine, step by step: the install page, and what an operator and bad luck do to a service."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from bootlib.machine import CLONE, CommandError, Machine
from bootlib.page import STAND_FOR, Block, Pages
from bootlib.steps import Steps

UNPACED: Final = "pacing: {gap_min: 0, gap_max: 0, hourly_limit: 0, daily_limit: 0}"
DECODE: Final = """
import asyncio
import io

from PIL import Image

from shardd.transports.whatsapp.media.previews import Previews


async def decode() -> None:
    file = io.BytesIO()
    Image.new("RGB", (640, 480)).save(file, "PNG")
    previews = Previews()
    picture = await previews.make(file.getvalue())
    await previews.close()
    assert picture is not None and picture.preview is not None, picture


asyncio.run(decode())
"""
BACKUP: Final = "/var/backups/shardd.dump"
CONFIG: Final = "/etc/shardd/shards.yaml"
PECULIAR: Final = r"""
# An environment file with all that systemd.exec(5) mentions.
; This, too.
A=b c  \
  d
B= 'it''s $HOME' "\$5 \"x\" \n\
y" z
 C = \'q\' "r" # s
export D=e
E
F==
G='a
b'
A_1=\\ \
"""
COMPARE: Final = """
import subprocess
from pathlib import Path

from shardd.environment_file import parse_environment

file = Path("/root/peculiar")
command = ["systemd-run", "--quiet", "--wait", "--pipe", f"--property=EnvironmentFile={file}", "/usr/bin/env", "--null"]
printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\\0")
given = dict(one.split("=", 1) for one in printed if one)
ours = parse_environment(file.read_bytes()).variables
assert ours.keys() == {"A", "B", "C", "F", "G", "A_1"}, ours
assert {name: given.get(name) for name in ours} == ours, (ours, given)
assert not {"D", "E", "export D"} & given.keys(), given
"""
HEALTHY_WITHIN: Final = 90.0
"""Seconds in which the service must recover."""


class Story:
    """The steps on one machine; `play` goes through them in order."""

    def __init__(self, machine: Machine, pages: Pages, steps: Steps) -> None:
        self._machine = machine
        self._pages = pages
        self._step = steps.step
        self._config = ""
        self._producer = ""
        self._numbers = itertools.count(1)

    def play(self) -> None:
        """Everything. Raises what a step raises."""
        self._install()
        self._embedded()
        self._server()
        self._restore()
        self._upgrade()
        self._uninstall()
        assert self._pages.left() == [], "commands of the pages that nothing carries out"

    def _install(self) -> None:
        with self._step("install page: Program"):
            self._carry_out("Program")
            self._config = self._machine.run(f"cat {CONFIG}")
        with self._step("a setup by another user is refused, and a second one by root changes nothing"):
            self._machine.run("useradd --create-home alice; useradd --create-home stranger")
            assert "run it as root" in self._machine.run("shardd setup systemd", user="alice", fails=True)
            again = self._machine.run("shardd setup systemd").splitlines()
            assert {line.split()[0] for line in again[:-1]} == {"unchanged", "kept"}, again
        with self._step("commands read the environment file as systemd does"):
            self._compare_with_systemd()

    def _compare_with_systemd(self) -> None:
        self._machine.run(f"cat > /root/peculiar <<'END'\n{PECULIAR}END\ncat > /root/compare.py <<'END'\n{COMPARE}END")
        self._machine.run("/opt/shardd/bin/python /root/compare.py")

    def _embedded(self) -> None:
        with self._step("install page: Start"):
            self._producer = '"$(shardd db dsn --role=producer)"'
            self._carry_out("Start")
        self._send_and_recover()
        with self._step("an image is decoded under the restrictions of the unit"):
            self._run_as_the_unit(DECODE)
        with self._step("PostgreSQL is killed: it runs again"):
            postgres = self._machine.run("head --lines=1 /var/lib/shardd/pg/data/postmaster.pid")
            self._machine.run(f"kill -KILL {postgres}")
            self._wait_healthy(
                lambda: self._machine.run("head --lines=1 /var/lib/shardd/pg/data/postmaster.pid") != postgres
            )
            self._send()
        with self._step("backup page: Restore the embedded database"):
            self._machine.run(f"shardd db backup {BACKUP}")
            lost = self._insert(1)
            self._carry_out("Restore the embedded database")
            assert self._count(lost, "sent") == 0
            self._wait_healthy()
            self._send()
            self._machine.run(f"rm {BACKUP}")
        with self._step("a stop is clean"):
            self._machine.run("systemctl stop shardd", timeout=120)
            assert self._property("Result") == "success"
            assert self._machine.run("find /proc -maxdepth 1 -user shardd") == ""

    def _run_as_the_unit(self, program: str) -> None:
        """Run a Python program as the shipped unit would run shardd."""
        self._machine.run(f"cat > /opt/shardd/probe.py <<'END'\n{program}\nEND")
        edits = (
            "s|^ExecStart=.*|ExecStart=/opt/shardd/bin/python /opt/shardd/probe.py|",
            "s|^Type=.*|Type=oneshot|",
            # The folder of the running service's socket would be removed.
            "/^WatchdogSec=/d; /^Restart/d; /^RuntimeDirectory/d",
        )
        sed = " ".join(f"--expression='{edit}'" for edit in edits)
        self._machine.run(
            f"sed {sed} systemd/shardd.service > /run/systemd/system/probe.service && systemctl daemon-reload\n"
            "systemctl start probe || { journalctl --unit=probe; exit 1; }"
        )

    def _server(self) -> None:
        with self._step("install page: Database on a server"):
            self._machine.run("rm -rf /var/lib/shardd/*")
            # A small disk, which a later step fills.
            self._machine.run("mount -t tmpfs -o size=8m,mode=700,uid=shardd,gid=shardd none /var/lib/shardd")
            self._producer = f"'postgresql://shop:{STAND_FOR['…']}@{STAND_FOR['db.example']}/shardd'"
            self._carry_out("Database on a server")
            self._machine.run("shardd device add me --transport=sandbox")
            # Members of the group may not read the password, which this command does not need.
            assert "warning" not in self._machine.run("shardd status", user="alice")
            assert "run this as root" in self._machine.run("shardd job list", user="alice", fails=True)
            self._reload(UNPACED)
            self._send()
        with self._step(
            "the state folder's disk is full: jobs wait, status reports it, and sending continues with room"
        ):
            self._fill_disk()
        with self._step("the server's PostgreSQL restarts: sending continues"):
            self._machine.run("systemctl restart postgresql")
            self._wait_healthy()
            self._send()

    def _fill_disk(self) -> None:
        self._machine.run("cat /dev/zero > /var/lib/shardd/fill", fails=True)
        many = self._insert(200)
        self._machine.until("status reports the journal", lambda: "journal" in self._problem_kinds(), 60)
        assert self._count(many, "sent") < 200
        self._machine.run("rm /var/lib/shardd/fill")
        self._machine.until("all are sent", lambda: self._count(many, "sent") == 200, HEALTHY_WITHIN)
        self._wait_healthy()

    def _restore(self) -> None:
        with self._step("backup page"):
            waiting = self._insert(1, run_at="now() + interval '1 day'")
            self._carry_out("Backup")
            lost = self._insert(1)
            self._carry_out("Restore")
            assert (self._count(waiting, "cancelled"), self._count(lost, "sent")) == (1, 0)
            self._wait_healthy()
            self._send()

    def _upgrade(self) -> None:
        with self._step("upgrade page"):
            waiting = self._insert(1, run_at="now() + interval '1 day'")
            version = self._status()["version"]
            self._machine.run(f'sed --in-place \'s/"{version}"/"{version}.1"/\' shardd/__init__.py')
            self._carry_out("Upgrade")
            assert self._status()["version"] == f"{version}.1"
            assert self._count(waiting, "scheduled") == 1
            self._wait_healthy()
            self._send()

    def _send_and_recover(self) -> None:
        with self._step("the service is active, and healthy as root"):
            assert self._property("ActiveState") == "active"
            self._wait_healthy()
        with self._step("install page: Operators without root"):
            self._carry_out("Operators without root")
            assert "healthy" in self._machine.run("shardd status", user="alice")
            assert "permission denied" in self._machine.run("shardd status", user="stranger", fails=True)
        with self._step("a job of a producer is sent"):
            self._send()
        with self._step("a reload changes what it may"):
            self._reload(UNPACED)
            self._wait_logged("pacing.hourly_limit")
        with self._step("a reload of a broken config is refused, and shardd continues"):
            self._reload("pacing: {gap_min: soon}")
            self._machine.until("status reports the file", lambda: "gap_min" in str(self._status()["notes"]), 30)
            assert self._property("ActiveState") == "active"
            self._send()
            self._reload(UNPACED)
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
            self._machine.run("systemctl stop shardd && umount /var/lib/shardd && rm /var/backups/*shardd*")
            self._carry_out("Uninstall")
            left = self._machine.run(f"find / -xdev -name '*shardd*' -not -path '{CLONE}*'")
            assert left == "", left
            assert "shardd" not in self._machine.run("cat /etc/passwd /etc/group")

    # ---- small parts

    def _carry_out(self, heading: str) -> None:
        for block in self._pages.take(heading):
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

    def _reload(self, more: str) -> None:
        """Add this to the page's config."""
        self._machine.run(f"cat > {CONFIG} <<'END'\n{self._config}\n{more}\nEND")
        self._machine.run("systemctl reload shardd")

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
        name = self._insert(1)
        self._machine.until("the job is sent", lambda: self._count(name, "sent") == 1, HEALTHY_WITHIN)

    def _insert(self, count: int, *, run_at: str = "now()") -> str:
        """Insert jobs; returns their common reference."""
        name = f"boot-{next(self._numbers)}"
        self._psql(
            "INSERT INTO shardd.jobs (device_id, recipient, body, class, reference, run_at) "
            f"SELECT 'me', '+4915112345678', 'Hello', 'service', '{name}', {run_at} FROM generate_series(1, {count})"
        )
        return name

    def _count(self, name: str, state: str) -> int:
        return int(self._psql(f"SELECT count(*) FROM shardd.outcomes WHERE reference = '{name}' AND state = '{state}'"))

    def _problem_kinds(self) -> list[str]:
        return [kind for kind, count in self._status()["problem_kinds"].items() if count]

    def _psql(self, statement: str) -> str:
        command = f'psql {self._producer} --no-align --tuples-only --quiet --command="{statement}"'
        # Only the last line: with an error in the config, `db dsn` warns.
        return self._machine.run(command).rpartition("\n")[2]


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
