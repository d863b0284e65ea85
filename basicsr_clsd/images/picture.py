"""A photo to upscale, with all that it has: its depth, gray, transparency, its colour profile; upright."""

from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import check_type, decode_as
from basicsr_clsd.images.header import UPRIGHT, read_header
from basicsr_clsd.images.metadata import HEADER_ERRORS, Metadata
from basicsr_clsd.images.photo import CAMERA_RAW

REFUSED_COLOURS = ('CMYK', 'LAB')
GRAY_WITH_ALPHA = ('LA', 'La')
GRAY, GRAY_ALPHA, RGB, RGBA = 1, 2, 3, 4  # channels
CLEAR = ('LA', 'La', 'PA', 'RGBA', 'RGBa')  # Pillow's modes with alpha
BITS = 8
TIFF_STARTS = (b'II', b'MM')


class Picture(NamedTuple):
    """Pixels (H, W, C), uint8 or uint16; C is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA).

    ``metadata`` is what goes with them; ``frames`` is how many frames or pages the file has.
    """

    pixels: NDArray[Any]
    metadata: Metadata = Metadata()
    frames: int = 1


def read_picture(path: Path, frame: int = 0) -> Picture:
    """Read a photo in any format that OpenCV decodes, turned as its EXIF data ask.

    8 and 16 bits stay what they are; palettes become RGB or RGBA, one bit per pixel becomes gray.

    Args:
        path: The file.
        frame: Which of its frames or pages, of those that :class:`~basicsr_clsd.images.header.Header` names.

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
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    # OpenCV multiplies the colours of TIFF files of 8 bits with their alpha.
    by_pillow = header is not None and header.mode in CLEAR and content.startswith(TIFF_STARTS) and header.bits == BITS
    if header is None or (frame == 0 and not by_pillow):
        pixels = decode_as(content, str(path), cv2.IMREAD_UNCHANGED)
    else:
        pixels = _frame(content, header.frames[frame], f'{path}: frame {frame + 1}', by_pillow)
    check_type(pixels, str(path))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels  # noqa: PLR2004
    if header is not None and header.mode in GRAY_WITH_ALPHA and pixels.shape[2] == RGBA:
        pixels = pixels[..., 2:]
    elif pixels.shape[2] == RGBA and header is not None and header.mode not in CLEAR and _is_opaque(pixels):
        pixels = pixels[..., RGB - 1 :: -1]  # OpenCV gives animations an alpha channel, whether or not they have one
    elif pixels.shape[2] == RGBA:
        pixels = np.ascontiguousarray(pixels[..., [2, 1, 0, 3]])
    elif pixels.shape[2] == RGB:
        pixels = pixels[..., ::-1]  # a view; a copy of a large photo would be felt
    if header is None:
        return Picture(pixels)
    return Picture(upright(pixels, header.orientation), header.metadata, len(header.frames))


def _frame(content: bytes, number: int, where: str, by_pillow: bool) -> NDArray[Any]:
    """A later frame of an animation, as it is shown, or a later page; as OpenCV gives images."""
    if content.startswith(TIFF_STARTS) and not by_pillow:
        buffer, pages = np.frombuffer(content, np.uint8), ()
        with suppress(cv2.error):
            pages = cv2.imdecodemulti(buffer, cv2.IMREAD_UNCHANGED, range=(number, number + 1))[1]
        if not pages:
            raise UserError(f'{where}: not an image that can be decoded (broken or truncated)')
        return next(iter(pages))
    try:
        with Image.open(BytesIO(content)) as image:
            image.seek(number)
            clear = image.mode in CLEAR or 'transparency' in image.info
            shown = np.array(image.convert('RGBA' if clear else 'RGB'))
    except HEADER_ERRORS as error:
        raise UserError(f'{where}: not an image that can be decoded (broken or truncated)') from error
    return shown[..., [2, 1, 0, 3][: shown.shape[2]]]


def _is_opaque(pixels: NDArray[Any]) -> bool:
    return bool((pixels[..., 3] == np.iinfo(pixels.dtype).max).all())


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view (H, W, C) of pixels (h, w, C), mirrored and turned as an EXIF orientation (1 to 8) asks."""
    mirrored, turns = UPRIGHT.get(orientation, (False, 0))
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
