"""Lines of text with a checksum, for files that must survive damage to the disk.

CRC-32 as in zlib: eight hexadecimal digits, a space, the text. It finds every change of up to three bits in lines of our length,
every burst of up to 32 bits, and all but one in four billion of the others.
"""

from __future__ import annotations

import zlib


def checked_line(text: bytes) -> bytes:
    """The line for `text`, which has no newline."""
    return b"%08x %b\n" % (zlib.crc32(text), text)


def text_of(line: bytes) -> bytes | None:
    """The text of a line without its newline; None: its checksum is wrong."""
    text = line[9:]
    return text if line[:9] == b"%08x " % zlib.crc32(text) else None
