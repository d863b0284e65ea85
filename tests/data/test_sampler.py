"""The patch at a position depends on the seed and the position alone."""

import contextlib
import io
import random
from collections import Counter

import numpy as np
import pytest
import torch
from basicsr.data.transforms import augment, paired_random_crop
from basicsr.utils import img2tensor
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from basicsr_clsd.data import PairedDataset
from basicsr_clsd.data.sampler import PatchBatches, PositionBatchSampler, _derived_seed

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
    dataset = PatchBatches(PairedDataset(opt), seed)
    return list(DataLoader(dataset, sampler=PositionBatchSampler(**sizes), batch_size=None, num_workers=workers))


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


def basicsr_sample(dataset, index, seed):
    """A float sample made by BasicSR's functions, on the process's generator."""
    gt, lq = dataset._read(dataset.pairs[index])
    random.seed(seed)
    gt, lq = paired_random_crop(gt, lq, dataset.opt['gt_size'], dataset.scale)
    gt, lq = (image.astype(np.float32) / 255 for image in (gt, lq))
    gt, lq = augment([gt, lq], dataset.opt.get('use_hflip', True), dataset.opt.get('use_rot', True))
    return {'gt': img2tensor(gt, float32=True), 'lq': img2tensor(lq, float32=True)}


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('augmentation', [{}, {'use_hflip': False}, {'use_rot': False}], ids=str)
def test_patches_are_those_of_basicsrs_functions_seeded_by_position(folders, channels_last, augmentation):
    """The seed of a position is a promise to runs that are resumed: it is written out here."""
    hr, lr = folders
    opt = {'phase': 'train', 'scale': 2, 'gt_size': 16, 'dataroot_gt': str(hr), 'dataroot_lq': str(lr)}
    dataset = PairedDataset({**opt, **augmentation})
    draws = [(position % 5, position) for position in [*range(40), 2**31, 2**32 + 5, 2**40]]
    batch = PatchBatches(dataset, 3, channels_last)[draws]
    assert batch['gt'].dtype == torch.uint8 and batch['gt'].shape == (43, 3, 16, 16)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for number, (index, position) in enumerate(draws):
        seed = int(np.random.SeedSequence((3, 1, position)).generate_state(1, np.uint64)[0])
        for key, expected in basicsr_sample(dataset, index, seed).items():
            assert batch[key].is_contiguous(memory_format=layout)
            assert torch.equal(batch[key][number].float() / 255, expected)


@given(st.lists(st.integers(0, 2**70), min_size=1, max_size=4))
@settings(derandomize=True, deadline=None)
def test_derived_seed_is_that_of_numpys_sequence(numbers):
    assert _derived_seed(*numbers) == int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def test_seeding_a_position_leaves_the_generators_of_the_process_alone(folders):
    def state():
        return random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002  (what BasicSR draws from)

    def seed():
        random.seed(5)
        np.random.seed(5)  # noqa: NPY002
        torch.manual_seed(5)

    hr, lr = folders
    opt = {'phase': 'train', 'scale': 2, 'gt_size': 16, 'dataroot_gt': str(hr), 'dataroot_lq': str(lr)}
    seed()
    wanted = state()
    seed()
    PatchBatches(PairedDataset(opt), 3)[[(0, 0), (1, 1)]]
    assert state() == wanted
