"""A Debian that runs: systemd as PID 1 in a container without a network, and commands in it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

Found = TypeVar("Found")

CLONE: Final = "/usr/src/shardd"
"""The clone of the project in the machine."""
WHEELS: Final = "/var/cache/wheels"

PIP_CONF: Final = f"""[global]
no-index = true
find-links = {WHEELS}
disable-pip-version-check = true
"""
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_PAGER": "",
}
_LOOK_EVERY: Final = 0.2
_BOOT_TIMEOUT: Final = 300.0
_POWER_OFF: Final = signal.SIGRTMIN + 4
"""What systemd(1) takes for poweroff."""


class CommandError(Exception):
    """A command in the machine failed."""


class Machine:
    """A running machine."""

    def __init__(self, init: int) -> None:
        """`init`: the process id of its PID 1."""
        self._init = init

    def run(
        self, command: str, *, user: str = "root", folder: str = CLONE, timeout: float = 300, fails: bool = False
    ) -> str:
        """What a command of the shell prints, on both outputs.

        Raises CommandError when it fails, or with `fails` when it does not.
        """
        if user != "root":
            command = f"exec runuser --login {user} --command {_quoted(command)}"
            folder = "/"
        if not _is_init(self._init):
            raise CommandError(f"{command}\nthe machine has ended")
        inside = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
        script = ["bash", "-e", "-o", "pipefail", "-c", f"cd {folder}\n{command}"]
        try:
            done = subprocess.run(
                [*inside, *script],
                env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, timeout=timeout, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            printed = (error.stdout or b"").decode(errors="replace")
            raise CommandError(f"{command}\ndid not end within {timeout:.0f} s\n{printed}") from None
        if (done.returncode != 0) != fails:
            raise CommandError(f"{command}\nexit code {done.returncode}\n{done.stdout}")
        return done.stdout.strip()

    def path(self, path: str) -> Path:
        """A path of the machine, as this process reaches it."""
        return Path(f"/proc/{self._init}/root{path}")

    def network_only(self) -> list[str]:
        """The beginning of a command that runs here, in the machine's network."""
        return ["nsenter", f"--net=/proc/{self._init}/ns/net"]

    def until(self, what: str, look: Callable[[], Found | None], seconds: float) -> Found:
        """The first result that is true; a command that fails is run again. Raises TimeoutError with what was last seen."""
        deadline = time.monotonic() + seconds
        last: object = None
        while time.monotonic() < deadline:
            try:
                last = found = look()
            except CommandError as error:
                last = error
            else:
                if found:
                    return found
            time.sleep(_LOOK_EVERY)
        raise TimeoutError(f"after {seconds:.0f} s: {what}; last seen: {last}")


def why_not(root: Path) -> str | None:
    """Why this machine cannot run a container, in one line; None: it can."""
    command = [*_nspawn(root, "shardd-possible"), "/bin/true"]
    try:
        done = subprocess.run(
            command,
            env=_nspawn_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        return "systemd-nspawn is not installed"
    except subprocess.TimeoutExpired:
        return "systemd-nspawn does not end within 60 s"
    lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
    return None if done.returncode == 0 else f"systemd-nspawn: {lines[-1]}"


def _nspawn(root: Path, name: str) -> list[str]:
    network = ["--private-network", "--register=no", "--keep-unit"]
    return ["systemd-nspawn", "--quiet", f"--directory={root}", f"--machine={name}", *network]


def _nspawn_environment() -> dict[str, str]:
    return {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}


@contextmanager
def booted(root: Path, wheels: Path, name: str) -> Iterator[Machine]:
    """Boot the machine, and power it off afterwards."""
    (root / "etc/pip.conf").write_text(PIP_CONF)
    (root / "etc/hostname").write_text(f"{name}\n")
    (root / WHEELS.lstrip("/")).mkdir(parents=True)
    # setpriv: nothing is left running if this process is killed. No sync: a power loss is not among what is tried.
    command = ["setpriv", "--pdeathsig", "KILL", *_nspawn(root, name), "--boot", "--console=pipe"]
    command += [f"--bind-ro={wheels}:{WHEELS}", "--suppress-sync=yes"]
    log = root.with_suffix(".console")
    with log.open("wb") as console:
        nspawn = subprocess.Popen(
            command,
            env=_nspawn_environment(),
            stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
        )  # fmt: skip
    try:
        yield _wait_booted(nspawn, log)
    finally:
        _end(nspawn)
        log.unlink()


def _wait_booted(nspawn: subprocess.Popen[bytes], log: Path) -> Machine:
    deadline = time.monotonic() + _BOOT_TIMEOUT
    last = ""
    while time.monotonic() < deadline and nspawn.poll() is None:
        init = find_init(nspawn.pid)
        if init is not None:
            machine = Machine(init)
            try:
                last = machine.run("systemctl is-system-running --wait", folder="/", timeout=_BOOT_TIMEOUT)
            except CommandError as error:
                last = str(error)
            else:
                return machine
        time.sleep(_LOOK_EVERY)
    raise CommandError(f"the machine did not boot: {last}\n{log.read_text(errors='replace')[-4000:]}")


def find_init(pid: int) -> int | None:
    """PID 1 of the machine; None: not yet. nspawn's first child is one of its own, which still has the host's root."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return next((int(child) for child in children if _is_init(int(child))), None)


def _is_init(pid: int) -> bool:
    """Whether a process is the first of its PID namespace, with mounts that are not the host's: a command never runs outside."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        mounts = Path(f"/proc/{pid}/ns/mnt").readlink()
    except OSError:
        return False
    numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), [])
    return len(numbers) > 1 and numbers[-1] == "1" and mounts != Path("/proc/self/ns/mnt").readlink()


def _end(nspawn: subprocess.Popen[bytes]) -> None:
    if nspawn.poll() is None:
        init = find_init(nspawn.pid)
        if init is not None:
            os.kill(init, _POWER_OFF)
        try:
            nspawn.wait(60)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait(30)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
