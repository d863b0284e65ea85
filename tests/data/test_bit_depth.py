"""Sets of images of more than 8 bits: what is told, what is refused, and what keeps its precision."""

import json
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from basicsr_clsd.data.paired_dataset import PairedDataset, check_decodable
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.metrics import upscaled
from basicsr_clsd.images.codec import decode, decode_unit
from basicsr_clsd.images.header import read_header
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.images.photo import read_photo


def deep(height: int, width: int, bits: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((height // 4 + 1, width // 4 + 1, 3))
    image = cv2.resize(coarse, (width, height)) * (2**bits - 1)
    image[0, 0] = 2**bits - 1
    return image.round().astype(np.uint16)


def write_set(folder: Path, bits: int, extension: str = 'png', count: int = 2) -> dict[str, str]:
    for name, side in (('HR', 32), ('LR', 16)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            assert cv2.imwrite(str(folder / name / f'{number}.{extension}'), deep(side, side, bits, number))
    return {'dataroot_gt': str(folder / 'HR'), 'dataroot_lq': str(folder / 'LR')}


def opened(phase: str = 'val', **options: object) -> PairedDataset:
    return PairedDataset({'phase': phase, 'scale': 2, 'gt_size': 16, **options})


@settings(deadline=None, max_examples=60)
@given(
    bits=st.integers(9, 16),
    extension=st.sampled_from(['.png', '.tif', '.ppm', '.pgm']),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
)
def test_no_step_is_lost(bits, extension, height, width):
    image = deep(height, width, bits)
    content = cv2.imencode(extension, image[..., 0] if extension == '.pgm' else image)[1].tobytes()
    found = decode_unit(content, 'a', bits)
    expected = image[..., :1].repeat(3, 2) if extension == '.pgm' else image
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.round(found.astype(np.float64) * (2**bits - 1)), expected)
    header = read_header(content)
    assert header is not None and header.bits == 16
    if bits > 9:
        with pytest.raises(UserError, match=f'^a: has values up to {2**bits - 1}, which bit_depth 9'):
            decode_unit(content, 'a', 9)


@pytest.mark.parametrize(('bits', 'level'), [(12, 15), (16, 255)])
def test_one_warning_on_what_is_lost(tmp_path, caplog, bits, level):
    caplog.set_level(logging.WARNING, 'basicsr')
    logging.getLogger('basicsr').propagate = True
    opened(**write_set(tmp_path, bits))
    white = 2**bits - 1
    # As a set: where another test has given this logger a handler of its own, a record is noted twice.
    assert {record.getMessage() for record in caplog.records} == {
        f'{tmp_path}/HR, {tmp_path}/LR: of 4 images 4 have 16 bits per value, of which {bits} are used, and are '
        f"rounded to 8 bits, in which {white:,} is {level} of 255; 'bit_depth: {bits}' would keep their precision"
    }
    caplog.clear()
    opened(bit_depth=bits, **write_set(tmp_path / 'again', bits))
    assert f'read as fractions of {white:,} (bit_depth {bits})' in caplog.text


def test_images_of_8_bits_are_not_worth_a_word(tmp_path, caplog, make_pairs):
    logging.getLogger('basicsr').propagate = True
    hr, lr = make_pairs(tmp_path, count=2)
    opened(dataroot_gt=str(hr), dataroot_lq=str(lr))
    assert caplog.records == []


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_floating_point_is_refused_for_what_it_is(tmp_path, dtype):
    roots = write_set(tmp_path, 16, 'tif')
    assert cv2.imwrite(str(tmp_path / 'HR' / '1.tif'), np.ones((32, 32, 3), dtype))
    with pytest.raises(UserError, match=f'^a: pixels of the type {np.dtype(dtype)}'):
        decode((tmp_path / 'HR' / '1.tif').read_bytes(), 'a')
    for more in ({}, {'bit_depth': 16}):
        with pytest.raises(UserError, match=rf'HR/1\.tif: pixels of the type {np.dtype(dtype)}; convert it to 8 or 16'):
            check_decodable(opened(**roots, **more))


def test_samples_and_batches_keep_12_bits(tmp_path):
    dataset = opened('train', bit_depth=12, **write_set(tmp_path, 12))
    steps = dataset[0]['gt'].double() * 4095
    assert (steps - steps.round()).abs().max() < 1e-3
    assert len(steps.round().unique()) > 256  # more than 8 bits could tell apart
    import random  # noqa: PLC0415

    batch = dataset.batch([0, 1], [random.Random(0), random.Random(1)])
    assert batch['gt'].dtype == torch.float32 and batch['gt'].shape == (2, 3, 16, 16)


def test_lr_images_are_made_of_all_bits(tmp_path):
    roots = write_set(tmp_path, 12)
    eight = opened(dataroot_gt=roots['dataroot_gt'])
    dataset = opened(dataroot_gt=roots['dataroot_gt'], bit_depth=12)
    expected = matlab_resize(np.float32(deep(32, 32, 12)) / np.float32(4095), 1 / 2).clip(0, 1)
    found = dataset[0]['lq'].numpy().transpose(1, 2, 0)[..., ::-1]
    np.testing.assert_allclose(found, expected, atol=0.6 / 65535)
    assert eight.lq.root != dataset.lq.root  # neither is taken for the other


def test_validation_and_its_pictures_have_16_bits(tmp_path):
    dataset = opened(bit_depth=16, **write_set(tmp_path, 16))
    sample = next(upscaled(dataset, lambda lq: [lq.repeat_interleave(2, 2).repeat_interleave(2, 3)]))
    np.testing.assert_array_equal(sample.gt, deep(32, 32, 16))
    np.testing.assert_array_equal(sample.outputs[0], deep(16, 16, 16).repeat(2, 0).repeat(2, 1))


def test_an_lmdb_is_not_taken_for_what_it_lacks(tmp_path):
    with (
        TemporaryDirectory(suffix='.lmdb') as folder,
        pytest.raises(UserError, match='read in 8 bits; for bit_depth 12'),
    ):
        opened(dataroot_gt=folder, dataroot_lq=folder, bit_depth=12)


def test_training_with_12_bits(tmp_path, tiny_options, write_yaml, run_command):
    """By the command; its saved pictures have what 8 bits cannot tell apart."""
    for part in ('train', 'val'):
        write_set(tmp_path / part, 12)
    changes = {
        'datasets': {'train': {'bit_depth': 12}, 'val': {'bit_depth': 12}},
        'train': {'total_iter': 2},
        'val': {'val_freq': 2, 'save_img': True},
    }
    ended = run_command('train', '-opt', write_yaml(tmp_path / 'tiny.yml', tiny_options(tmp_path, changes)))
    assert ended.code == 0, ended.err
    assert ended.out.count('have 16 bits per value, of which 12 are used') == 2
    pictures = list((tmp_path / 'experiments' / 'tiny' / 'visualization').rglob('*.png'))
    image = cv2.imread(str(pictures[0]), cv2.IMREAD_UNCHANGED)
    assert image is not None and image.dtype == np.uint16 and len(np.unique(image)) > 256
    rows = [json.loads(line) for line in (tmp_path / 'experiments/tiny/metrics.jsonl').read_text().splitlines()]
    assert any('psnr' in json.dumps(row) for row in rows)


def test_a_photo_of_12_bits_is_told_in_preparing(tmp_path):
    assert cv2.imwrite(str(tmp_path / 'a.png'), deep(8, 8, 12))
    assert read_photo(tmp_path / 'a.png').changes == ('16 bits, of which 12 are used: dark, rounded to 8',)


def test_8_bits_are_rounded_as_ever(tmp_path):
    content = cv2.imencode('.png', deep(8, 8, 16))[1].tobytes()
    np.testing.assert_array_equal(decode(content, 'a'), deep(8, 8, 16) >> 8)
