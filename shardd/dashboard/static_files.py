"""Scripts and styles: our own, and those of others in `static/vendor`, unmodified, with their licences and hashes.

Each URL contains a hash of the file, so that browsers may keep it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from aiohttp import web

FOLDER: Final = Path(str(files("shardd.dashboard"))) / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def url_of(name: str) -> str:
    """Of a file in `static`."""
    return f"/static/{hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()[:16]}/{name}"


def routes() -> list[web.RouteDef]:
    """One for each file: no part of a request's path is ever looked up on the disk."""
    names = sorted(
        path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.suffix in _TYPES and path.is_file()
    )
    return [_route(name) for name in names]


def _route(name: str) -> web.RouteDef:
    body, kind = (FOLDER / name).read_bytes(), _TYPES[Path(name).suffix]

    async def handle(_: web.Request) -> web.Response:
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

    return web.get(url_of(name), handle)
