"""A photo to upscale, with all that it has: its depth, gray, transparency, its colour profile; upright."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import EXIF_ORIENTATION, HEADER_ERRORS, decode_as
from basicsr_clsd.images.photo import CAMERA_RAW

REFUSED_COLOURS = ('CMYK', 'LAB')
GRAY_WITH_ALPHA = ('LA', 'La')
GRAY, GRAY_ALPHA, RGB, RGBA = 1, 2, 3, 4  # channels
# What each EXIF orientation asks for: mirror left to right, then turn to the left so many times.
UPRIGHT = {2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1)}


class Picture(NamedTuple):
    """Pixels (H, W, C), uint8 or uint16; C is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA).

    ``profile`` is the ICC profile that gives the colours their meaning; None: there is none.
    """

    pixels: NDArray[Any]
    profile: bytes | None = None


class Header(NamedTuple):
    """What a file's header says: size as decoded and upright, Pillow's mode, EXIF orientation, ICC profile."""

    height: int
    width: int
    mode: str
    orientation: int
    profile: bytes | None


def read_header(path: Path) -> Header | None:
    """The header of an image; None if Pillow does not know its format or the header is broken."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # nothing is decoded here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of Pillow, on what is odd in a header
            with Image.open(path) as image:
                # Pillow would decode a PNG without EXIF data to look for some behind its pixels.
                has_exif = image.format != 'PNG' or 'exif' in image.info
                orientation = int(image.getexif().get(EXIF_ORIENTATION, 1)) if has_exif else 1
                width, height = image.size
                if orientation in UPRIGHT and UPRIGHT[orientation][1] % 2:
                    width, height = height, width
                return Header(height, width, image.mode, orientation, image.info.get('icc_profile'))
    except HEADER_ERRORS:
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_picture(path: Path) -> Picture:
    """Read a photo in any format that OpenCV decodes, turned as its EXIF data ask.

    8 and 16 bits stay what they are; palettes become RGB or RGBA, one bit per pixel becomes gray. Of several frames the
    first is taken.

    Raises:
        UserError: It cannot be read or decoded, has CMYK or Lab colours, floating-point pixels, or is a camera's raw
            file.
    """
    if path.suffix.lower() in CAMERA_RAW:
        raise UserError(f"{path}: a camera's raw file; convert it to PNG, TIFF or JPEG first")
    header = read_header(path)
    if header is not None and header.mode in REFUSED_COLOURS:
        raise UserError(f'{path}: has {header.mode} colours, made for printing; convert it to RGB first')
    try:
        pixels = decode_as(path.read_bytes(), str(path), cv2.IMREAD_UNCHANGED)
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UserError(f'{path}: pixels of the type {pixels.dtype}; convert it to 8 or 16 bits first')
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels  # noqa: PLR2004
    if header is not None and header.mode in GRAY_WITH_ALPHA and pixels.shape[2] == RGBA:
        pixels = pixels[..., 2:]
    elif pixels.shape[2] == RGBA:
        pixels = np.ascontiguousarray(pixels[..., [2, 1, 0, 3]])
    elif pixels.shape[2] == RGB:
        pixels = pixels[..., ::-1]  # a view; a copy of a large photo would be felt
    if header is not None:
        pixels = upright(pixels, header.orientation)
    return Picture(pixels, header.profile if header is not None else None)


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view (H, W, C) of pixels (h, w, C), mirrored and turned as an EXIF orientation (1 to 8) asks."""
    mirrored, turns = UPRIGHT.get(orientation, (False, 0))
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
