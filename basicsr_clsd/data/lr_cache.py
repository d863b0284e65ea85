"""LR images made from HR images, once, and kept beside them."""

import json
import logging
import os
from pathlib import Path

import numpy as np

from basicsr_clsd.data.stores import EIGHT_BITS, FolderStore
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.runtime.files import write_image, write_text
from basicsr_clsd.runtime.locks import exclusive

WHITE_16 = 65535
MANIFEST, LOCK = 'made_from.json', '.lock'


def default_cache(dataroot_gt: str | Path, scale: int, bit_depth: int = EIGHT_BITS) -> Path:
    """The folder beside the HR folder that holds its LR images."""
    gt = Path(os.path.abspath(dataroot_gt))  # '.' has no name
    deep = f'_{bit_depth}bit' if bit_depth != EIGHT_BITS else ''
    return gt.with_name(f'{gt.name}_LRbicx{scale}{deep}')


def make_lr(gt: FolderStore, names: list[str], scale: int, cache: Path) -> dict[str, str]:
    """Make the LR images that are not yet in ``cache``, or whose HR file has changed since.

    HR is cropped at the bottom and the right to a multiple of ``scale`` and shrunk by MATLAB's bicubic. Every file is
    written under a temporary name and renamed, and counts only once the manifest lists it with the size and time of
    the HR file it was made from; an interrupted run goes on where it was. Of HR that is read in more than 8 bits they
    have 16.

    Args:
        gt: HR images.
        names: Those of them to make LR images of.
        scale: Super-resolution factor.
        cache: Folder to write to; made if it is not there.

    Returns:
        The LR image's name for each HR image's.

    Raises:
        UserError: The cache cannot be written, an HR image cannot be decoded or is smaller than ``scale``, or two have
            names that differ only in their extension.
    """
    lr_names = {name: Path(name).with_suffix('.png').as_posix() for name in names}
    by_lr: dict[str, str] = {}
    for name, lr_name in lr_names.items():
        if lr_name in by_lr:
            raise UserError(f'{gt.root}: {by_lr[lr_name]} and {name} would share one LR image; rename one')
        by_lr[lr_name] = name
    deep = [gt.bit_depth] if gt.bit_depth != EIGHT_BITS else []
    stamps = {name: [*_stamp(gt.root / name), *deep] for name in names}

    def missing() -> list[str]:
        manifest = _read_manifest(cache)
        return [n for n in names if manifest.get(n) != stamps[n] or not (cache / lr_names[n]).is_file()]

    if not missing():
        return lr_names
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with exclusive(cache / LOCK, cache):
            todo, manifest = missing(), _read_manifest(cache)  # another run may have made them meanwhile
            logging.getLogger('basicsr').info(f'Making {len(todo)} LR images (x{scale}, MATLAB bicubic) in {cache}')
            for count, name in enumerate(todo, start=1):
                _write_lr(gt, name, scale, cache / lr_names[name])
                manifest[name] = stamps[name]
                if count % 50 == 0 or count == len(todo):
                    write_text(json.dumps(manifest, indent=0), cache / MANIFEST)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f'{cache}: LR images cannot be written ({reason}); set lq_cache to another folder') from error
    return lr_names


def _write_lr(gt: FolderStore, name: str, scale: int, target: Path) -> None:
    hr = gt.read(name)
    height, width = hr.shape[0] // scale * scale, hr.shape[1] // scale * scale
    if not height or not width:
        raise UserError(f'{gt.root / name}: smaller than scale {scale}')
    lr = matlab_resize(hr[:height, :width], 1 / scale)
    if lr.dtype != np.uint8:  # in [0, 1]
        lr = np.round(lr.clip(0, 1) * WHITE_16).astype(np.uint16)
    write_image(lr, target)


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read_manifest(cache: Path) -> dict[str, list[int]]:
    try:
        manifest = json.loads((cache / MANIFEST).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
