"""Photos as people have them, in any format that OpenCV reads: which files are some, and their pixels in 8-bit RGB."""

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import EXTENSIONS, JPEG_START, PNG_START, check_type, decode
from basicsr_clsd.images.header import read_header
from basicsr_clsd.runtime.folders import files_below

# OpenCV would take the small preview in such a file for the photo.
CAMERA_RAW = frozenset({'.arw', '.cr2', '.cr3', '.dng', '.nef', '.orf', '.pef', '.raf', '.rw2', '.srw'})
# Photos by their names, whether or not this OpenCV reads them: one that is not read must be told, not passed over.
NAMED_AS_PHOTOS = EXTENSIONS | CAMERA_RAW | {'.avif', '.exr', '.gif', '.hdr', '.heic', '.heif', '.jp2', '.jpe', '.jxl'}
CAMERA_BITS = 12  # values that need no more, of 16 bits, have hardly any light
BGR, BGRA = 3, 4


class Photo(NamedTuple):
    """Pixels (H, W, 3), BGR, uint8, and what was done to get them, if anything."""

    pixels: NDArray[np.uint8]
    changes: tuple[str, ...] = ()


def find_photos(folder: Path) -> tuple[list[str], list[str]]:
    """All photos below a folder, and all other files; hidden files and folders are left out of both.

    A file is a photo if OpenCV knows its content or its extension is that of one.

    Returns:
        Two sorted lists of paths relative to the folder.
    """
    photos, others = [], []
    for name in files_below(folder):
        (photos if _is_photo(folder / name) else others).append(name)
    return photos, others


def _is_photo(path: Path) -> bool:
    if path.suffix.lower() in NAMED_AS_PHOTOS:
        return True
    try:
        str(path).encode()
    except UnicodeEncodeError:  # a name that is not UTF-8, at which OpenCV crashes
        return False
    return cv2.haveImageReader(str(path))


def read_photo(path: Path) -> Photo:
    """Read a photo as 8-bit RGB, turned as its EXIF data ask.

    16 bits are rounded to 8 (v / 257). Gray becomes three equal channels. An alpha channel that is opaque everywhere is
    dropped; transparent parts are laid on white, as a viewer shows them, before any rounding. Of several frames the
    first is taken. Colour profiles are not applied.

    Raises:
        UserError: It cannot be read or decoded, is a camera's raw file, or has floating-point pixels, of which nobody
            knows which value is white.
    """
    if path.suffix.lower() in CAMERA_RAW:
        raise UserError(f"{path}: a camera's raw file; convert it to PNG, TIFF or JPEG first")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    if content.startswith(JPEG_START):  # has neither alpha nor more than 8 bits, nor frames
        return Photo(decode(content, str(path)))
    # Damage of a PNG file is to be told here, before its library writes to standard error itself.
    pixels = decode(content, str(path)) if content.startswith(PNG_START) else None
    unchanged = _decode(content, cv2.IMREAD_UNCHANGED)
    if unchanged is not None:
        check_type(unchanged, str(path))
    pixels = decode(content, str(path)) if pixels is None else pixels
    header = read_header(content)
    notes = (f'first of {len(header.frames)} frames',) if header is not None and len(header.frames) > 1 else ()
    if unchanged is None:
        return Photo(pixels, notes)
    changes = []
    deep = pixels
    if unchanged.dtype == np.uint16:
        deep = _decode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if deep is None:
            raise UserError(f'{path}: not an image that can be decoded (broken or truncated)')
        used = int(deep.max()).bit_length()
        dark = f', of which {used} are used: dark' if used <= CAMERA_BITS else ''
        changes.append(f'16 bits{dark}, rounded to 8' if dark else '16 bits rounded to 8')
    white = np.iinfo(deep.dtype).max
    values = deep.astype(np.float64) * (255 / white)
    if unchanged.ndim == BGR and unchanged.shape[2] == BGRA and unchanged[..., 3].min() < white:
        alpha = _turned_as(deep, unchanged)[..., 3:] / white
        values = values * alpha + 255 * (1 - alpha)
        changes.append('transparent parts laid on white')
    return Photo(np.floor(values + 0.5).astype(np.uint8) if changes else pixels, (*notes, *changes))


def _decode(content: bytes, flags: int) -> NDArray | None:
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None


def _turned_as(colours: NDArray, unchanged: NDArray) -> NDArray:
    """Turn an image with alpha as its colours were: by EXIF, OpenCV turns what it reads without alpha alone."""
    for turns in range(4):
        for mirrored in (False, True):
            turned = np.rot90(unchanged[:, ::-1] if mirrored else unchanged, turns)
            if np.array_equal(turned[..., :3], colours):
                return turned
    return unchanged
