"""A device on the test WhatsApp server, in the service as the unit confines it.

An installed shardd trusts no server but WhatsApp's, whatever its environment names, so the service runs the clone's package here:
a drop-in adds variables, the clone's folder on PYTHONPATH among them, and nothing else of the unit differs. The server runs on
this machine with the clone's environment, but in the network of the booted one.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

from bootlib.machine import CLONE, Machine
from bootlib.service import UNPACED, Service
from tests.whatsapp_server.launch import ServerProcess, launch

OWNER: Final = "6281100000001"
FRIEND: Final = "4915112345678"
TEXT: Final = "Your table is ready."
CAPTION: Final = "The menu."
ANSWER: Final = "Thank you!"

_SITE: Final = f"{CLONE}/tests/whatsapp_server/client/site"
_SERVER_FOLDER: Final = "/srv/whatsapp"
_MEDIA: Final = "/srv/media"
_DROP_IN: Final = "/etc/systemd/system/shardd.service.d/test-server.conf"
_PAIRING: Final = "/root/pairing"
_PICTURE: Final = """
from PIL import Image

Image.new("RGB", (640, 480)).save("/srv/media/menu.png")
"""
_READ: Final = """
import socket, sys

connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(sys.argv[2].encode() + b"\\n")
print(connection.makefile().readline())
"""


def use_whatsapp(service: Service, step: Callable[[str], AbstractContextManager[None]]) -> None:
    """Pair a device, send, and read an answer; afterwards the service runs with a device that is not connected.

    The belief that is tried: what the unit forbids (memory that is writable and executable, other system calls, users and devices
    of the host) is nothing that the library needs, which is a Go program inside of Python.
    """
    with whatsapp_server(service.machine) as whatsapp:
        with step("an installed shardd refuses to trust a test server"):
            service.reload(f"{UNPACED}\n{whatsapp.config}")
            service.run(f"mkdir {_MEDIA} && /opt/shardd/bin/python -c {shlex.quote(_PICTURE)}")
            service.run("shardd device add shop --transport=whatsapp")
            refused = service.run(
                f"{whatsapp.variables(of_clone=False)} shardd device pair shop", folder="/", fails=True
            )
            assert "is an installed shardd, which does not trust a test server" in refused, refused
        with step("a WhatsApp device is paired by its QR code, while the service runs the same code from the clone"):
            packages = f"{CLONE}/shardd $(cd / && /opt/shardd/bin/python -c 'import shardd; print(*shardd.__path__)')"
            service.run(
                f"diff --recursive --exclude=__pycache__ --exclude=shardd.service --exclude='*.conf' {packages}"
            )
            whatsapp.trusted_by_service()
            whatsapp.pair("shop")
        with step("it sends text and an image, and receives, under all restrictions of the unit"):
            _converse(service, whatsapp)
            _check_confined(service)
        with step("it sends again after a restart, and the stop is clean"):
            service.run("systemctl restart shardd")
            _send(service, "Open again.")
            assert [message["text"] for message in whatsapp.messages(3)] == [TEXT, CAPTION, "Open again."]
            service.stop()
        whatsapp.untrusted_by_service()


def _converse(service: Service, whatsapp: WhatsApp) -> None:
    job = _send(service, TEXT)
    assert job["state"] == "sent", job
    _send(service, CAPTION, "--media=menu.png --kind=image")
    text, image = whatsapp.messages(2)
    assert (text["kind"], text["text"], text["read_by"]) == ("text", TEXT, [FRIEND]), text
    assert (image["kind"], image["text"], image["read_by"]) == ("image", CAPTION, [FRIEND]), image
    service.until("it is delivered", lambda: service.parsed(f"shardd job show {job['id']} --json")["delivered_at"], 30)
    whatsapp.call("write", device=OWNER, sender=FRIEND, text=ANSWER)
    service.until("the answer is listed", lambda: ANSWER in service.run("shardd inbox list"), 30)


def _send(service: Service, text: str, options: str = "") -> Any:
    """Send to the friend, and return the job when it was sent."""
    return service.parsed(f"shardd send shop +{FRIEND} {shlex.quote(text)} {options} --json")


def _check_confined(service: Service) -> None:
    """Look at the process that has the library, as the kernel sees it."""
    pid = service.run("grep --files-with-matches 'neonize.*[.]so' /proc/[0-9]*/maps").split("/")[2]
    assert service.run(f"stat --format=%U /proc/{pid}") == "shardd"
    status = dict(line.split(":", 1) for line in service.run(f"cat /proc/{pid}/status").splitlines())
    confined = {name: status[name].strip() for name in ("NoNewPrivs", "Seccomp", "CapEff", "CapBnd")}
    assert confined == {"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0" * 16, "CapBnd": "0" * 16}, confined
    assert service.run(f"readlink /proc/{pid}/ns/user") != service.run("readlink /proc/1/ns/user")
    rights = {line.split()[1] for line in service.run(f"cat /proc/{pid}/maps").splitlines()}
    assert not [right for right in rights if "w" in right and "x" in right], rights
    for name in ("MemoryDenyWriteExecute", "PrivateUsers", "PrivateDevices", "RestrictNamespaces"):
        assert service.property(name) == "yes", name


class WhatsApp:
    """The test server, and how processes of the machine come to trust it."""

    def __init__(self, machine: Machine, server: ServerProcess, ca: str) -> None:
        """`ca`: the server's file, in the machine."""
        self._machine = machine
        self._port = server.control_port
        self._trust = {"SSL_CERT_FILE": ca, "SHARDD_TEST_NOISE_ROOT": server.noise_root}
        self.config = f"transports: {{whatsapp: {{proxy: '{server.proxy_url()}', media_dir: {_MEDIA}}}}}"

    def variables(self, *, of_clone: bool) -> str:
        """With these, Python runs shardd from the clone, or as it is installed, and the library is told to trust the server."""
        path = f"{_SITE}:{CLONE}" if of_clone else _SITE
        return " ".join(f"{name}={value}" for name, value in {"PYTHONPATH": path, **self._trust}.items())

    def trusted_by_service(self) -> None:
        """Restart the service from the clone, with the variables."""
        self._machine.run(
            # As the unit cannot write there, it would compile each module in each process.
            f"/opt/shardd/bin/python -m compileall -q {CLONE}/shardd\n"
            f"mkdir --parents {Path(_DROP_IN).parent}\n"
            f"echo '[Service]\nEnvironment={self.variables(of_clone=True)}' > {_DROP_IN}\n"
            "systemctl daemon-reload && systemctl restart shardd"
        )

    def untrusted_by_service(self) -> None:
        """Remove the drop-in."""
        self._machine.run(
            f"rm --recursive {Path(_DROP_IN).parent} {_SERVER_FOLDER} {_MEDIA} {_PAIRING} && systemctl daemon-reload"
        )

    def pair(self, device: str) -> None:
        """Pair a device with the owner's phone, as a front end does."""
        command = f"{self.variables(of_clone=True)} shardd device pair {device} --json"
        self._machine.run(f"{command} > {_PAIRING} 2>&1 &")
        code = self._machine.until("a code is shown", lambda: self._pairing("qr"), 60)
        self.call("scan", qr=code["code"], number=OWNER)
        self._machine.until("it is paired", lambda: self._pairing("paired"), 60)

    def _pairing(self, wanted: str) -> dict[str, Any] | None:
        lines = self._machine.run(f"cat {_PAIRING}").splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        assert "failed" not in {event["event"] for event in events}, lines
        return next((event for event in events if event["event"] == wanted), None)

    def messages(self, count: int) -> list[dict[str, Any]]:
        """What the friend's phone decrypted; raises AssertionError unless it is so many."""
        found: list[dict[str, Any]] = self.call("wait_messages", count=count, timeout=30, recipient=FRIEND)
        assert len(found) == count, found
        return found

    def call(self, do: str, **parameters: Any) -> Any:
        """Ask the server; see tests/whatsapp_server/control.py."""
        request = json.dumps({"do": do, **parameters})
        command = f"/opt/shardd/bin/python -c {shlex.quote(_READ)} {self._port} {shlex.quote(request)}"
        answer = json.loads(self._machine.run(command))
        assert answer["ok"], answer
        return answer["result"]


@contextmanager
def whatsapp_server(machine: Machine) -> Iterator[WhatsApp]:
    """Run the server until the end of the block."""
    folder = machine.path(_SERVER_FOLDER)
    server = launch(folder, machine.network_only())
    try:
        ca = folder / Path(server.ca).name
        ca.chmod(0o644)
        folder.chmod(0o755)
        yield WhatsApp(machine, server, f"{_SERVER_FOLDER}/{ca.name}")
    finally:
        server.stop()
