"""What is wrong with an image, or with a pair of them, by itself."""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_clsd.data.lmdb import PngLmdbStore, reading
from basicsr_clsd.data.stores import FolderStore, ImageStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import PNG_START, decode
from basicsr_clsd.images.header import read_header
from basicsr_clsd.prepare.checks.kernel import is_matlab_bicubic, nearest_kernels
from basicsr_clsd.prepare.layout import paired_names, scale_of

PNG_DEPTH, PNG_COLOUR = 24, 25  # where a PNG file has them
PNG_FORMS = {0: 'gray', 4: 'gray with alpha', 6: 'with alpha'}
PNG_PALETTE = 3


class Problem(NamedTuple):
    """Something that is wrong.

    Args:
        kind: One of ``KINDS``.
        path: Of the image or the folder.
        message: What.
    """

    kind: str
    path: str
    message: str

    def __str__(self) -> str:
        return f'{self.kind}: {self.path}: {self.message}'


KINDS = (
    'unreadable',
    'unpaired',
    'name',
    'form',
    'small',
    'size',
    'kernel',
    'duplicate',
    'near-duplicate',
)


class LrImages(NamedTuple):
    """LR images of a set of HR images.

    Args:
        store: What holds them.
        scale: How many times larger HR is; 0 if that cannot be told.
        pairs: LR name by HR name.
        problems: What is wrong with names.
    """

    store: ImageStore
    scale: int
    pairs: dict[str, str]
    problems: list[Problem]


def read_examined(store: ImageStore, name: str) -> tuple[NDArray[np.uint8] | None, list[Problem]]:
    """An image, BGR, uint8, if it can be read, and what is wrong with it or with how it is stored."""
    where = str(store.root / name)
    try:
        content = _encoded(store, name)
        image = store.read(name) if content is None else decode(content, where)
    except UserError as error:
        return None, [Problem('unreadable', where, str(error).removeprefix(f'{where}: '))]
    form = None if content is None else stored_form(content)
    if form is None:
        return image, []
    return image, [Problem('form', where, f'{form}; readers differ in what they make of it, 8-bit RGB is expected')]


def _encoded(store: ImageStore, name: str) -> bytes | None:
    """The content of an image's file, as far as it is one."""
    if isinstance(store, FolderStore):
        try:
            return (store.root / name).read_bytes()
        except OSError as error:
            raise UserError(f'{store.root / name}: cannot be read: {error.strerror}') from error
    if isinstance(store, PngLmdbStore):
        with reading(store.root) as transaction:
            content = transaction.get(name.encode())
            return None if content is None else bytes(content)
    return None


def stored_form(content: bytes) -> str | None:
    """What an image file holds if that is not 8-bit RGB, or None."""
    if content.startswith(PNG_START) and content[PNG_COLOUR] != PNG_PALETTE:
        deep, form = content[PNG_DEPTH] > 8, PNG_FORMS.get(content[PNG_COLOUR])  # noqa: PLR2004  (bits)
    else:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None:
            return None
        deep = image.dtype != np.uint8
        form = 'gray' if image.ndim == 2 else None if image.shape[2] == 3 else 'with alpha'  # noqa: PLR2004  (channels)
    header = read_header(content)
    frames = f'first of {len(header.frames)} frames' if header is not None and len(header.frames) > 1 else None
    return ', '.join(part for part in (form, '16 bits' if deep else None, frames) if part) or None


def lr_images(hr: ImageStore, lr: ImageStore, scale: int | None) -> LrImages:
    """Pair LR images with HR images by their names.

    Args:
        hr: HR images.
        lr: LR images.
        scale: If it is given; else it is read from the name of the folder, or from the sizes of most pairs.
    """
    pairs, missing, extra = paired_names(hr.names(), lr.names())
    problems = [Problem('unpaired', str(hr.root / name), f'has no LR image in {lr.root}') for name in missing]
    problems += [Problem('unpaired', str(lr.root / name), f'has no HR image in {hr.root}') for name in extra]
    return LrImages(lr, scale or scale_of(lr.root) or _usual_scale(hr, lr, pairs), pairs, problems)


def _usual_scale(hr: ImageStore, lr: ImageStore, pairs: dict[str, str]) -> int:
    scales: Counter[int] = Counter()
    for name, partner in pairs.items():
        try:
            scales[round(hr.size(name)[0] / lr.size(partner)[0])] += 1
        except UserError:  # is told when it is read
            continue
    return scales.most_common(1)[0][0] if scales else 0


def examine_pair(hr: NDArray[np.uint8], images: LrImages, name: str) -> Iterator[Problem]:
    """What is wrong with the LR image of an HR image, and with how it was made from it."""
    partner = images.pairs.get(name)
    if partner is None:
        return
    lr, problems = read_examined(images.store, partner)
    yield from problems
    if lr is None:
        return
    where = str(images.store.root / partner)
    (height, width), (lr_height, lr_width) = hr.shape[:2], lr.shape[:2]
    if (height, width) != (lr_height * images.scale, lr_width * images.scale):
        message = f'{lr_width}x{lr_height} pixels times {images.scale} are not the {width}x{height} of HR'
        yield Problem('size', where, message)
    elif images.scale > 1 and not is_matlab_bicubic(hr, lr, images.scale):
        message = f"not MATLAB's bicubic of HR; {nearest_kernels(hr, lr, images.scale)}"
        yield Problem('kernel', where, message)
