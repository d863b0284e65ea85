"""What goes with an image's pixels: the meaning of its colours, EXIF data, and the size it is to be printed in."""

import struct
from contextlib import suppress
from typing import NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

# What Pillow raises for the headers of damaged files.
HEADER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    struct.error,
    Image.DecompressionBombError,
)
EXIF_START = b'Exif\0\0'
PICTURE_PART, PLACE_PART = 0x8769, 0x8825  # of EXIF data: how it was taken, and where
# The rest says how a file is laid out, holds a preview, or asks to turn what was turned already.
KEPT = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x4746, *range(0x9C9B, 0x9CA0))
RESOLUTION_X, RESOLUTION_Y, RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128
INCH, CENTIMETRE = 2, 3
INCH_CM = 2.54
WIDTH, HEIGHT, INTEROPERABILITY = 0xA002, 0xA003, 0xA005


class Metadata(NamedTuple):
    """What goes with the pixels.

    Args:
        profile: ICC profile that gives the colours their meaning.
        exif: EXIF data in TIFF's layout, without orientation, preview and sizes.
        dpi: Dots per inch, horizontal and vertical.
    """

    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None

    def stripped(self) -> 'Metadata':
        """The profile alone, without which colours would be others."""
        return Metadata(self.profile)


def read_exif(image: Image.Image) -> Image.Exif | None:
    """The EXIF data of an opened image; None if there are none, or they are broken."""
    # Pillow would decode a PNG without EXIF data to look for some behind its pixels.
    if isinstance(image, PngImageFile) and 'exif' not in image.info:
        return None
    with suppress(*HEADER_ERRORS):
        return image.getexif()
    return None


def read_metadata(image: Image.Image, exif: Image.Exif | None) -> Metadata:
    """What goes with the pixels of an opened image, as far as it is not broken.

    Args:
        image: The image.
        exif: What :func:`read_exif` gave.
    """
    content, dpi = None, None
    with suppress(*HEADER_ERRORS, ZeroDivisionError):
        content = _kept(exif) if exif else None
    with suppress(*HEADER_ERRORS, ZeroDivisionError):
        dpi = _dpi(image, exif)
    return Metadata(image.info.get('icc_profile') or None, content, dpi)


def _kept(exif: Image.Exif) -> bytes | None:
    kept = Image.Exif()
    for tag in KEPT:
        if tag in exif:
            kept[tag] = exif[tag]
    for part in (PICTURE_PART, PLACE_PART):
        values = {
            tag: value for tag, value in exif.get_ifd(part).items() if tag not in (WIDTH, HEIGHT, INTEROPERABILITY)
        }
        if values:
            kept[part] = values
    return kept.tobytes().removeprefix(EXIF_START) if len(kept) else None


def _dpi(image: Image.Image, exif: Image.Exif | None) -> tuple[float, float] | None:
    # Of a TIFF file without the tags Pillow makes one dot per inch up.
    dpi = None if isinstance(image, TiffImageFile) else image.info.get('dpi')
    if dpi is None and exif and RESOLUTION_X in exif and RESOLUTION_Y in exif:
        per_inch = {INCH: 1, CENTIMETRE: INCH_CM}.get(exif.get(RESOLUTION_UNIT, INCH))
        dpi = per_inch and tuple(float(exif[tag]) * per_inch for tag in (RESOLUTION_X, RESOLUTION_Y))
    if not dpi or not all(0 < float(value) < 2**16 for value in dpi):
        return None
    return float(dpi[0]), float(dpi[1])


def exif_of(metadata: Metadata, width: int, height: int) -> Image.Exif:
    """EXIF data for an image of this size, the dots per inch among them; empty if there is nothing to say."""
    exif = Image.Exif()
    if metadata.exif is not None:
        exif.load(EXIF_START + metadata.exif)
        for part in (PICTURE_PART, PLACE_PART):
            values = dict(exif.get_ifd(part))
            if part == PICTURE_PART:
                values |= {WIDTH: width, HEIGHT: height}
            if values:
                exif[part] = values
    if metadata.dpi is not None:
        exif[RESOLUTION_X], exif[RESOLUTION_Y] = metadata.dpi
        exif[RESOLUTION_UNIT] = INCH
    return exif
