"""Run the server by itself: ``python -m tests.whatsapp_server --pki FOLDER``.

Once it accepts connections it prints one line of JSON: ``proxy_port``, ``control_port``, ``ca`` (the file for
SSL_CERT_FILE) and ``noise_root`` (hex).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import resource
import sys
from pathlib import Path

from .control import ControlServer
from .server import WhatsAppServer


async def serve(proxy_port: int, control_port: int, pki: Path, *, until_stdin_ends: bool) -> None:
    """Serve until standard input ends, or until cancelled."""
    server = WhatsAppServer.in_folder(pki)
    await server.start(proxy_port)
    control = ControlServer(server.network)
    await control.start(control_port)
    ready = {
        "proxy_port": server.port,
        "control_port": control.port,
        "ca": str(server.pki.ca.resolve()),
        "noise_root": server.network.identity.root.public.hex(),
    }
    print(json.dumps(ready), flush=True)  # noqa: T201 - read by the parent process
    if until_stdin_ends:
        await asyncio.to_thread(sys.stdin.buffer.read)
    else:
        await asyncio.Event().wait()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description="A WhatsApp server for tests.")
    parser.add_argument(
        "--proxy-port", type=int, default=0, help="port that clients use as their proxy (0: any free port)"
    )
    parser.add_argument("--control-port", type=int, default=0, help="port of the control protocol (0: any free port)")
    parser.add_argument(
        "--pki", type=Path, required=True, help="folder for the CA, the certificate and the Noise root key"
    )
    parser.add_argument("--until-stdin-ends", action="store_true", help="stop when standard input reaches its end")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        asyncio.run(
            serve(options.proxy_port, options.control_port, options.pki, until_stdin_ends=options.until_stdin_ends)
        )
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
