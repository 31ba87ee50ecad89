"""Run the server alone: ``python -m tests.whatsapp_server --proxy-port 0 --control-port 0 --pki FOLDER``.

When it is ready it prints one line of JSON with its ports, the CA file for SSL_CERT_FILE and the Noise root as hex.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import resource
import sys
from pathlib import Path

from tests.whatsapp_server.control import ControlServer
from tests.whatsapp_server.server import WhatsAppServer


async def serve(proxy_port: int, control_port: int, pki: Path, *, until_stdin_ends: bool) -> None:
    """Serve until told to stop."""
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
    print(json.dumps(ready), flush=True)  # noqa: T201 - the caller reads this line
    if until_stdin_ends:
        await asyncio.to_thread(sys.stdin.buffer.read)
    else:
        await asyncio.Event().wait()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.whatsapp_server", description="A WhatsApp server for tests.")
    parser.add_argument("--proxy-port", type=int, default=0, help="port that clients use as their proxy; 0: a free one")
    parser.add_argument("--control-port", type=int, default=0, help="port of the JSON control; 0: a free one")
    parser.add_argument("--pki", type=Path, required=True, help="folder for the CA, certificate and Noise root")
    parser.add_argument("--until-stdin-ends", action="store_true", help="stop when standard input is closed")
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
