"""BasicSR's own options files train unchanged, and the same from folders and from LMDBs."""

import contextlib
import io

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from helpers.records import rows

# The keys and types of values of BasicSR 1.4.2's options for EDSR and MSRResNet.
STOCK = """
name: stock_EDSR_x2
model_type: SRModel
scale: 2
num_gpu: 0
manual_seed: 10
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: {train_gt}
    dataroot_lq: {train_lq}
    filename_tmpl: '{{}}'
    io_backend:
      type: {storage}
    gt_size: 16
    use_hflip: true
    use_rot: true
    use_shuffle: true
    num_worker_per_gpu: 1
    batch_size_per_gpu: 2
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val:
    name: Set5
    type: PairedImageDataset
    dataroot_gt: {val_gt}
    dataroot_lq: {val_lq}
    io_backend:
      type: {storage}
network_g:
  type: EDSR
  num_in_ch: 3
  num_out_ch: 3
  num_feat: 8
  num_block: 2
  upscale: 2
  res_scale: 1
  img_range: 255.
  rgb_mean: [0.4488, 0.4371, 0.4040]
path:
  pretrain_network_g: ~
  param_key_g: params
  strict_load_g: true
  resume_state: ~
train:
  ema_decay: 0.999
  optim_g:
    type: Adam
    lr: !!float 1e-4
    weight_decay: 0
    betas: [0.9, 0.99]
  scheduler:
    type: MultiStepLR
    milestones: [2]
    gamma: 0.5
  total_iter: 4
  warmup_iter: -1
  pixel_opt:
    type: L1Loss
    loss_weight: 1.0
    reduction: mean
val:
  val_freq: !!float 2e0
  save_img: false
  metrics:
    psnr:
      type: calculate_psnr
      crop_border: 2
      test_y_channel: false
      better: higher
logger:
  print_freq: 1
  save_checkpoint_freq: !!float 2e0
  use_tb_logger: true
  wandb:
    project: ~
    resume_id: ~
dist_params:
  backend: nccl
  port: 29500
"""


@pytest.fixture(scope='module')
def train_stock(tmp_path_factory, make_pairs, run_command):
    """``train_stock('disk' or 'lmdb')``: the folder of a training by these options."""
    data = tmp_path_factory.mktemp('data')
    folders = {}
    for phase, seed in (('train', 0), ('val', 1)):
        folders[f'{phase}_gt'], folders[f'{phase}_lq'] = make_pairs(data / phase, seed=seed)

    def stored(folder, storage):
        if storage == 'disk':
            return folder
        names = sorted(path.name for path in folder.iterdir())
        store = folder.with_suffix('.lmdb')
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make_lmdb_from_imgs(str(folder), str(store), names, [name.removesuffix('.png') for name in names])
        return store

    def train(storage):
        folder = tmp_path_factory.mktemp(storage)
        places = {name: stored(path, storage) for name, path in folders.items()}
        opt = folder / 'train_EDSR_Mx2.yml'
        opt.write_text(STOCK.format(storage=storage, **places), encoding='utf-8')
        roots = [f'path:experiments_root={folder}/experiments', f'path:tb_root={folder}/tb_logger']
        ended = run_command('train', '-opt', opt, '--force_yml', *roots)
        assert ended.code == 0, ended.err
        return folder

    return train


@pytest.fixture(scope='module')
def from_disk(train_stock):
    return train_stock('disk')


def outcome(folder):
    root = folder / 'experiments' / 'stock_EDSR_x2'
    return torch.load(root / 'models' / 'net_g_latest.pth', weights_only=True), rows(root, 'validation')


def test_stock_options_train_a_stock_network(from_disk):
    weights, metrics = outcome(from_disk)
    for key in ('params', 'params_ema'):
        EDSR(3, 3, 8, 2, 2).load_state_dict(weights[key], strict=True)
    assert [(line['iter'], line['dataset'], line['metric']) for line in metrics] == [
        (2, 'Set5', 'psnr'),
        (4, 'Set5', 'psnr'),
    ]
    assert list(from_disk.glob('tb_logger/*/events*'))


def test_storage_does_not_change_a_bit(from_disk, train_stock):
    weights, metrics = outcome(from_disk)
    others, same_metrics = outcome(train_stock('lmdb'))
    assert metrics == same_metrics
    for part, values in weights.items():
        assert all(torch.equal(value, others[part][key]) for key, value in values.items())
