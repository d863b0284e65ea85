"""What the header of an image says: its size, its kind of values, how many frames there are, and what goes with it."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import decode_deep
from basicsr_clsd.images.metadata import HEADER_ERRORS, Metadata, read_exif, read_metadata

ORIENTATION = 0x0112
# What each EXIF orientation asks for: mirror left to right, then turn to the left so many times.
UPRIGHT = {2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1)}
TIFF_WIDTH, TIFF_HEIGHT, TIFF_BITS, TIFF_PAGE = 256, 257, 258, 254
REDUCED = 1  # of a TIFF file's page: a smaller copy of another
BYTE = 8  # bits
PNG_DEPTH = 24  # where a PNG file has its bits per value, and its colour type after them
PNG_GRAY_ALPHA = 4
ONE_PICTURE = ('MPO',)  # formats whose further frames are a camera's previews, or depth
MAXVAL_8 = 255


class Header(NamedTuple):
    """What a file's header says.

    Args:
        height: Of the image as decoded and upright.
        width: Of the same.
        mode: Pillow's.
        orientation: EXIF's, 1 to 8.
        bits: Of a value: 8, 16, ...
        frames: Numbers of the frames or pages, from 0; smaller copies of others are left out.
        metadata: What goes with the pixels.
    """

    height: int
    width: int
    mode: str
    orientation: int
    bits: int
    frames: tuple[int, ...]
    metadata: Metadata


def read_header(source: Path | bytes) -> Header | None:
    """The header of an image, a file or its content; None if Pillow does not know its format or it is broken."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # nothing is decoded here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of Pillow, on what is odd in a header
            with Image.open(source if isinstance(source, Path) else BytesIO(source)) as image:
                return _header(image)
    except HEADER_ERRORS:
        return None
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def header_of(path: Path) -> Header:
    """The header of an image file; of what Pillow does not know it is learnt by decoding.

    Raises:
        UserError: It cannot be read or decoded, or has floating-point values.
    """
    header = read_header(path)
    if header is not None:
        return header
    try:
        pixels = decode_deep(path.read_bytes(), str(path))
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    height, width = pixels.shape[:2]
    return Header(height, width, 'RGB', 1, BYTE * pixels.itemsize, (0,), Metadata())


def _header(image: Image.Image) -> Header:
    width, height = image.size
    exif = read_exif(image)
    orientation = int(exif.get(ORIENTATION, 1)) if exif is not None else 1
    mode = image.mode
    bits = 2 * BYTE if image.mode.startswith('I') else BYTE
    if isinstance(image, TiffImageFile):
        tags = image.tag_v2
        width, height = tags[TIFF_WIDTH], tags[TIFF_HEIGHT]  # some versions of Pillow turn these by themselves
        bits = max(tags.get(TIFF_BITS, (1,)))
    elif isinstance(image, PngImageFile):
        bits, colour = _png_form(image)
        mode = 'LA' if colour == PNG_GRAY_ALPHA else mode  # Pillow's is another for 16 bits
    elif isinstance(image, PpmImageFile) and image.tile[0][0] == 'ppm':
        arguments: Any = image.tile[0][3]  # Pillow's mode, and the value of white
        bits = 2 * BYTE if arguments[-1] > MAXVAL_8 else BYTE
    if orientation in UPRIGHT and UPRIGHT[orientation][1] % 2:
        width, height = height, width
    metadata = read_metadata(image, exif)
    return Header(height, width, mode, orientation, bits, _frames(image), metadata)


def _png_form(image: PngImageFile) -> tuple[int, int]:
    """Bits per value and colour type, which Pillow's mode does not tell."""
    file: Any = image.fp
    place = file.tell()
    file.seek(PNG_DEPTH)
    depth, colour = file.read(2)
    file.seek(place)
    return depth, colour


def _frames(image: Image.Image) -> tuple[int, ...]:
    count = 1 if image.format in ONE_PICTURE else getattr(image, 'n_frames', 1)
    if count == 1 or not isinstance(image, TiffImageFile):
        return tuple(range(count))
    whole = []
    for number in range(count):
        image.seek(number)
        if not image.tag_v2.get(TIFF_PAGE, 0) & REDUCED:
            whole.append(number)
    return tuple(whole) or (0,)
