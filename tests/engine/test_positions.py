"""The patch at a position depends on the seed and the position alone."""

import contextlib
import io
import random
from collections import Counter

import numpy as np
import pytest
import torch
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from torch.utils.data import DataLoader

from basicsr_clsd.data import PairedDataset
from basicsr_clsd.data.positions import PositionBatchSampler, SeededDataset

LAST = 9
SIZES = {'images': 5, 'enlarge': 2, 'last': LAST, 'seed': 3}


@pytest.fixture(scope='module')
def folders(tmp_path_factory, make_pairs):
    return make_pairs(tmp_path_factory.mktemp('pairs'), count=5, height=44, width=52)


def patches(folders, batch_size=4, workers=0, first=0, seed=3, rank=0, world=1):
    """Positions `first` to LAST of a training: the batches, each a dict of stacked images and lists of names."""
    hr, lr = folders
    opt = {'phase': 'train', 'scale': 2, 'gt_size': 16, 'dataroot_gt': str(hr), 'dataroot_lq': str(lr)}
    sizes = {**SIZES, 'batch_size': batch_size, 'first': first, 'seed': seed, 'rank': rank, 'world': world}
    dataset = SeededDataset(PairedDataset(opt), seed)
    return list(DataLoader(dataset, batch_sampler=PositionBatchSampler(**sizes), num_workers=workers))


@pytest.fixture(scope='module')
def reference(folders):
    return patches(folders)


def assert_same(batches, wanted, names=True):
    assert len(batches) == len(wanted)
    for batch, other in zip(batches, wanted, strict=True):
        assert torch.equal(batch['gt'], other['gt']) and torch.equal(batch['lq'], other['lq'])
        assert not names or batch['gt_path'] == other['gt_path']


def test_patches_differ_by_position_and_seed(reference, folders):
    assert len(reference) == LAST
    distinct = {patch.numpy().tobytes() for batch in reference for patch in batch['gt']}
    assert len(distinct) > 0.9 * 4 * LAST
    assert not torch.equal(reference[0]['gt'], patches(folders, seed=4)[0]['gt'])


@pytest.mark.parametrize('workers', [1, 2])
def test_patches_do_not_depend_on_the_number_of_workers(reference, folders, workers):
    assert_same(patches(folders, workers=workers), reference)


@pytest.mark.parametrize('first', [1, 4, 8])
def test_patches_do_not_depend_on_the_point_of_resuming(reference, folders, first):
    assert_same(patches(folders, first=first), reference[first:])


@pytest.mark.parametrize('world', [2, 4])
def test_ranks_share_the_global_batch_of_one_process(reference, folders, world):
    shares = [patches(folders, batch_size=4 // world, rank=rank, world=world) for rank in range(world)]
    joined = [
        {
            'gt': torch.cat([share['gt'] for share in parts]),
            'lq': torch.cat([share['lq'] for share in parts]),
            'gt_path': [path for share in parts for path in share['gt_path']],
        }
        for parts in zip(*shares, strict=True)
    ]
    assert_same(joined, reference)


def test_patches_do_not_depend_on_the_storage(reference, folders, tmp_path):
    stores = []
    for folder in folders:
        names = sorted(path.name for path in folder.iterdir())
        store = tmp_path / f'{folder.name}.lmdb'
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make_lmdb_from_imgs(str(folder), str(store), names, [name.removesuffix('.png') for name in names])
        stores.append(store)
    assert_same(patches(stores), reference, names=False)
    assert_same(patches(stores, workers=2, first=3), reference[3:], names=False)


def draws(**changes):
    sizes = {**SIZES, 'batch_size': 4, 'first': 0, **changes}
    return list(PositionBatchSampler(**sizes))


@pytest.mark.parametrize(('images', 'enlarge', 'batch_size'), [(5, 1, 4), (5, 3, 4), (3, 1, 8), (1, 1, 2), (4, 1, 4)])
def test_every_epoch_visits_every_image_as_often_and_no_position_is_left_out(images, enlarge, batch_size):
    sampler = PositionBatchSampler(images=images, enlarge=enlarge, batch_size=batch_size, first=0, last=30, seed=1)
    batches = list(sampler)
    assert len(sampler) == len(batches) == 30
    assert {len(batch) for batch in batches} == {batch_size}
    flat = [draw for batch in batches for draw in batch]
    assert [position for _, position in flat] == list(range(30 * batch_size))
    epoch = images * enlarge
    for start in range(0, len(flat) - epoch + 1, epoch):
        assert Counter(index for index, _ in flat[start : start + epoch]) == dict.fromkeys(range(images), enlarge)


def test_order_differs_by_epoch_and_seed():
    order = [index for batch in draws(images=50, enlarge=1, last=25) for index, _ in batch]
    other = [index for batch in draws(images=50, enlarge=1, last=25, seed=4) for index, _ in batch]
    assert order[:50] != order[50:]
    assert order[:50] != other[:50]
    assert order[:50] != sorted(order[:50])


class Drawing(torch.utils.data.Dataset):
    """Returns what the process's generators draw."""

    def __getitem__(self, index):
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002  (what BasicSR draws from)


def test_seeding_a_position_leaves_the_generators_of_the_process_alone():
    seeded = SeededDataset(Drawing(), 0)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    wanted = Drawing()[0]
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    drawn = [seeded[0, position] for position in (0, 1, 0)]
    assert Drawing()[0] == wanted
    assert drawn[0] == drawn[2]
    assert not set(drawn[0]) & set(drawn[1])
