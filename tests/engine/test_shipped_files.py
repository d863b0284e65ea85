"""Every training that comes with the project: two iterations, a validation, a save, and a resumed third."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.resolved_options import OPTIONS, shipped
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from basicsr_clsd import registry
from basicsr_clsd.config import load

FILES = [name for name in shipped() if not Path(name).name.startswith('test_')]
# Narrower and shallower, with as many blocks as the taps need.
SMALL = {
    'num_feat': 8,
    'num_group': 4,
    'num_block': {'RCAN': 1},
    'squeeze_factor': 4,
    'embed_dim': 12,
    'depths': '[2,2,2,2]',
}
HR_SIDE, LR_PATCH, ZOOMED_PATCH = 72, 16, 12

pytestmark = pytest.mark.slow  # one second each


@pytest.fixture(scope='module')
def images(tmp_path_factory, make_images):
    """A folder with ``train`` and ``val``; LR images are made beside them for each scale once."""
    folder = tmp_path_factory.mktemp('images')
    for seed, name in enumerate(('train', 'val')):
        make_images(folder / name, count=2, height=HR_SIDE, width=HR_SIDE, seed=seed)
    return folder


def smaller(network, where):
    """Overrides that make a section of a network small."""
    overrides = []
    for key, value in network.items():
        if key in ('student', 'head', 'decoder'):
            overrides += smaller(value, f'{where}:{key}')
        small = SMALL.get(key)
        small = small.get(network.get('type')) if isinstance(small, dict) else small
        if small is not None:
            overrides.append(f'{where}:{key}={small}')
    return overrides


def overrides_for(name, options, images, folder):
    overrides = [f'path:{key}={folder / key}' for key in ('experiments_root', 'tb_root')]
    zooms = any(term.images == 'zoom_out' for term in options.train.distill_opt or [])
    side = ZOOMED_PATCH if zooms else LR_PATCH
    overrides += [
        'num_gpu=0',
        'val:save_img=true',
        f'datasets:train:gt_size={side * options.scale}',
        'datasets:train:num_worker_per_gpu=0',
    ]
    overrides += ['datasets:train:batch_size_per_gpu=2', *smaller(options.network_g.as_dict(), 'network_g')]
    for key in options.datasets:
        root = images / ('train' if key == 'train' else 'val')
        changes = {'dataroot_gt': root, 'dataroot_lq': 'null', 'filename_tmpl': 'null', 'names': 'null'}
        overrides += [f'datasets:{key}:{name}={value}' for name, value in changes.items()]
    assert options.train is not None
    for key, loss in options.train.losses().items():
        if loss.schedule is not None and loss.schedule.anneal_end is not None:  # later than the run's end
            overrides += [f'{key.replace(".", ":")}:schedule=null']
    contrast = options.train.contrast_opt
    if contrast is not None:
        overrides += ['train:contrast_opt:num_negative=2']
        overrides += ['train:contrast_opt:vgg_weights=random'] if contrast.extractor == 'vgg19' else []
    teacher = options.network_teacher
    if teacher is not None:
        overrides += smaller(teacher.as_dict(), 'network_teacher')
        small = load(OPTIONS / name, overrides).network_teacher
        assert small is not None
        torch.save({'params': registry.build('archs', small, '').state_dict()}, folder / 'teacher.pth')
        overrides += [f'path:pretrain_network_teacher={folder / "teacher.pth"}']
    overrides += ['path:pretrain_network_g=null']
    return overrides


@pytest.mark.parametrize('name', FILES)
def test_training_validates_saves_and_resumes_with_default_loggers(name, images, tmp_path, run_command):
    options = load(OPTIONS / name)
    common = ['-opt', OPTIONS / name, '--force_yml', *overrides_for(name, options, images, tmp_path)]
    for total, resuming in ((2, []), (3, ['--auto_resume'])):
        ended = run_command('train', *common, f'train:total_iter={total}', *resuming, cwd=tmp_path)
        assert (ended.code, ended.err) == (0, ''), ended.out
        root = tmp_path / 'experiments_root' / options.name
        assert torch.load(root / 'training_states' / f'{total}.state', weights_only=True)['iter'] == total
        assert (root / 'models' / f'net_g_{total}.pth').is_file()
    curves = EventAccumulator(str(tmp_path / 'tb_root' / options.name)).Reload()
    metric = 'psnr/privileged' if options.model_type == 'PrivilegedModel' else 'psnr'
    for _, section in options.sets('val'):
        assert [event.step for event in curves.Images(f'val/{section.name}')] == [2, 3]
        assert [event.step for event in curves.Scalars(f'val/{section.name}/{metric}')] == [2, 3]
        assert len(list((root / 'visualization' / section.name).glob('*.png'))) == 2 * 2
    shutil.rmtree(tmp_path)
