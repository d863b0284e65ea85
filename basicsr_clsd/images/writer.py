"""Writing upscaled photos: PNG as it is made, strip by strip, other formats when they are whole."""

import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.metadata import EXIF_START, Metadata, exif_of
from basicsr_clsd.images.photo import GRAY, GRAY_ALPHA, RGB, RGBA
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
BLOCK = 4 * 2**20  # bytes that are filtered and compressed at a time ...
MOST_ROWS = 32  # ... and rows
UP = 2  # PNG's filter that has each value's difference to the one above
INCH_M = 0.0254
JPEG_QUALITY = 95
TIFF_HEADER = b'II*\0\x08\0\0\0'  # little-endian; the directory follows
MOST_TIFF = 2**32 - 2**24  # bytes; a header's worth less than its offsets can tell


def check_format(path: Path, height: int, width: int, channels: int, dtype: np.dtype[Any]) -> None:
    """Raise a :class:`UserError` that names a file to be, if its format cannot hold such an image."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS.values():
        raise UserError(f'{path}: cannot be written; formats are {", ".join(FORMATS)}')
    what = None
    if max(height, width) > LARGEST.get(suffix, 2**31 - 1):
        what = f'an image of {width}x{height} pixels'
    elif suffix in (TIFF, '.tiff') and height * width * max(channels, RGB) * dtype.itemsize > MOST_TIFF:
        what = 'an image of more than 4 GB'
    elif dtype != np.uint8 and suffix in EIGHT_BITS:
        what = '16 bits per value'
    elif channels in (GRAY_ALPHA, RGBA) and suffix in OPAQUE:
        what = 'transparency'
    if what is not None:
        raise UserError(f'{path}: {suffix[1:]} cannot hold {what}; choose another format (png holds all)')


def not_held(path: Path, metadata: Metadata) -> list[str]:
    """What goes with the pixels and the format of ``path`` cannot hold, in words."""
    if path.suffix.lower() != BMP:
        return []
    held = {'its colour profile': metadata.profile, 'its EXIF data': metadata.exif}
    return [what for what, value in held.items() if value is not None]


def write_picture(strips: Strips, path: Path, size: tuple[int, int, int], dtype: Any, metadata: Metadata) -> None:
    """Write an image under a temporary name, sync it, and rename it; a PNG is never in memory as a whole.

    Args:
        strips: Its rows from top to bottom, as arrays (n, W, C), gray or RGB with or without alpha.
        path: The format is its extension's; folders are made.
        size: (H, W, C).
        dtype: uint8 or uint16.
        metadata: What goes with it, as far as the format holds it (:func:`not_held`).

    Raises:
        OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = path.suffix.lower()

    def write(file: IO[bytes]) -> None:
        if suffix == PNG:
            write_png(strips, file, size, np.dtype(dtype), metadata)
        elif suffix in (TIFF, '.tiff'):
            write_tiff(strips, file, size, np.dtype(dtype), metadata)
        else:
            _write_by_pillow(strips, file, size, suffix, metadata)

    write_atomically(path, write)


def write_png(
    strips: Strips, file: IO[bytes], size: tuple[int, int, int], dtype: np.dtype[Any], metadata: Metadata
) -> None:
    """Write a PNG file (ISO/IEC 15948), strip by strip."""

    def chunk(kind: bytes, content: bytes) -> None:
        file.write(struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content)))

    height, width, channels = size
    file.write(b'\x89PNG\r\n\x1a\n')
    depth = 8 * dtype.itemsize
    chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, PNG_COLOUR_TYPES[channels], 0, 0, 0))
    if metadata.profile is not None:
        chunk(b'iCCP', b'icc\0\0' + zlib.compress(metadata.profile))
    if metadata.dpi is not None:
        chunk(b'pHYs', struct.pack('>IIB', *(round(value / INCH_M) for value in metadata.dpi), 1))
    if metadata.exif is not None:
        chunk(b'eXIf', exif_of(metadata, width, height).tobytes().removeprefix(EXIF_START))
    compressor = zlib.compressobj(PNG_LEVEL, strategy=zlib.Z_FILTERED)
    above = np.zeros((1, width * channels * dtype.itemsize), np.uint8)
    for block in _blocks(strips, _rows_of(size, dtype)):
        rows = block.astype(dtype.newbyteorder('>')).reshape(len(block), -1).view(np.uint8)
        differences = np.diff(rows, axis=0, prepend=above)  # modulo 256
        filtered = np.insert(differences, 0, UP, axis=1)
        if content := compressor.compress(filtered.tobytes()):
            chunk(b'IDAT', content)
        above = rows[-1:].copy()
    chunk(b'IDAT', compressor.flush())
    chunk(b'IEND', b'')


