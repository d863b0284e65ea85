"""What a training says of the weights that it starts from."""

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR

SIZES = {'num_feat': 8, 'num_block': 2}


@pytest.fixture
def run_from(make_run, tmp_path):
    """``run_from(content, *overrides)``: a training of two iterations from this file, its lines and its log."""

    def start(content, *overrides):
        torch.save(content, tmp_path / 'start.pth')
        run = make_run({'network_g': {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, **SIZES, 'upscale': 2}})
        common = [
            'model_type=SupervisedModel',
            'train:aux_opt=null',
            'train:contrastive_opt=null',
            'train:total_iter=2',
        ]
        weights = f'path:pretrain_network_g={tmp_path / "start.pth"}'
        ended = run.start('--force_yml', 'val:heads=false', *common, weights, *overrides)
        log = run.root / 'train_tiny.log'
        return ended, log.read_text(encoding='utf-8') if log.exists() else '', tmp_path / 'start.pth'

    return start


def test_all_weights(run_from):
    ended, log, path = run_from({'params': EDSR(3, 3, **SIZES, upscale=2).state_dict()})
    assert ended.code == 0, ended.err
    line = f'Weights from {path}, params: 16 of 16 tensors taken'
    assert line in ended.out.splitlines() and log.count(line) == 1


def test_weights_of_another_scale(run_from):
    content = {'params': EDSR(3, 3, **SIZES, upscale=3).state_dict()}
    ended, log, path = run_from(content)
    assert ended.code == 2
    assert ended.err.endswith('; path.strict_load_g: false takes what fits and leaves the rest at random\n')
    ended, log, path = run_from(content, 'path:strict_load_g=false')
    assert ended.code == 0, ended.err
    line = f'Weights from {path}, params: 14 of 16 tensors taken; upsample.0.weight, upsample.0.bias start at random'
    assert line in ended.out.splitlines() and log.count(line) == 1


def test_file_without_keys(run_from):
    ended, _, path = run_from(EDSR(3, 3, **SIZES, upscale=2).state_dict())
    assert f'Weights from {path}: 16 of 16 tensors taken' in ended.out.splitlines()
