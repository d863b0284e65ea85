"""Photos as people have them, in any format that OpenCV reads: which files are some, and their pixels, upright."""

from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import EXTENSIONS, JPEG_START, WHITE_8, check_type, decode, decode_as
from basicsr_clsd.images.header import UPRIGHT, read_header
from basicsr_clsd.images.metadata import HEADER_ERRORS, Metadata
from basicsr_clsd.runtime.folders import files_below

# OpenCV would take the small preview in such a file for the photo.
CAMERA_RAW = frozenset({'.arw', '.cr2', '.cr3', '.dng', '.nef', '.orf', '.pef', '.raf', '.rw2', '.srw'})
# Photos by their names, whether or not this OpenCV reads them: one that is not read must be told, not passed over.
NAMED_AS_PHOTOS = EXTENSIONS | CAMERA_RAW | {'.avif', '.exr', '.gif', '.hdr', '.heic', '.heif', '.jp2', '.jpe', '.jxl'}
CAMERA_BITS = 12  # values that need no more, of 16 bits, have hardly any light
REFUSED_COLOURS = ('CMYK', 'LAB')
GRAY_WITH_ALPHA = ('LA', 'La')
GRAY, GRAY_ALPHA, RGB, RGBA = 1, 2, 3, 4  # channels
CLEAR = ('LA', 'La', 'PA', 'RGBA', 'RGBa')  # Pillow's modes with alpha
BITS = 8
TIFF_STARTS = (b'II', b'MM')


class Photo(NamedTuple):
    """Pixels (H, W, 3), BGR, uint8, and what was done to get them, if anything."""

    pixels: NDArray[np.uint8]
    changes: tuple[str, ...] = ()


class Picture(NamedTuple):
    """Pixels (H, W, C), uint8 or uint16; C is 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGBA).

    ``metadata`` is what goes with them; ``frames`` is how many frames or pages the file has.
    """

    pixels: NDArray[Any]
    metadata: Metadata = Metadata()
    frames: int = 1


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
        UserError: As :func:`read_picture`, but a JPEG file with CMYK colours is read.
    """
    content = _content(path)
    if content.startswith(JPEG_START):  # has neither alpha nor more than 8 bits, nor frames
        return Photo(decode(content, str(path)))
    pixels, _, frames = _picture(path, content, 0)
    changes = [f'first of {frames} frames'] if frames > 1 else []
    white = np.iinfo(pixels.dtype).max
    clear = pixels.shape[2] in (GRAY_ALPHA, RGBA)
    colours, alpha = (pixels[..., :-1], pixels[..., -1:]) if clear else (pixels, np.array(white))
    colours = np.broadcast_to(colours[..., ::-1], (*pixels.shape[:2], RGB))
    if pixels.dtype == np.uint8 and alpha.min() == white:
        return Photo(np.ascontiguousarray(colours), tuple(changes))
    values = colours.astype(np.float64) * (WHITE_8 / white)
    if pixels.dtype == np.uint16:
        used = int(colours.max()).bit_length()
        dark = f', of which {used} are used: dark, rounded to 8' if used <= CAMERA_BITS else ' rounded to 8'
        changes.append(f'16 bits{dark}')
    if alpha.min() < white:
        values = values * (alpha / white) + WHITE_8 * (1 - alpha / white)
        changes.append('transparent parts laid on white')
    return Photo(np.floor(values + 0.5).astype(np.uint8), tuple(changes))


def _content(path: Path) -> bytes:
    if path.suffix.lower() in CAMERA_RAW:
        raise UserError(f"{path}: a camera's raw file; convert it to PNG, TIFF or JPEG first")
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error


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
    return _picture(path, _content(path), frame)


def _picture(path: Path, content: bytes, frame: int) -> Picture:
    header = read_header(content)
    if header is not None and header.mode in REFUSED_COLOURS:
        raise UserError(f'{path}: has {header.mode} colours, made for printing; convert it to RGB first')
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
    if not content.startswith(TIFF_STARTS):  # which both libraries turn by themselves
        pixels = upright(pixels, header.orientation)
    return Picture(pixels, header.metadata, len(header.frames))


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
            upright_image = ImageOps.exif_transpose(image) if by_pillow else image  # if this Pillow has not done so
            shown = np.array(upright_image.convert('RGBA' if clear else 'RGB'))
    except HEADER_ERRORS as error:
        raise UserError(f'{where}: not an image that can be decoded (broken or truncated)') from error
    return shown[..., [2, 1, 0, 3][: shown.shape[2]]]


def _is_opaque(pixels: NDArray[Any]) -> bool:
    return bool((pixels[..., 3] == np.iinfo(pixels.dtype).max).all())


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view (H, W, C) of pixels (h, w, C), mirrored and turned as an EXIF orientation (1 to 8) asks."""
    mirrored, turns = UPRIGHT.get(orientation, (False, 0))
    return np.rot90(pixels[:, ::-1] if mirrored else pixels, turns)
