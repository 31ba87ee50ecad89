"""A node's network: a namespace of its own (Linux), with one cable to the rest, which can be pulled.

Over a pulled cable packets vanish in both directions: no reset, no refusal, no answer to a new connection. What TCP could not
deliver it sends again when the cable is back, at its own next try, also for a process that has died meanwhile: a proxy cannot
imitate that. Where namespaces cannot be had (they need root), a proxy stands in for it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import Self

from shardd.embedded.home import tied

NETWORKS = IPv4Network("198.18.0.0/15")
"""For tests of networks (RFC 2544): no host of the Internet has an address of these."""
LOOPBACK = "127.0.0.1"
LOOK_EVERY = 0.01


class Cable:
    """Between the address `far`, where the others listen, and the namespace of a node, which ends with its last process."""

    def __init__(self, keeper: asyncio.subprocess.Process, nsenter: str, network: IPv4Network) -> None:
        """`keeper`: a process in the namespace; `nsenter`: the path of that program."""
        self._keeper = keeper
        self._nsenter = nsenter
        self._name = f"storm{keeper.pid}"  # of an interface: at most 15 bytes
        self._network = network
        self.far, self._near = map(str, network.hosts())

    @classmethod
    async def lay(cls) -> Self | None:
        """A plugged cable; None: namespaces cannot be had here. Raises RuntimeError if it fails all the same."""
        unshare, nsenter = map(shutil.which, ("unshare", "nsenter"))
        if os.geteuid() or unshare is None or nsenter is None or shutil.which("ip") is None:
            return None
        keeper = await asyncio.create_subprocess_exec(
            *tied([unshare, "--net", "sleep", "infinity"], os.geteuid(), os.getegid()),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        while _namespace("self") == _namespace(str(keeper.pid)):  # noqa: ASYNC110  # another process's state
            await asyncio.sleep(LOOK_EVERY)
        if _namespace(str(keeper.pid)) is None:
            await keeper.wait()
            return None  # a container without the right to
        place = secrets.randbelow(2 ** (30 - NETWORKS.prefixlen))
        cable = cls(keeper, nsenter, IPv4Network((int(NETWORKS.network_address) + 4 * place, 30)))
        try:
            await cable._connect()
        except BaseException:
            await cable.remove()
            raise
        return cable

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command, in the namespace, as the same process."""
        return [self._nsenter, f"--net=/proc/{self._keeper.pid}/ns/net", "--", *command]

    async def pull(self) -> None:
        """From now on packets vanish."""
        await _run("ip", "link", "set", self._name, "down")

    async def plug(self) -> None:
        """They pass again."""
        await _run("ip", "link", "set", self._name, "up")

    async def remove(self) -> None:
        """For good."""
        self._keeper.kill()
        await self._keeper.wait()

    async def _connect(self) -> None:
        pid, bits = str(self._keeper.pid), self._network.prefixlen
        await _run("ip", "link", "add", self._name, "type", "veth", "peer", "name", "eth0", "netns", pid)
        await _run("ip", "address", "add", f"{self.far}/{bits}", "dev", self._name)
        await self.plug()
        await _run(*self.inside(["ip", "address", "add", f"{self._near}/{bits}", "dev", "eth0"]))
        for name in ("eth0", "lo"):
            await _run(*self.inside(["ip", "link", "set", name, "up"]))


def _namespace(process: str) -> str | None:
    """The network namespace of a process; None: it has ended."""
    try:
        return str(Path(f"/proc/{process}/ns/net").readlink())
    except OSError:
        return None


async def _ran(*command: str) -> str | None:
    """Run a command; returns what it complained of, None: it succeeded."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return None if process.returncode == 0 else said.decode(errors="replace").strip()


async def _run(*command: str) -> None:
    if (complaint := await _ran(*command)) is not None:
        raise RuntimeError(f"{' '.join(command)}: {complaint}")
