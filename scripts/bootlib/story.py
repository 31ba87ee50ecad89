"""What is done with a machine, step by step: the install page, and what an operator and bad luck do to a service."""

from __future__ import annotations

from typing import Final

from bootlib.machine import CLONE, Machine
from bootlib.page import STAND_FOR, Pages
from bootlib.service import CONFIG, HEALTHY_WITHIN, UNPACED, Service
from bootlib.steps import Steps
from bootlib.whatsapp import use_whatsapp

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


class Story:
    """The steps on one machine; `play` goes through them in order."""

    def __init__(self, machine: Machine, pages: Pages, steps: Steps) -> None:
        self._service = Service(machine, pages)
        self._pages = pages
        self._step = steps.step

    def play(self) -> None:
        """Everything. Raises what a step raises."""
        self._install()
        self._embedded()
        self._server()
        self._restore()
        self._restore_by_hand()
        self._upgrade()
        self._uninstall()
        assert self._pages.left() == [], "commands of the pages that nothing carries out"

    def _install(self) -> None:
        with self._step("install page: Program"):
            self._service.carry_out("Program")
            self._service.write(CONFIG, self._service.run(f"cat {CONFIG}"))
        with self._step("a setup by another user is refused, and a second one by root changes nothing"):
            self._service.run("useradd --create-home alice; useradd --create-home stranger")
            assert "run it as root" in self._service.run("shardd setup systemd", user="alice", fails=True)
            again = self._service.run("shardd setup systemd").splitlines()
            assert {line.split()[0] for line in again[:-1]} == {"unchanged", "kept"}, again
        with self._step("commands read the environment file as systemd does"):
            self._compare_with_systemd()

    def _compare_with_systemd(self) -> None:
        self._service.run(f"cat > /root/peculiar <<'END'\n{PECULIAR}END\ncat > /root/compare.py <<'END'\n{COMPARE}END")
        self._service.run("/opt/shardd/bin/python /root/compare.py")

    def _embedded(self) -> None:
        # A small disk, which a later step fills.
        self._service.run(
            "mkdir --parents /var/lib/shardd && mount -t tmpfs -o size=320m,mode=700,uid=shardd,gid=shardd none /var/lib/shardd"
        )
        with self._step("install page: Start"):
            self._service.producer = '"$(shardd db dsn --role=producer)"'
            self._service.carry_out("Start")
        self._send_and_recover()
        with self._step("an image is decoded under the restrictions of the unit"):
            self._run_as_the_unit(DECODE)
        with self._step("PostgreSQL is killed: it runs again"):
            postgres = self._service.run("head --lines=1 /var/lib/shardd/pg/data/postmaster.pid")
            self._service.run(f"kill -KILL {postgres}")
            self._service.wait_healthy(
                lambda: self._service.run("head --lines=1 /var/lib/shardd/pg/data/postmaster.pid") != postgres
            )
            self._service.send()
        with self._step("backup page: Restore the embedded database"):
            self._service.run(f"shardd db backup {BACKUP}")
            lost = self._service.insert(1)
            self._service.carry_out("Restore the embedded database")
            assert self._service.count(lost, "sent") == 0
            self._service.wait_healthy()
            self._service.send()
            self._service.run(f"rm {BACKUP}")
        with self._step("the embedded database's disk is full: status reports it, and with room all is sent, once"):
            self._fill_database_disk()
        use_whatsapp(self._service, self._step)

    def _fill_database_disk(self) -> None:
        before = self._service.messages()
        many = self._service.insert(200, run_at="now() + interval '10 seconds'")
        self._service.run("rm -r /var/lib/shardd/pg.old; cat /dev/zero > /var/lib/shardd/fill", fails=True)
        # The next segment of the write-ahead log does not fit, so the server ends.
        switch = "SELECT pg_switch_wal(), pg_logical_emit_message(false, '', 'full')"
        self._service.run(f'while psql --host=/var/lib/shardd/pg --username=postgres --command="{switch}"; do :; done')
        self._service.until(
            "status reports the disk", lambda: "its disk is full" in f"{self._service.status()['problems']}", 60
        )
        self._service.run("rm /var/lib/shardd/fill")
        self._service.until("all are sent", lambda: self._service.count(many, "sent") == 200, HEALTHY_WITHIN)
        self._service.wait_healthy()
        assert self._service.messages() == before + 200

    def _run_as_the_unit(self, program: str) -> None:
        """Run a Python program as the shipped unit would run shardd."""
        self._service.run(f"cat > /opt/shardd/probe.py <<'END'\n{program}\nEND")
        edits = (
            "s|^ExecStart=.*|ExecStart=/opt/shardd/bin/python /opt/shardd/probe.py|",
            "s|^Type=.*|Type=oneshot|",
            # The folder of the running service's socket would be removed.
            "/^WatchdogSec=/d; /^Restart/d; /^RuntimeDirectory/d",
        )
        sed = " ".join(f"--expression='{edit}'" for edit in edits)
        self._service.run(
            f"sed {sed} systemd/shardd.service > /run/systemd/system/probe.service && systemctl daemon-reload\n"
            "systemctl start probe || { journalctl --unit=probe; exit 1; }"
        )

    def _server(self) -> None:
        with self._step("install page: Database on a server"):
            # Another one.
            self._service.run(
                "umount /var/lib/shardd && mount -t tmpfs -o size=8m,mode=700,uid=shardd,gid=shardd none /var/lib/shardd"
            )
            self._service.producer = f"'postgresql://shop:{STAND_FOR['…']}@{STAND_FOR['db.example']}/shardd'"
            self._service.carry_out("Database on a server")
            self._service.run("shardd device add me --transport=sandbox")
            # Members of the group may not read the password, which this command does not need.
            assert "warning" not in self._service.run("shardd status", user="alice")
            assert "run this as root" in self._service.run("shardd job list", user="alice", fails=True)
            self._service.reload(UNPACED)
            self._service.send()
        with self._step(
            "the state folder's disk is full: jobs wait, status reports it, and sending continues with room"
        ):
            self._fill_disk()
        with self._step("the server's PostgreSQL restarts: sending continues"):
            self._service.run("systemctl restart postgresql")
            self._service.wait_healthy()
            self._service.send()

    def _fill_disk(self) -> None:
        self._service.run("cat /dev/zero > /var/lib/shardd/fill", fails=True)
        many = self._service.insert(200)
        self._service.until("status reports the journal", lambda: "journal" in self._service.problem_kinds(), 60)
        assert self._service.count(many, "sent") < 200
        self._service.run("rm /var/lib/shardd/fill")
        self._service.until("all are sent", lambda: self._service.count(many, "sent") == 200, HEALTHY_WITHIN)
        self._service.wait_healthy()

    def _restore(self) -> None:
        with self._step("backup page"):
            waiting = self._service.insert(1, run_at="now() + interval '1 day'")
            self._service.carry_out("Backup")
            lost = self._service.insert(1)
            self._service.carry_out("Restore")
            assert (self._service.count(waiting, "cancelled"), self._service.count(lost, "sent")) == (1, 0)
            self._service.wait_healthy()
            self._service.send()

    def _restore_by_hand(self) -> None:
        with self._step("backup page: Restored by other means"):
            dump, postgres = "/var/tmp/by-hand.dump", "runuser -u postgres --"
            waiting = self._service.insert(1, run_at="now() + interval '1 day'")
            self._service.run(f"systemctl stop shardd && {postgres} pg_dump --format=custom --file={dump} shardd")
            self._service.run("systemctl start shardd")
            self._service.wait_healthy()
            self._service.send()
            self._service.run(f"systemctl stop shardd && {postgres} dropdb shardd")
            self._service.run(f"{postgres} createdb --owner=shardd --encoding=UTF8 --template=template0 shardd")
            self._service.run(f"{postgres} pg_restore --dbname=shardd {dump} && rm {dump}")
            self._service.run("systemctl start --no-block shardd")
            self._service.until(
                "status says that it is older",
                lambda: "shardd db restored" in f"{self._service.status()['problems']}",
                60,
            )
            assert self._service.count(waiting, "scheduled") == 1
            self._service.carry_out("Restored by other means")
            self._service.wait_healthy(lambda: self._service.count(waiting, "cancelled") == 1)
            self._service.send()

    def _upgrade(self) -> None:
        with self._step("upgrade page"):
            waiting = self._service.insert(1, run_at="now() + interval '1 day'")
            version = self._service.status()["version"]
            self._service.run(f'sed --in-place \'s/"{version}"/"{version}.1"/\' shardd/__init__.py')
            self._service.carry_out("Upgrade")
            assert self._service.status()["version"] == f"{version}.1"
            assert self._service.count(waiting, "scheduled") == 1
            self._service.wait_healthy()
            self._service.send()

    def _send_and_recover(self) -> None:
        with self._step("the service is active, and healthy as root"):
            assert self._service.property("ActiveState") == "active"
            self._service.wait_healthy()
        with self._step("install page: Operators without root"):
            self._service.carry_out("Operators without root")
            assert "healthy" in self._service.run("shardd status", user="alice")
            assert "permission denied" in self._service.run("shardd status", user="stranger", fails=True)
        with self._step("a job of a producer is sent"):
            self._service.send()
        with self._step("a reload changes what it may"):
            self._service.reload(UNPACED)
            self._service.wait_logged("pacing.hourly_limit")
        with self._step("a reload of a broken config is refused, and shardd continues"):
            self._service.reload("pacing: {gap_min: soon}")
            self._service.until(
                "status reports the file", lambda: "gap_min" in str(self._service.status()["notes"]), 30
            )
            assert self._service.property("ActiveState") == "active"
            self._service.send()
            self._service.reload(UNPACED)
            self._service.wait_healthy()
        with self._step("a worker is killed: another takes its place"):
            pid = self._service.status()["shards"][0]["pid"]
            self._service.run(f"kill -KILL {pid}")
            self._service.wait_healthy(lambda: self._service.status()["shards"][0]["pid"] not in (None, pid))
        with self._step("the supervisor is killed: systemd starts it again"):
            self._lose_supervisor("KILL")
        with self._step("the supervisor hangs: the watchdog ends it"):
            self._lose_supervisor("STOP")
            assert (
                "watchdog" in self._service.run("journalctl --unit=shardd --boot | grep --ignore-case watchdog").lower()
            )

    def _lose_supervisor(self, signal: str) -> None:
        pid, restarts = self._service.property("MainPID"), int(self._service.property("NRestarts"))
        self._service.run(f"kill -{signal} {pid}")
        self._service.until("systemd restarts it", lambda: int(self._service.property("NRestarts")) > restarts, 90)
        self._service.wait_healthy(lambda: self._service.property("ActiveState") == "active")
        self._service.send()

    def _uninstall(self) -> None:
        with self._step("install page: Uninstall"):
            self._service.run("systemctl stop shardd && umount /var/lib/shardd && rm /var/backups/*shardd*")
            self._service.carry_out("Uninstall")
            left = self._service.run(f"find / -xdev -name '*shardd*' -not -path '{CLONE}*'")
            assert left == "", left
            assert "shardd" not in self._service.run("cat /etc/passwd /etc/group")
