"""Pairs of LR and HR images from folders or LMDBs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import bgr2ycbcr, img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from basicsr_clsd.config.paths import located
from basicsr_clsd.data.image_store import EXTENSIONS, FolderStore, ImageStore, LmdbStore, open_store
from basicsr_clsd.data.lr_cache import default_cache, make_lr
from basicsr_clsd.errors import UserError

Pair = tuple[str, str]


@DATASET_REGISTRY.register()
class PairedDataset(Dataset):
    """LR/HR pairs with the options and the samples of BasicSR's ``PairedImageDataset``, sorted by the HR name.

    Differences: faults are named when the set is opened (missing partners, sizes that do not fit, too small for the
    patch); without ``dataroot_lq`` the LR images are made from HR; folder and LMDB give the same order.

    A sample is ``{'lq', 'gt', 'lq_path', 'gt_path'}`` with images of shape (3, H, W) in [0, 1], RGB, float32. In the
    phase ``train`` the pair is a random patch, flipped and transposed at random with Python's ``random``; otherwise HR
    is cropped to the LR size times ``scale``.

    Args:
        opt: A data section of the options, with ``phase`` (``train``, ``val`` or ``test``) and ``scale``.

    Raises:
        UserError: One line that names the folder, file or key at fault.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.opt = opt
        self.scale: int = opt['scale']
        self.training = opt['phase'] == 'train'
        self.gt = open_store(located(opt['dataroot_gt']))
        gt_names = self._gt_names()
        self.lq: ImageStore
        if opt.get('dataroot_lq'):
            self.lq = open_store(located(opt['dataroot_lq']))
            self.pairs = self._pair(gt_names)
        else:
            self.lq, self.pairs = self._made_from_hr(gt_names)
        self._check_sizes()
        self._cached: dict[Pair, tuple[NDArray, NDArray]] | None = None
        if opt.get('cache_images'):
            self._cached = {pair: self._read(pair) for pair in self.pairs}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        pair = self.pairs[index]
        gt, lq = self._read(pair) if self._cached is None else self._cached[pair]
        if self.training:
            gt, lq = paired_random_crop(gt, lq, self.opt['gt_size'], self.scale, pair[0])
        # After the crop: dividing whole images to cut a patch out of them would be most of the work. Before the flips:
        # they work in place, and the patch is still a part of the image that `cache_images` keeps.
        gt, lq = (np.asarray(image, np.float32) / 255.0 for image in (gt, lq))
        if self.training:
            flips = augment([gt, lq], self.opt.get('use_hflip', True), self.opt.get('use_rot', True))
            gt, lq = (np.asarray(image) for image in flips)
        if self.opt.get('color') == 'y':
            gt, lq = (bgr2ycbcr(image, y_only=True)[..., None] for image in (gt, lq))
        images = list(img2tensor([gt, lq], bgr2rgb=True, float32=True))
        if self.opt.get('mean') or self.opt.get('std'):
            mean, std = self.opt.get('mean') or [0.0], self.opt.get('std') or [1.0]
            images = [normalize(image, mean, std) for image in images]
        return {
            'lq': images[1].contiguous(),
            'gt': images[0].contiguous(),
            'lq_path': str(self.lq.root / pair[1]),
            'gt_path': str(self.gt.root / pair[0]),
        }

    def name(self, index: int) -> str:
        """The name of a pair: that of HR without extension; no two are equal."""
        return _stem(self.pairs[index][0])

    def _read(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        gt, lq = self.gt.read(pair[0]), self.lq.read(pair[1])
        height, width = lq.shape[0] * self.scale, lq.shape[1] * self.scale
        if gt.shape[0] < height or gt.shape[1] < width:
            raise UserError(self._mismatch(pair, gt.shape[:2], lq.shape[:2]))
        return gt[:height, :width], lq

    def _gt_names(self) -> list[str]:
        names = self.gt.names()
        meta = self.opt.get('meta_info_file')
        if meta:
            try:
                lines = located(meta).read_text(encoding='utf-8').splitlines()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else 'not a text file'
                raise UserError(f'{meta}: cannot be read: {reason}') from error
            wanted = [line.split(' ')[0] for line in lines if line.strip()]
            if not wanted:
                raise UserError(f'{meta}: names no images')
            if isinstance(self.gt, LmdbStore):  # its keys have no extension
                wanted = [_stem(name) for name in wanted]
            missing = sorted(set(wanted) - set(names))
            if missing:
                raise UserError(f'{self.gt.root}: {_some(missing)}, named in {meta}, not found')
            names = sorted(set(wanted))
        chosen = self.opt.get('names')
        if chosen:
            missing = sorted(set(chosen) - {_stem(name) for name in names})
            if missing:
                raise UserError(f"{self.gt.root}: {_some(missing)}, asked for by 'names', not found")
            names = [name for name in names if _stem(name) in set(chosen)]
        if not names:
            raise UserError(f'{self.gt.root}: no images in this folder')
        by_stem: dict[str, str] = {}
        for name in names:
            other = by_stem.setdefault(_stem(name), name)
            if other != name:
                raise UserError(f'{self.gt.root}: {other} and {name} differ only in the extension; rename one')
        return names

    def _pair(self, gt_names: list[str]) -> list[Pair]:
        """Pair by name: LR is ``filename_tmpl`` of HR's, with any extension."""
        template = self.opt.get('filename_tmpl') or '{}'
        try:
            template.format('')
        except (ValueError, LookupError, AttributeError) as error:
            raise UserError(f"filename_tmpl: {template!r} is no template like '{{}}x{self.scale}'") from error
        by_stem = {_stem(name): name for name in self.lq.names()}
        if not by_stem:
            raise UserError(f'{self.lq.root}: no images in this folder')
        pairs, missing = [], []
        for name in gt_names:
            stem = Path(_stem(name))
            partner = (stem.parent / template.format(stem.name)).as_posix()
            if partner in by_stem:
                pairs.append((name, by_stem[partner]))
            else:
                missing.append(name)
        if missing:
            hint = ''
            if Path(_stem(missing[0])).name + f'x{self.scale}' in by_stem:
                hint = f"; filename_tmpl: '{{}}x{self.scale}' would fit"
            raise UserError(f'{self.lq.root}: no LR image for {_some(missing)} of {self.gt.root}{hint}')
        extra = sorted(set(by_stem.values()) - {lq for _, lq in pairs})
        if extra and not (self.opt.get('meta_info_file') or self.opt.get('names')):
            raise UserError(f'{self.gt.root}: no HR image for {_some(extra)} of {self.lq.root}')
        return pairs

    def _made_from_hr(self, gt_names: list[str]) -> tuple[FolderStore, list[Pair]]:
        if not isinstance(self.gt, FolderStore):
            raise UserError(f'{self.gt.root}: dataroot_lq is missing; LR images can be made from a folder only')
        root = self.opt.get('lq_cache')
        cache = located(root) if root else default_cache(self.gt.root, self.scale)
        made = make_lr(self.gt, gt_names, self.scale, cache)
        return FolderStore(cache), list(made.items())

    def _check_sizes(self) -> None:
        """Compare the sizes of all pairs by their headers, which takes well under a millisecond for each."""
        made_here = not self.opt.get('dataroot_lq')
        patch = self.opt['gt_size'] // self.scale if self.training else 1
        for pair in self.pairs:
            gt_size, lq_size = self.gt.size(pair[0]), self.lq.size(pair[1])
            exact = tuple(side * self.scale for side in lq_size)
            if made_here:  # otherwise the cache holds LR images of another scale
                fits = lq_size == tuple(side // self.scale for side in gt_size)
            elif self.training:
                fits = gt_size == exact
            else:  # BasicSR lets HR be larger than LR times the scale here, and some published sets need it
                fits = gt_size[0] >= exact[0] and gt_size[1] >= exact[1]
            if not fits:
                raise UserError(self._mismatch(pair, gt_size, lq_size))
            if min(lq_size) < patch:
                raise UserError(
                    f'{self.gt.root / pair[0]}: {gt_size[1]}x{gt_size[0]} pixels are too few for gt_size '
                    f'{self.opt["gt_size"]}; leave the image out or lower gt_size'
                )

    def _mismatch(self, pair: Pair, gt_size: tuple[int, ...], lq_size: tuple[int, ...]) -> str:
        return (
            f'{self.gt.root / pair[0]}: {gt_size[1]}x{gt_size[0]} pixels are not {self.scale} times the '
            f'{lq_size[1]}x{lq_size[0]} of {self.lq.root / pair[1]}'
        )


def check_decodable(dataset: PairedDataset) -> None:
    """Decode every pair once, so that a broken file is named before a run starts rather than hours into it."""
    for pair in dataset.pairs:
        dataset._read(pair)


def _stem(name: str) -> str:
    """The name without an image extension; an LMDB's keys have none."""
    path = Path(name)
    return path.with_suffix('').as_posix() if path.suffix.lower() in EXTENSIONS else name


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f'{names[0]} and {len(names) - 1} more'
