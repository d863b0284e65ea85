"""Encoded images: pixels from a file's content, parts of the pixels."""

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_clsd.errors import UserError

EXTENSIONS = frozenset({'.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm'})
JPEG_START = b'\xff\xd8'
JPEG_END = 0xD9  # its marker
# Which bytes make a marker of a 0xff before them; the others stand for 0xff itself, fill up, or start a scan anew.
JPEG_MARKERS = ~np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8), 0xFF])
WHITE_8 = 255
PNG_START, PNG_LAST_CHUNK = b'\x89PNG\r\n\x1a\n', b'IEND'

# What is wrong with an image is told by an exception that names the file, not by OpenCV on standard error.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def stem(name: str) -> str:
    """The name without an image extension; the keys of an LMDB have none, whatever dots they hold."""
    path = Path(name)
    return path.with_suffix('').as_posix() if path.suffix.lower() in EXTENSIONS else name


def decode(content: bytes, where: str) -> NDArray[np.uint8]:
    """Decode an encoded image to BGR uint8 (H, W, 3), or raise a :class:`UserError` that names it."""
    return decode_as(content, where, cv2.IMREAD_COLOR).astype(np.uint8, copy=False)


def decode_deep(content: bytes, where: str) -> NDArray[Any]:
    """Decode an encoded image to BGR (H, W, 3), uint8 or uint16 as it is stored, or raise a :class:`UserError`."""
    image = decode_as(content, where, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    check_type(image, where)
    return image


def check_type(image: NDArray[Any], where: str) -> None:
    """Raise a :class:`UserError` that names an image whose values are neither uint8 nor uint16: nobody knows white."""
    if image.dtype not in (np.uint8, np.uint16):
        raise UserError(f'{where}: pixels of the type {image.dtype}; convert it to 8 or 16 bits first')


def decode_unit(content: bytes, where: str, bit_depth: int) -> NDArray[np.float32]:
    """Decode an encoded image to BGR float32 (H, W, 3) in [0, 1].

    Args:
        content: The file's.
        where: Its name, for messages.
        bit_depth: Bits that white has in an image of 16 bits per value.

    Raises:
        UserError: It cannot be decoded, or has values above white.
    """
    image = decode_deep(content, where)
    white = WHITE_8 if image.dtype == np.uint8 else 2**bit_depth - 1
    if image.max() > white:
        raise UserError(f'{where}: has values up to {image.max()}, which bit_depth {bit_depth} (up to {white}) lacks')
    return np.float32(image) / np.float32(white)  # pyright: ignore[reportReturnType]


def decode_as(content: bytes, where: str, flags: int) -> NDArray[Any]:
    """Decode an encoded image as OpenCV's flags ask, or raise a :class:`UserError` that names it."""
    # OpenCV fills the missing rest of a JPEG with gray and says nothing that a program could see.
    if content.startswith(JPEG_START) and not _jpeg_is_whole(content):
        raise UserError(f'{where}: truncated image')
    whole = False
    try:
        whole = bool(content) and not (content.startswith(PNG_START) and _png_is_damaged(content))
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if whole else None
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f'{where}: not enough memory to decode it') from error
        image = None
    if image is None and whole and flags != cv2.IMREAD_UNCHANGED:
        check_type(decode_as(content, where, cv2.IMREAD_UNCHANGED), where)
    if image is None:
        raise UserError(f'{where}: not an image that can be decoded (broken or truncated)')
    return image


def crop(image: NDArray[Any], top: int, left: int, height: int, width: int, where: str) -> NDArray[Any]:
    """A copy of a part of an image, or a :class:`UserError` that names the image if the part reaches beyond it."""
    check_inside(image.shape[:2], top, left, height, width, where)
    return image[top : top + height, left : left + width].copy()


def check_inside(size: tuple[int, ...], top: int, left: int, height: int, width: int, where: str) -> None:
    """Raise a :class:`UserError` that names an image of (height, width) ``size`` if it has no such part."""
    if not (0 <= top <= size[0] - height and 0 <= left <= size[1] - width and height > 0 and width > 0):
        raise UserError(
            f'{where}: {size[1]}x{size[0]} pixels have no part of {width}x{height} at row {top}, column {left}'
        )


def _jpeg_is_whole(content: bytes) -> bool:
    """Whether the image ends; what comes behind its end, as a phone's film of a photo does, is not looked at."""
    values = np.frombuffer(content, np.uint8)
    places = np.flatnonzero(values[:-1] == 0xFF)  # noqa: PLR2004  (what markers begin with)
    places = places[JPEG_MARKERS[values[places + 1]]]
    start = len(JPEG_START)
    while (number := int(np.searchsorted(places, start))) < len(places):
        place = int(places[number])
        if content[place + 1] == JPEG_END:
            return True
        # Behind a segment the next marker is looked for: the data of a scan go on up to it.
        start = place + 2 + int.from_bytes(content[place + 2 : place + 4], 'big')
    return False


def _png_is_damaged(content: bytes) -> bool:
    """Whether a chunk that decoding needs is cut off or altered; libpng would say so on standard error itself."""
    view, start = memoryview(content), len(PNG_START)
    while start + 12 <= len(content):
        length, kind = struct.unpack_from('>I4s', content, start)
        end = start + 8 + length
        needed = kind[:1].isupper()
        if needed and (end + 4 > len(content) or zlib.crc32(view[start + 4 : end]) != _number(content, end)):
            return True
        if kind == PNG_LAST_CHUNK:
            return False
        start = end + 4
    return True


def _number(content: bytes, start: int) -> int:
    return struct.unpack_from('>I', content, start)[0]
