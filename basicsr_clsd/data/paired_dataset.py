"""Pairs of LR and HR images from folders or LMDBs."""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.utils import bgr2ycbcr, img2tensor
from basicsr.utils.registry import DATASET_REGISTRY
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from basicsr_clsd.config.paths import located
from basicsr_clsd.data.forms import tell_forms
from basicsr_clsd.data.lmdb import LmdbStore, RawLmdbStore
from basicsr_clsd.data.lr_cache import default_cache, make_lr
from basicsr_clsd.data.meta_info import names_in
from basicsr_clsd.data.patches import Image, PatchBatch, RandomNumbers, augment, draw_crop
from basicsr_clsd.data.stores import EIGHT_BITS, FolderStore, ImageStore, open_store
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.codec import stem

Pair = tuple[str, str]


@DATASET_REGISTRY.register()
class PairedDataset(Dataset):
    """LR/HR pairs with the options and the samples of BasicSR's ``PairedImageDataset``, sorted by the HR name.

    Differences: faults are named when the set is opened (missing partners, sizes that do not fit, too small for the
    patch); without ``dataroot_lq`` the LR images are made from HR; folder and LMDB give the same order.

    A sample is ``{'lq', 'gt', 'lq_path', 'gt_path'}`` with images of shape (3, H, W) in [0, 1], RGB, float32, as
    BasicSR's code expects it. In the phase ``train`` the pair is a random patch, flipped and transposed at random with
    Python's ``random``; otherwise HR is cropped to the LR size times ``scale``. This project's training asks for
    :meth:`batch` instead, which leaves patches in 8 bits until they are on the device.

    Args:
        opt: A data section of the options, with ``phase`` (``train``, ``val`` or ``test``) and ``scale``.

    Raises:
        UserError: One line that names the folder, file or key at fault.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.opt = opt
        self.scale: int = opt['scale']
        self.training = opt['phase'] == 'train'
        self.bit_depth: int = opt.get('bit_depth') or EIGHT_BITS
        gt_root = located(opt['dataroot_gt'])
        # LR images are made from the files of a folder.
        self.gt = open_store(gt_root, self.bit_depth, prefer_lmdb=bool(opt.get('dataroot_lq')))
        gt_names = self._gt_names()
        self.lq: ImageStore
        if opt.get('dataroot_lq'):
            self.lq = open_store(located(opt['dataroot_lq']), self.bit_depth, prefer_lmdb=True)
            self.pairs = self._pair(gt_names)
        else:
            self.lq, self.pairs = self._made_from_hr(gt_names)
        self._check_sizes()
        tell_forms([store for store in (self.gt, self.lq) if isinstance(store, FolderStore)])
        # From a memory map a patch can be had without its image.
        self._mapped = isinstance(self.gt, RawLmdbStore) and isinstance(self.lq, RawLmdbStore)
        self._folders = [str(store.root / '_')[:-1] for store in (self.gt, self.lq)]
        self._cached: dict[Pair, tuple[Image, Image]] | None = None
        if opt.get('cache_images'):
            self._cached = {pair: self._read(pair) for pair in self.pairs}

    @property
    def decodes(self) -> bool:
        """Whether each patch needs its images decoded, whole."""
        return not self._mapped and self._cached is None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        images = self._patches(index, random) if self.training else self._images(index)
        return {**self._tensors(images), **self._paths(index)}

    def batch(
        self, indices: Sequence[int], numbers: Iterable[RandomNumbers], channels_last: bool = False
    ) -> dict[str, Any]:
        """A batch of training patches: the samples that these random numbers give, but in 8 bits.

        Args:
            indices: Which pairs.
            numbers: The random numbers of each; asked for one after the other.
            channels_last: Memory format of the images; their shape does not depend on it.

        Returns:
            ``lq`` and ``gt``, (N, 3, H, W), RGB, uint8 in [0, 255]; divided by 255 in float32 they are the samples'
            images, bit for bit. Where ``bit_depth``, ``color``, ``mean`` or ``std`` ask for values that 8 bits do not
            hold, they are float32 as in the samples. ``lq_path`` and ``gt_path`` are lists.
        """
        paths = [self._paths(index) for index in indices]
        batch: dict[str, Any] = {key: [path[key] for path in paths] for key in ('lq_path', 'gt_path')}
        patches = (self._patches(index, drawn) for index, drawn in zip(indices, numbers, strict=True))
        if self.opt.get('color') or self.opt.get('mean') or self.opt.get('std') or self.bit_depth != EIGHT_BITS:
            samples = [self._tensors(pair) for pair in patches]
            return batch | {key: torch.stack([sample[key] for sample in samples]) for key in ('lq', 'gt')}
        sides = self.opt['gt_size'] // self.scale, self.opt['gt_size']
        sizes = [3 * len(indices) * side**2 for side in sides]
        # One block of memory for both: a loader process hands over each block by way of a file and a connection.
        memory = torch.empty(sum(sizes), dtype=torch.uint8).split(sizes)
        lqs, gts = (PatchBatch(part, side, channels_last) for part, side in zip(memory, sides, strict=True))
        for place, (gt, lq) in enumerate(patches):
            gts.put(place, gt)
            lqs.put(place, lq)
        return batch | {'lq': lqs.tensor(), 'gt': gts.tensor()}

    def _tensors(self, images: tuple[Image, Image]) -> dict[str, Tensor]:
        """HR and LR, BGR, as the float tensors of a sample."""
        gt, lq = (np.float32(image) / 255.0 if image.dtype == np.uint8 else image for image in images)
        if self.opt.get('color') == 'y':
            gt, lq = (bgr2ycbcr(image, y_only=True)[..., None] for image in (gt, lq))
        tensors = list(img2tensor([gt, lq], bgr2rgb=True, float32=True))
        if self.opt.get('mean') or self.opt.get('std'):
            mean, std = self.opt.get('mean') or [0.0], self.opt.get('std') or [1.0]
            tensors = [normalize(tensor, mean, std) for tensor in tensors]
        return {'lq': tensors[1].contiguous(), 'gt': tensors[0].contiguous()}

    def _paths(self, index: int) -> dict[str, str]:
        pair = self.pairs[index]
        return {'lq_path': self._folders[1] + pair[1], 'gt_path': self._folders[0] + pair[0]}

    def _images(self, index: int) -> tuple[Image, Image]:
        """HR and LR of a pair, whole, BGR; not to be written to."""
        pair = self.pairs[index]
        return self._read(pair) if self._cached is None else self._cached[pair]

    def _patches(self, index: int, numbers: RandomNumbers) -> tuple[Image, Image]:
        """A random patch of a pair, HR and LR, BGR, flipped and transposed at random; not to be written to."""
        side, scale = self.opt['gt_size'], self.scale
        hflip, rotate = self.opt.get('use_hflip', True), self.opt.get('use_rot', True)
        gt_name, lq_name = self.pairs[index]
        if self._mapped:
            crop = draw_crop(numbers, self.lq.size(lq_name), side // scale, hflip, rotate)
            gt = self.gt.patch(gt_name, crop.top * scale, crop.left * scale, side, side)
            lq = self.lq.patch(lq_name, crop.top, crop.left, side // scale, side // scale)
        else:
            gt, lq = self._images(index)
            crop = draw_crop(numbers, lq.shape[:2], side // scale, hflip, rotate)
            gt = gt[crop.top * scale :, crop.left * scale :][:side, :side]
            lq = lq[crop.top :, crop.left :][: side // scale, : side // scale]
        return augment(gt, crop), augment(lq, crop)

    def name(self, index: int) -> str:
        """The name of a pair: that of HR without extension; no two are equal."""
        return stem(self.pairs[index][0])

    def _read(self, pair: Pair) -> tuple[Image, Image]:
        gt, lq = self.gt.read(pair[0]), self.lq.read(pair[1])
        self._check_size(pair, gt.shape[:2], lq.shape[:2])  # what a header or an LMDB's list says may be wrong
        return gt[: lq.shape[0] * self.scale, : lq.shape[1] * self.scale], lq

    def _gt_names(self) -> list[str]:
        names = self.gt.names()
        meta = self.opt.get('meta_info_file')
        wanted = names_in(meta, len(names)) if meta else None
        if wanted is not None:
            if isinstance(self.gt, LmdbStore):  # its keys have no extension
                wanted = [stem(name) for name in wanted]
            missing = sorted(set(wanted) - set(names))
            if missing:
                raise UserError(f'{self.gt.root}: {_some(missing)}, named in {meta}, not found')
            names = sorted(set(wanted))
        chosen = self.opt.get('names')
        if chosen:
            missing = sorted(set(chosen) - {stem(name) for name in names})
            if missing:
                raise UserError(f"{self.gt.root}: {_some(missing)}, asked for by 'names', not found")
            names = [name for name in names if stem(name) in set(chosen)]
        if not names:
            raise UserError(f'{self.gt.root}: no images in this folder')
        by_stem: dict[str, str] = {}
        for name in names:
            other = by_stem.setdefault(stem(name), name)
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
        by_stem = {stem(name): name for name in self.lq.names()}
        if not by_stem:
            raise UserError(f'{self.lq.root}: no images in this folder')
        pairs, missing = [], []
        for name in gt_names:
            path = Path(stem(name))
            partner = (path.parent / template.format(path.name)).as_posix()
            if partner in by_stem:
                pairs.append((name, by_stem[partner]))
            else:
                missing.append(name)
        if missing:
            hint = ''
            if Path(stem(missing[0])).name + f'x{self.scale}' in by_stem:
                hint = f"; filename_tmpl: '{{}}x{self.scale}' would fit"
            raise UserError(f'{self.lq.root}: no LR image for {_some(missing)} of {self.gt.root}{hint}')
        extra = sorted(set(by_stem.values()) - {lq for _, lq in pairs})
        if extra and not (self.opt.get('meta_info_file') or self.opt.get('names')):
            hint = '' if self.training else '; infer.py upscales images that have no HR'
            raise UserError(f'{self.gt.root}: no HR image for {_some(extra)} of {self.lq.root}{hint}')
        return pairs

    def _made_from_hr(self, gt_names: list[str]) -> tuple[FolderStore, list[Pair]]:
        if not isinstance(self.gt, FolderStore):
            raise UserError(f'{self.gt.root}: dataroot_lq is missing; LR images can be made from a folder only')
        root = self.opt.get('lq_cache')
        cache = located(root) if root else default_cache(self.gt.root, self.scale, self.bit_depth)
        made = make_lr(self.gt, gt_names, self.scale, cache)
        return FolderStore(cache, EIGHT_BITS if self.bit_depth == EIGHT_BITS else 16), list(made.items())

    def _check_sizes(self) -> None:
        """Compare the sizes of all pairs by their headers, which takes well under a millisecond for each."""
        for pair in self.pairs:
            self._check_size(pair, self.gt.size(pair[0]), self.lq.size(pair[1]))

    def _check_size(self, pair: Pair, gt_size: tuple[int, ...], lq_size: tuple[int, ...]) -> None:
        exact = tuple(side * self.scale for side in lq_size)
        if not self.opt.get('dataroot_lq'):  # LR made here; otherwise the cache holds LR images of another scale
            fits = lq_size == tuple(side // self.scale for side in gt_size)
        elif self.training:
            fits = gt_size == exact
        else:  # BasicSR lets HR be larger than LR times the scale here, and some published sets need it
            fits = gt_size[0] >= exact[0] and gt_size[1] >= exact[1]
        if not fits:
            raise UserError(
                f'{self.gt.root / pair[0]}: {gt_size[1]}x{gt_size[0]} pixels are not {self.scale} times the '
                f'{lq_size[1]}x{lq_size[0]} of {self.lq.root / pair[1]}'
            )
        if min(lq_size) < (self.opt['gt_size'] // self.scale if self.training else 1):
            raise UserError(
                f'{self.gt.root / pair[0]}: {gt_size[1]}x{gt_size[0]} pixels are too few for gt_size '
                f'{self.opt["gt_size"]}; leave the image out or lower gt_size'
            )


def check_decodable(dataset: PairedDataset) -> None:
    """Decode every pair once, so that a broken file is named before a run starts rather than hours into it."""
    for pair in dataset.pairs:
        dataset._read(pair)


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f'{names[0]} and {len(names) - 1} more'
