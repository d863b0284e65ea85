"""HR images and any number of LR images of each, wherever they are stored."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basicsr_clsd.data.stores import ImageStore, open_store
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import stem
from basicsr_clsd.prepare.layout import SetPaths, paired_names
from basicsr_clsd.prepare.lmdb_build import Progress, build_png_lmdb, build_raw_lmdb


class PairedStores:
    """HR images and their LR images, all of which pair by name.

    Args:
        paths: Where they are.

    Raises:
        UserError: There are none, or some have no partner.
    """

    def __init__(self, paths: SetPaths) -> None:
        self.hr = open_store(paths.hr)
        self.names = self.hr.names()
        if not self.names:
            raise UserError(f'{self.hr.root}: no images in this folder')
        self.lrs = [open_store(path) for path in paths.lrs]
        self._partners = {lr.root: self._paired(lr) for lr in self.lrs}

    def _paired(self, lr: ImageStore) -> dict[str, str]:
        pairs, missing, extra = paired_names(self.names, lr.names())
        for store, names, kind in ((lr, missing, 'LR'), (self.hr, extra, 'HR')):
            if names:
                more = f' and {len(names) - 1} more' if len(names) > 1 else ''
                raise UserError(f'{store.root}: no {kind} image for {names[0]}{more}')
        return pairs

    def partner(self, lr: ImageStore, name: str) -> str:
        """The name of the LR image of an HR image."""
        return self._partners[lr.root][name]

    def scale(self, lr: ImageStore) -> int:
        """How many times larger the HR images are.

        Raises:
            UserError: Not a whole number, or not the same for all.
        """
        scale = 0
        for name, partner in self._partners[lr.root].items():
            (height, width), (lr_height, lr_width) = self.hr.size(name), lr.size(partner)
            scale = scale or max(height // lr_height, 1)
            if (height, width) != (lr_height * scale, lr_width * scale):
                raise UserError(
                    f'{self.hr.root / name}: {width}x{height} pixels are not {scale} times the {lr_width}x{lr_height} '
                    f'of {lr.root / partner}'
                )
        return scale

    def stamps(self) -> dict[str, list[int]]:
        """Size and time of the last change of the file of each image, by its path."""
        stamps = {str(self.hr.root / name): self.hr.stamp(name) for name in self.names}
        for lr in self.lrs:
            stamps |= {str(lr.root / name): lr.stamp(name) for name in self._partners[lr.root].values()}
        return stamps


class _Renamed:
    """A store whose images go by the names of others."""

    def __init__(self, store: ImageStore, names: dict[str, str]) -> None:
        self.root = store.root
        self._store = store
        self._names = names

    def names(self) -> list[str]:
        return sorted(self._names)

    def size(self, name: str) -> tuple[int, int]:
        return self._store.size(self._names[name])

    def stamp(self, name: str) -> list[int]:
        return self._store.stamp(self._names[name])

    def read(self, name: str) -> NDArray[np.uint8]:
        return self._store.read(self._names[name])

    def patch(self, name: str, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
        return self._store.patch(self._names[name], top, left, height, width)


def build_lmdbs(sources: PairedStores, raw: bool, folder: Path | None, progress: Progress = iter) -> dict[Path, bool]:
    """Write an LMDB of each: ``NAME.lmdb`` beside the folder NAME, or in ``folder``.

    LR images go by the names of HR (``0001``, not ``0001x2``), as BasicSR wants it of LMDBs.

    Args:
        sources: The images.
        raw: An LMDB of raw pixels, not BasicSR's of PNG images.
        folder: Where to; None: beside each.
        progress: As for :func:`~basicsr_clsd.prepare.lmdb_build.build_raw_lmdb`.

    Returns:
        For each LMDB, whether it was made now, or was there before, made from the same images.

    Raises:
        UserError: As :func:`~basicsr_clsd.prepare.lmdb_build.build_raw_lmdb`.
    """
    build = build_raw_lmdb if raw else build_png_lmdb
    stores: list[ImageStore] = [sources.hr]
    for lr in sources.lrs:
        stores.append(_Renamed(lr, {stem(name): sources.partner(lr, name) for name in sources.names}))
    unnamed = ('', '..')
    roots = [Path(os.path.abspath(store.root)) if store.root.name in unnamed else store.root for store in stores]
    targets = [(folder or root.parent) / f'{root.name.removesuffix(".lmdb")}.lmdb' for root in roots]
    for target in targets:
        if targets.count(target) > 1:
            raise UserError(f'{target}: would hold images of two folders; give them one -o each')
    return {target: build(store, target, progress=progress) for store, target in zip(stores, targets, strict=True)}
