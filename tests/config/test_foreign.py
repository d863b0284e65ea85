"""Options of BasicSR and of projects on it that ask for what is not supported, and keys that BasicSR ignores."""

import logging

import pytest
import yaml
from helpers.messages import told

from basicsr_clsd.config import load

STOCK = {
    'name': 'theirs',
    'model_type': 'SRModel',
    'scale': 4,
    'datasets': {'test_1': {'name': 'A', 'type': 'PairedImageDataset', 'dataroot_gt': 'HR', 'dataroot_lq': 'LR'}},
    'network_g': {'type': 'MSRResNet', 'upscale': 4},
}


@pytest.fixture
def opened(tmp_path):
    def write(changes):
        path = tmp_path / 'theirs.yml'
        path.write_text(yaml.safe_dump({**STOCK, **changes}), encoding='utf-8')
        return load(path)

    return write


# What is not supported comes together with keys that are unknown here, which must not be told first.
VIDEO_SET = {'train': {'type': 'REDSDataset', 'dataroot_gt': 'a', 'val_partition': 'REDS4', 'num_frame': 5}}
DEGRADED_SET = {'train': {'type': 'RealESRGANDataset', 'dataroot_gt': 'a', 'meta_info': 'b', 'blur_sigma': [1, 2]}}


@pytest.mark.parametrize(
    ('changes', 'key', 'kind', 'instead'),
    [
        ({'model_type': 'ESRGANModel', 'train': {'optim_d': {}}}, 'model_type', 'GAN', 'BasicSR'),
        ({'model_type': 'SRGANModel', 'network_d': {'type': 'VGG'}}, 'model_type', 'GAN', 'SRModel'),
        ({'model_type': 'StyleGAN2Model'}, 'model_type', 'GAN', 'BasicSR'),
        ({'network_d': {'type': 'VGGStyleDiscriminator'}}, 'network_d', 'GAN', 'SRModel'),
        ({'train': {'gan_opt': {'type': 'GANLoss'}}}, 'train.gan_opt', 'GAN', 'SRModel'),
        ({'path': {'pretrain_network_d': None}, 'train': {'optim_d': {'type': 'Adam'}}}, 'train.optim_d', 'GAN', 'SRM'),
        ({'model_type': 'EDVRModel', 'network_d': {}}, 'model_type', 'video', 'BasicSR'),
        ({'model_type': 'VideoRecurrentGANModel'}, 'model_type', 'video', 'BasicSR'),
        ({'datasets': VIDEO_SET}, 'datasets.train.type', 'video', 'BasicSR'),
        ({'model_type': 'RealESRGANModel', 'network_d': {}}, 'model_type', 'Real-ESRGAN', 'PairedImageDataset'),
        ({'model_type': 'RealESRNetModel', 'resize_prob': [1]}, 'model_type', 'Real-ESRGAN', 'PairedImageDataset'),
        ({'datasets': DEGRADED_SET}, 'datasets.train.type', 'Real-ESRGAN', 'SRModel'),
        ({'model_type': 'HATModel', 'tile': {'tile_size': 64}}, 'model_type', 'HAT', 'SwinIR'),
        ({'network_g': {'type': 'HAT', 'overlap_ratio': 0.5}}, 'network_g.type', 'HAT', 'SwinIR'),
        ({'model_type': 'DUKD', 'network_t': {'type': 'EDSR'}}, 'model_type', 'teacher', 'KDModel'),
        ({'network_t': {'type': 'EDSR'}}, 'network_t', 'teacher', 'network_teacher'),
        ({'path': {'pretrain_network_t': 'a.pth'}}, 'path.pretrain_network_t', 'teacher', 'pretrain_network_teacher'),
        (
            {'datasets': {'test_1': {'type': 'SingleImageDataset', 'dataroot_lq': 'a'}}},
            'datasets.test_1.type',
            'HR',
            'infer.py',
        ),
    ],
)
def test_what_is_not_supported_is_told_before_any_key(opened, changes, key, kind, instead):
    line = told(opened, changes)
    assert line.split(': ')[1] == key
    assert kind in line and instead in line
    assert 'did you mean' not in line


def test_keys_that_basicsr_ignores_are_named_and_ignored(opened, caplog):
    with caplog.at_level(logging.WARNING, 'basicsr'):
        options = opened({'save_img': True, 'suffix': None, 'crop_border': 4})
    assert not options.val.save_img
    lines = [record.getMessage() for record in caplog.records]
    assert sorted(line.split(': ')[1] for line in lines) == ['crop_border', 'save_img']
    assert any(line.endswith('val.save_img is read') for line in lines)


def test_other_unknown_keys_stay_mistakes(opened):
    assert told(opened, {'save_imgs': True}).endswith('save_imgs: unknown key')


@pytest.mark.parametrize('section', ['test_1', 'val'])
def test_lr_without_hr_is_sent_to_infer(opened, section):
    line = told(opened, {'datasets': {section: {'type': 'PairedImageDataset', 'dataroot_lq': 'LR'}}})
    assert line.endswith(f'datasets.{section}.dataroot_gt: missing; infer.py upscales images that have no HR')


def test_training_without_hr_is_not(opened):
    assert told(opened, {'datasets': {'train': {'dataroot_lq': 'LR'}}}).endswith('datasets.train.dataroot_gt: missing')


def test_keys_that_nothing_here_reads_are_accepted_and_left_out(opened, caplog):
    sets = {'test_1': {**STOCK['datasets']['test_1'], 'use_shuffle': False, 'prefetch_mode': 'cuda'}}
    others = {
        'val': {'pbar': False, 'grids': True},
        'path': {'ignore_resume_networks': ['a']},
        'dist_params': {'port': 1},
    }
    assert opened({'datasets': sets, **others}) == opened({})
    assert not caplog.records


@pytest.mark.parametrize(
    ('changes', 'key'), [({'val': {'pbars': False}}, 'val.pbars'), ({'train': {'pbar': False}}, 'train.pbar')]
)
def test_keys_beside_those_are_unknown(opened, changes, key):
    assert f'{key}: unknown key' in told(opened, changes)
