"""The container image: built by the shipped Containerfile, and run with what the manifests allow.

podman builds it, word for word, from a base image that mmdebstrap makes, because no registry is needed for that. systemd-nspawn
runs it: as the image's user, with a read-only root file system, without capabilities and without a network.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bootlib.fresh import put_clone
from bootlib.machine import CLONE as CLONE_IN_ROOT
from bootlib.machine import PIP_CONF, WHEELS, Machine, find_init
from bootlib.root import ImpossibleError, cache_folder, make_archive, python_version, unpacked
from bootlib.steps import Steps
from bootlib.wheels import download_wheels

BASE: Final = "docker.io/library/debian:trixie-slim"
RELEASE: Final = "trixie"
UID: Final = 10001
STATE: Final = "/var/lib/shardd"
CONFIG: Final = """
state_dir: /var/lib/shardd
shards: 2
control: {metrics: "0.0.0.0:9464"}
pacing: {gap_min: 0, gap_max: 0, hourly_limit: 0, daily_limit: 0}
# Long enough to be in flight at a stop.
transports: {sandbox: {latency_min: 10s, latency_max: 10s}}
"""
PAGE: Final = "import sys, urllib.request as r; sys.stdout.write(r.urlopen('http://127.0.0.1:9464/{}').read().decode())"
PATIENCE: Final = 120.0


def try_container(clone: Path, locks: list[Path]) -> None:
    """All steps. Raises CommandError, TimeoutError, AssertionError; ImpossibleError where the tools are missing."""
    steps = Steps("container")
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        image = _Image(Path(name), clone)
        image.build(steps, locks)
        container = _Container(Path(name), image)
        try:
            _use(container, steps)
        finally:
            container.kill()


def _use(container: _Container, steps: Steps) -> None:
    with steps.step("starts without root, rights and a writable root file system"):
        container.start()
        container.run("shardd status --wait --timeout=2m")
        rights = container.run("grep --extended-regexp 'Uid|CapEff|CapBnd|NoNewPrivs' /proc/1/status").split()
        none = "0" * 16
        assert rights == ["Uid:", *[str(UID)] * 4, "CapEff:", none, "CapBnd:", none, "NoNewPrivs:", "1"], rights
        assert container.run("cat /proc/1/comm") == "tini"
        container.run("touch /etc/written || touch /opt/shardd/written || touch /var/tmp/written", fails=True)
        assert container.run("ls -A /tmp") == ""
    with steps.step("answers probes and Prometheus by TCP"):
        assert '"alive": true' in container.get("health")
        assert '"ready": true' in container.get("ready")
        assert "\nshardd_up 1.0\n" in container.get("metrics")
    with steps.step("sends"):
        container.run("shardd device add me --transport=sandbox")
        container.insert()
        container.until("one is sent", lambda: container.states() == "sent|1")
    with steps.step("SIGTERM drains"):
        container.insert()
        container.until("one is in flight", lambda: "sending|1" in container.states())
        assert container.stop() == 0
        container.start()
        container.run("shardd status --wait --timeout=2m")
        assert container.states() == "sent|2"
    with steps.step("a container that was killed continues on its volume"):
        container.kill()
        container.start()
        container.run("shardd status --wait --timeout=2m")
        container.insert()
        container.until("one more is sent", lambda: container.states() == "sent|3")
        assert container.stop() == 0
    with steps.step("the volume's root is as Kubernetes left it, so it need not change the files at the next start"):
        found = container.state.stat()
        assert (found.st_uid, found.st_gid, oct(found.st_mode & 0o7777)) == (0, UID, "0o2775")
    with steps.step("if it changes them (fsGroupChangePolicy: Always), the start is refused, with the reason"):
        lock = container.state / "supervisor.lock"
        lock.chmod(lock.stat().st_mode | 0o660)
        assert (
            "supervisor.lock is writable by others (mode 660): chown it to shardd and chmod 600 it" in container.fail()
        )


class _Image:
    """The image, in a storage of its own."""

    def __init__(self, folder: Path, clone: Path) -> None:
        self._folder = folder
        self._clone = clone
        self._file = clone / "config/container/Containerfile"
        storage = [f"--root={folder}/storage", f"--runroot={folder}/run", "--storage-driver=vfs"]
        self._podman = ["podman", *storage, "--cgroup-manager=cgroupfs"]
        self.root = folder
        self.settings: dict[str, Any] = {}

    def build(self, steps: Steps, locks: list[Path]) -> None:
        """Set `root` and `settings`."""
        with steps.step("a base image by mmdebstrap"):
            archive = make_archive(RELEASE, self._packages(), cache_folder(), include=())
            self._run(*self._podman, "import", str(archive), BASE)
            with unpacked(archive) as root:
                python = python_version(root)
        wheels = cache_folder() / f"wheels-shardd-{python}"
        with steps.step(f"locked wheels for Python {python}"):
            download_wheels(locks, python, wheels)
        with steps.step("podman build"):
            context = self._folder / "context"
            put_clone(self._clone, context)
            pip_conf = self._folder / "pip.conf"
            pip_conf.write_text(PIP_CONF)
            command = [*self._podman, "build", "--isolation=chroot", "--network=host", "--pull=never", "--layers=false"]
            command += [f"--volume={wheels}:{WHEELS}:ro", f"--volume={pip_conf}:/etc/pip.conf:ro"]
            # Without a network: Debian's packages and the wheels are there.
            self._run("unshare", "--net", *command, "--tag=shardd", f"--file={self._file}", f"{context}{CLONE_IN_ROOT}")
        self.root = Path(self._run(*self._podman, "image", "mount", "localhost/shardd"))
        inspected = self._run(*self._podman, "image", "inspect", "localhost/shardd", "--format={{json .Config}}")
        self.settings = json.loads(inspected)
        assert self.settings["User"] == f"{UID}:{UID}"
        assert set(self.settings["Volumes"]) == {STATE}

    def _packages(self) -> list[str]:
        found = re.findall(r"apt-get install --yes --no-install-recommends ([^&]+)&&", self._file.read_text())
        assert len(found) == 2
        return sorted({name for names in found for name in names.split()})

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1500, check=False
        )
        if done.returncode != 0:
            raise ImpossibleError(f"{command[:2]}: {done.stderr.strip()[-2000:]}")
        return done.stdout.strip()


class _Container:
    """A container on a volume, which it keeps over its starts."""

    def __init__(self, folder: Path, image: _Image) -> None:
        self._image = image
        self._folder = folder
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0
        self._dsn = ""
        self.state = folder / "volume"
        self.state.mkdir()
        # As the kubelet leaves a volume with fsGroup (kubernetes/kubernetes, pkg/volume/volume_linux.go).
        os.chown(self.state, 0, UID)
        self.state.chmod(0o2775)
        (folder / "etc").mkdir()
        (folder / "etc" / "shards.yaml").write_text(CONFIG)

    def start(self) -> None:
        self._launch()
        self._init = Machine(0).until("the container runs", self._find_init, PATIENCE)

    def _launch(self) -> None:
        settings = self._image.settings
        command = [
            *("setpriv", "--pdeathsig", "KILL"),
            *("systemd-nspawn", "--quiet", f"--directory={self._image.root}", "--read-only", "--console=pipe"),
            *("--machine=shardd-0", "--register=no", "--keep-unit", "--private-network"),
            *(f"--user={UID}", "--no-new-privileges=yes", "--drop-capability=all"),
            *(f"--bind={self.state}:{STATE}", f"--bind-ro={self._folder}/etc:/etc/shardd", "--tmpfs=/tmp:mode=1777"),
            *(f"--chdir={settings['WorkingDir']}", *(f"--setenv={value}" for value in settings["Env"])),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *settings["Entrypoint"], *settings["Cmd"]],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _find_init(self) -> int | None:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()[-4000:]
        init = find_init(self._process.pid)
        # Until then it is nspawn itself.
        return init if init is not None and Path(f"/proc/{init}/comm").read_text() == "tini\n" else None

    def run(self, command: str, *, fails: bool = False) -> str:
        """What a command prints that runs as the image's user, as `podman exec` would run it."""
        environ = " ".join(map(shlex.quote, self._image.settings["Env"]))
        rights = f"setpriv --reuid={UID} --regid={UID} --clear-groups --no-new-privs --bounding-set=-all"
        inside = f"{rights} env {environ} sh -e -c {shlex.quote(command)}"
        return Machine(self._init).run(inside, folder=STATE, timeout=PATIENCE + 30, fails=fails)

    def get(self, page: str) -> str:
        """A page of the port for probes."""
        return self.run(f"python3 -c {shlex.quote(PAGE.format(page))}")

    def insert(self) -> None:
        self._psql("INSERT INTO shardd.jobs (device_id, recipient, body) VALUES ('me', '+4915112345678', 'Hello')")

    def states(self) -> str:
        """Such as `sending|1` and `sent|2`, in lines."""
        return self._psql("SELECT state, count(*) FROM shardd.outcomes GROUP BY state ORDER BY state")

    def _psql(self, statement: str) -> str:
        self._dsn = self._dsn or shlex.quote(self.run("shardd db dsn --role=producer"))
        return self.run(f'psql {self._dsn} --no-align --tuples-only --quiet --command="{statement}"')

    def until(self, what: str, look: Callable[[], bool]) -> None:
        Machine(self._init).until(what, look, PATIENCE)

    def stop(self) -> int:
        """As `podman stop` does it; returns the exit code."""
        assert self._process is not None
        os.kill(self._init, signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def fail(self) -> str:
        """Start it; returns its log once it has ended with an error."""
        self._launch()
        assert self._process is not None
        assert self._process.wait(PATIENCE) != 0
        return self._log.read_text()

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._init, signal.SIGKILL)
            self._process.wait(PATIENCE)
