"""Writing upscaled photos: PNG as it is made, strip by strip, other formats when they are whole."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.picture import GRAY, GRAY_ALPHA, RGB, RGBA
from basicsr_clsd.runtime.files import write_atomically

Strips = Iterable[NDArray[Any]]
PNG, JPEG, TIFF, WEBP, BMP = '.png', '.jpg', '.tif', '.webp', '.bmp'
FORMATS = {'png': PNG, 'jpg': JPEG, 'jpeg': '.jpeg', 'tif': TIFF, 'tiff': '.tiff', 'webp': WEBP, 'bmp': BMP}
# What a format cannot hold beside gray and RGB of 8 bits: most pixels of a side, 16 bits, alpha.
LARGEST = {JPEG: 65_500, '.jpeg': 65_500, WEBP: 16_383}
EIGHT_BITS = (JPEG, '.jpeg', WEBP, BMP)
OPAQUE = (JPEG, '.jpeg', BMP)
PNG_COLOUR_TYPES = {GRAY: 0, RGB: 2, GRAY_ALPHA: 4, RGBA: 6}
PNG_LEVEL = 3
BLOCK = 32  # rows that are filtered and compressed at a time
UP = 2  # PNG's filter that has each value's difference to the one above


def check_format(path: Path, height: int, width: int, channels: int, dtype: np.dtype[Any]) -> None:
    """Raise a :class:`UserError` that names a file to be, if its format cannot hold such an image."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS.values():
        raise UserError(f'{path}: cannot be written; formats are {", ".join(FORMATS)}')
    what = None
    if max(height, width) > LARGEST.get(suffix, 2**31 - 1):
        what = f'an image of {width}x{height} pixels'
    elif dtype != np.uint8 and suffix in EIGHT_BITS:
        what = '16 bits per value'
    elif channels in (GRAY_ALPHA, RGBA) and suffix in OPAQUE:
        what = 'transparency'
    if what is not None:
        raise UserError(f'{path}: {suffix[1:]} cannot hold {what}; choose another format (png holds all)')


def write_picture(strips: Strips, path: Path, size: tuple[int, int, int], dtype: Any, profile: bytes | None) -> None:
    """Write an image under a temporary name, sync it, and rename it; a PNG is never in memory as a whole.

    Args:
        strips: Its rows from top to bottom, as arrays (n, W, C), gray or RGB with or without alpha.
        path: The format is its extension's; folders are made.
        size: (H, W, C).
        dtype: uint8 or uint16.
        profile: ICC profile; PNG alone keeps it.

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(file: IO[bytes]) -> None:
        if path.suffix.lower() == PNG:
            write_png(strips, file, size, np.dtype(dtype), profile)
        else:
            file.write(_encoded(strips, path, size, dtype))

    write_atomically(path, write)


def write_png(
    strips: Strips, file: IO[bytes], size: tuple[int, int, int], dtype: np.dtype[Any], profile: bytes | None
) -> None:
    """Write a PNG file (ISO/IEC 15948), strip by strip."""

    def chunk(kind: bytes, content: bytes) -> None:
        file.write(struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content)))

    height, width, channels = size
    file.write(b'\x89PNG\r\n\x1a\n')
    depth = 8 * dtype.itemsize
    chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, PNG_COLOUR_TYPES[channels], 0, 0, 0))
    if profile is not None:
        chunk(b'iCCP', b'icc\0\0' + zlib.compress(profile))
    compressor = zlib.compressobj(PNG_LEVEL, strategy=zlib.Z_FILTERED)
    above = np.zeros((1, width * channels * dtype.itemsize), np.uint8)
    for block in (strip[row : row + BLOCK] for strip in strips for row in range(0, len(strip), BLOCK)):
        rows = block.astype(dtype.newbyteorder('>')).reshape(len(block), -1).view(np.uint8)
        differences = np.diff(rows, axis=0, prepend=above)  # modulo 256
        filtered = np.insert(differences, 0, UP, axis=1)
        if content := compressor.compress(filtered.tobytes()):
            chunk(b'IDAT', content)
        above = rows[-1:].copy()
    chunk(b'IDAT', compressor.flush())
    chunk(b'IEND', b'')


def _encoded(strips: Strips, path: Path, size: tuple[int, int, int], dtype: Any) -> bytes:
    image, row = np.empty(size, dtype), 0
    for strip in strips:
        image[row : row + len(strip)] = strip
        row += len(strip)
    if size[2] == GRAY_ALPHA:
        image = image[..., [0, 0, 0, 1]]
    elif size[2] in (RGB, RGBA):
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR if size[2] == RGB else cv2.COLOR_RGBA2BGRA)
    try:
        encoded, content = cv2.imencode(path.suffix, image)
    except cv2.error as error:
        raise OSError(f'{path}: the image cannot be encoded') from error
    if not encoded:
        raise OSError(f'{path}: the image cannot be encoded')
    return content.tobytes()
