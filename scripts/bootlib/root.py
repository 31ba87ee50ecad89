"""Fresh Debian roots: made once by mmdebstrap, kept as an archive, and unpacked for each boot."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

RELEASES: Final = ("bookworm", "trixie")

_FRESH: Final = ("systemd", "systemd-sysv", "dbus")


class ImpossibleError(Exception):
    """This machine cannot boot another system; the text is the reason."""


def debian_mirror() -> str | None:
    """The Debian mirror that this machine is configured for; None: it has none, and mmdebstrap's default is used."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.split()
    return next((uri for uri in listed if uri.rstrip("/").endswith("/debian")), None)


def make_archive(release: str, packages: Sequence[str], cache: Path, include: Sequence[str] = _FRESH) -> Path:
    """The archive of a root, made unless the cache has it; apt's cache in it has `packages`, because it will have no network.

    `include`: what is installed beside the minimum.

    Raises ImpossibleError where the mirror cannot be reached.
    """
    archive = cache / f"{release}{'' if include else '-slim'}-{'+'.join(packages)}.tar"
    if archive.exists():
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    # mmdebstrap turns recommended packages off, which the machine's own apt-get will install.
    apt_get = "apt-get install -o APT::Install-Recommends=true --yes --download-only"
    fetch = f'chroot "$1" {apt_get} {" ".join(packages)} > /dev/null'
    command = ["mmdebstrap", "--quiet", "--variant=minbase"]
    command += [f"--include={','.join(include)}"] if include else []
    command += ["--skip=cleanup/apt", f"--customize-hook={fetch}"]
    mirror = debian_mirror()
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        made = Path(folder) / "root.tar"
        command += [release, str(made), *([mirror] if mirror else [])]
        code, printed = _run_whole(command, {**os.environ, "TMPDIR": folder}, timeout=1800)
        if code != 0:
            lines = [line for line in printed.splitlines() if line.startswith(("E:", "Err:"))] or ["mmdebstrap failed"]
            raise ImpossibleError(f"no root of {release} can be made: {lines[0]}")
        made.rename(archive)
    return archive


def _run_whole(command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> tuple[int, str]:
    """The exit code, and what it printed as errors; when this is interrupted, nothing that it started is left running.

    Killed alone, mmdebstrap would leave its apt-get, and the root that it makes.
    """
    with subprocess.Popen(
        command,
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            _, printed = process.communicate(timeout=timeout)
        except BaseException:
            with suppress(subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGTERM)
                process.communicate(timeout=30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, printed


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """A root of one's own, removed afterwards."""
    root = Path(tempfile.mkdtemp(prefix="root-", dir=archive.parent))
    root.chmod(0o755)
    try:
        command = ["tar", "--extract", "--numeric-owner", "--preserve-permissions", "--xattrs-include=*"]
        subprocess.run([*command, f"--file={archive}", f"--directory={root}"], check=True, timeout=300)
        yield root
    finally:
        shutil.rmtree(root)


def python_version(root: Path) -> str:
    """The full version of the Python that apt would install in the root, such as 3.11.2."""
    packages = (root / "var/cache/apt/archives").glob("python3.*-minimal_*.deb")
    (version,) = {found[1] for package in packages if (found := re.search(r"_(\d+\.\d+\.\d+)", package.name))}
    return version


def cache_folder() -> Path:
    """Where archives and wheels are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardd" / "boot"