def write_tiff(
    strips: Strips, file: IO[bytes], size: tuple[int, int, int], dtype: np.dtype[Any], metadata: Metadata
) -> None:
    """Write a TIFF file (TIFF 6.0, deflate), whose compressed strips are in memory until it is whole."""
    height, width, channels = size
    parts, together = [], _rows_of(size, dtype)
    for block in _blocks(strips, together):
        shown = block[..., [0, 0, 0, 1]] if channels == GRAY_ALPHA else block  # few readers know gray with alpha
        little = shown.astype(dtype.newbyteorder('<'))
        little[:, 1:] -= shown[:, :-1]  # the predictor: each value's difference to the one before it
        parts.append(zlib.compress(little.tobytes(), PNG_LEVEL))
    stored = RGBA if channels == GRAY_ALPHA else channels
    tags: dict[int, Any] = dict(exif_of(metadata, width, height))
    sizes = [len(part) for part in parts]
    tags |= {
        256: width,
        257: height,
        258: (8 * dtype.itemsize,) * stored,
        259: 8,  # deflate
        262: 1 if stored == GRAY else 2,  # black is 0; RGB
        273: tuple(accumulate(sizes[:-1], initial=0)),  # from the directory's end
        277: stored,
        278: together,
        279: tuple(sizes),
        317: 2,  # the predictor
    }
    if stored == RGBA:
        tags[338] = 2  # alpha that colours are not multiplied by
    if metadata.profile is not None:
        tags[34675] = metadata.profile
    directory = ImageFileDirectory_v2(TIFF_HEADER)
    for tag, value in tags.items():
        directory[tag] = value
    file.write(TIFF_HEADER + directory.tobytes(len(TIFF_HEADER)))
    file.writelines(parts)


def _rows_of(size: tuple[int, int, int], dtype: np.dtype[Any]) -> int:
    """How many rows make a block."""
    _, width, channels = size
    return min(max(BLOCK // (width * channels * dtype.itemsize), 1), MOST_ROWS)


def _blocks(strips: Strips, rows: int) -> Iterator[NDArray[Any]]:
    """The rows of all strips, so many at a time, but the last."""
    block, filled = np.empty(0), 0
    for strip in strips:
        start = 0
        while start < len(strip):
            if not filled:
                block = np.empty((rows, *strip.shape[1:]), strip.dtype)
            count = min(rows - filled, len(strip) - start)
            block[filled : filled + count] = strip[start : start + count]
            filled, start = (filled + count) % rows, start + count
            if not filled:
                yield block
    if filled:
        yield block[:filled]


def _write_by_pillow(
    strips: Strips, file: IO[bytes], size: tuple[int, int, int], suffix: str, metadata: Metadata
) -> None:
    """Write a JPEG, WebP (lossless) or BMP file, of 8 bits."""
    height, width, channels = size
    pixels, row = np.empty(size, np.uint8), 0
    for strip in strips:
        pixels[row : row + len(strip)] = strip
        row += len(strip)
    if channels == GRAY_ALPHA:
        pixels = pixels[..., [0, 0, 0, 1]]
    image = Image.fromarray(pixels[..., 0] if channels == GRAY else pixels)
    options: dict[str, Any] = {} if metadata.dpi is None else {'dpi': metadata.dpi}
    if suffix == BMP:
        options.setdefault('dpi', (0, 0))  # or Pillow would make some up
    else:
        exif = exif_of(metadata, width, height)
        options |= {'icc_profile': metadata.profile, **({'exif': exif.tobytes()} if len(exif) else {})}
    if suffix == WEBP:
        options |= {'lossless': True, 'exact': True}
    elif suffix != BMP:
        options |= {'quality': JPEG_QUALITY}
    image.save(file, {WEBP: 'WEBP', BMP: 'BMP'}.get(suffix, 'JPEG'), **options)
