"""The child process that decodes images: started by `previews`, given one image after the other."""

from __future__ import annotations

import io
import sys
from typing import Final

from PIL import GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from shardd.transports.whatsapp.media.limited_child import serve
from shardd.transports.whatsapp.media.picture import PREVIEW, Picture

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
ROUGH: Final = 4 * PREVIEW
"""An image is first reduced to this size by dropping pixels, then smoothly."""
SURE: Final = 8_000_000
"""Pixels for which the memory always suffices, so that a failure means a damaged file: few decoders report lack of memory."""
WEBP_PIXELS: Final = 12_000_000
"""Half of what Pillow accepts before it allocates WebP's canvases, 8 bytes per pixel."""
ORIENTATION: Final = 0x0112
# EXIF orientations; 1 means none.
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODULES: Final = (GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)
"""Loaded before the first image, so that Pillow loads no others."""


def look(data: bytes, _hint: str = "") -> Picture:
    """Size and preview of one image. Nothing that a file causes is raised."""
    Image.MAX_IMAGE_PIXELS = WEBP_PIXELS if data[8:12] == b"WEBP" else None  # the memory is limited instead
    size = (0, 0)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            size = image.size
            orientation = _orientation(image)
            if orientation >= 5:
                size = size[::-1]
            return Picture(*size, _preview(image, TURNS.get(orientation)))
    except (MemoryError, Image.DecompressionBombError):
        return Picture(*size)
    except Exception:  # noqa: BLE001 - decoders raise anything; all of it means a bad file
        return Picture(*size, damaged=size[0] * size[1] <= SURE)


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001 - bad metadata does not make a bad image
        return 1
    return found if isinstance(found, int) and found in TURNS else 1


def _preview(image: Image.Image, turn: Image.Transpose | None) -> bytes:
    # A JPEG is decoded at reduced size. The others are decoded whole, but never copied whole.
    image.draft("RGB", (2 * PREVIEW, 2 * PREVIEW))
    image.load()
    scale = max(1.0, max(image.size) / ROUGH)
    rough = image.resize([max(1, round(side / scale)) for side in image.size], Image.Resampling.NEAREST).convert("RGB")
    rough.thumbnail((PREVIEW, PREVIEW))
    out = io.BytesIO()
    (rough if turn is None else rough.transpose(turn)).save(out, format="JPEG", quality=60)
    return out.getvalue()


if __name__ == "__main__":
    PngImagePlugin.MAX_TEXT_CHUNK = int(sys.argv[1])
    serve(look)
