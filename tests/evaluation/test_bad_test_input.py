"""Whatever is wrong with a test ends it with one line and exit code 2, before anything is written."""

import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from helpers.students import student, write_onnx


@pytest.fixture
def weights(tmp_path) -> str:
    torch.save({'params': student(0).state_dict()}, tmp_path / 'net.pth')
    return str(tmp_path / 'net.pth')


@pytest.mark.parametrize(
    ('val', 'told'),
    [
        ({'protocol': 'y_crop'}, "val.protocol: input should be 'y_crop_scale', 'rgb_crop_scale' or 'edsr_div2k_rgb'"),
        ({'tile': 0}, 'val.tile: input should be greater than 0'),
        ({'tile': -8}, 'val.tile: input should be greater than 0'),
        ({'tile': 'small'}, 'val.tile: input should be a valid integer'),
        ({'tile_overlap': -1}, 'val.tile_overlap: input should be greater than or equal to 0'),
        ({'tiles': 8}, "val.tiles: unknown key (did you mean 'tile'?)"),
        ({'self_ensemble': 8}, 'val.self_ensemble: input should be a valid boolean'),
    ],
)
def test_options_that_cannot_be(benchmark_options, refused, weights, val, told):
    assert told in refused({**benchmark_options, 'val': val}, '--checkpoints', weights)


def test_onnx_files_that_are_none(benchmark_options, refused, weights, tmp_path):
    pytest.importorskip('onnxruntime')
    write_onnx(student(0), tmp_path / 'net.onnx')
    path = tmp_path / 'wrong.onnx'
    whole = (tmp_path / 'net.onnx').read_bytes()
    for content in (b'', b'no network', (tmp_path / 'net.pth').read_bytes(), whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert refused(benchmark_options, '--checkpoints', str(path)).startswith(f'{path}: not an ONNX file')
    x3 = {**benchmark_options, 'scale': 3, 'network_g': {**benchmark_options['network_g'], 'upscale': 3}}
    told = refused(x3, '--checkpoints', str(tmp_path / 'net.onnx'))
    assert told == f'{tmp_path / "net.onnx"}: makes 3 x 64 x 64 of 3 x 32 x 32, not scale 3'


def test_weights_files_that_are_none(benchmark_options, refused, weights, tmp_path):
    path = tmp_path / 'wrong.pth'
    with open(weights, 'rb') as file:
        whole = file.read()
    for content in (b'', b'no weights', whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert refused(benchmark_options, '--checkpoints', str(path)).startswith(f'{path}: not a')
    state = student(0).state_dict()
    torch.save({'weights': state, 'average': state}, path)
    told = f"{path}: no weights under the key 'params'{{}}; it has weights, average"
    assert refused(benchmark_options, '--checkpoints', str(path)) == told.format('')
    path_g = f'path:pretrain_network_g={path}'
    assert refused(benchmark_options, '--force_yml', path_g) == told.format(' (path.param_key_g)')
    row = f'networks={{a: {{checkpoint: {path}, param_key: params}}}}'
    assert refused(benchmark_options, '--force_yml', row) == told.format(' (networks.a.param_key)')


def test_data_that_are_not_there(benchmark_options, refused, weights, tmp_path):
    benchmark_options['datasets']['test_1']['dataroot_gt'] = str(tmp_path / 'gone')
    assert str(tmp_path / 'gone') in refused(benchmark_options, '--checkpoints', weights)
    del benchmark_options['datasets']
    assert 'datasets: no set to test on' in refused(benchmark_options, '--checkpoints', weights)


def test_no_weights_at_all(benchmark_options, refused):
    assert 'path.pretrain_network_g: missing; testing needs weights' in refused(benchmark_options)


def test_options_that_are_not_there(run_command, tmp_path):
    ended = run_command('test', '-opt', tmp_path / 'gone.yml')
    assert (ended.code, ended.out) == (2, '')
    assert ended.err.startswith(f'error: {tmp_path / "gone.yml"}: ') and ended.err.count('\n') == 1


def test_an_image_that_a_network_cannot_upscale(benchmark_options, run_command, write_yaml, tmp_path):
    """BasicSR's RRDBNet wants even sides at x2; the images are of 16x13 pixels."""
    arguments = {'num_in_ch': 3, 'num_out_ch': 3, 'scale': 2, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 4}
    torch.save({'params': RRDBNet(**arguments).state_dict()}, tmp_path / 'rrdb.pth')
    opt = write_yaml(tmp_path / 't.yml', {**benchmark_options, 'network_g': {'type': 'RRDBNet', **arguments}})
    ended = run_command('test', '-opt', opt, '--checkpoints', str(tmp_path / 'rrdb.pth'))
    told = f'error: {tmp_path / "rrdb.pth"}: cannot upscale an image of 16x13: AssertionError\n'
    assert (ended.code, ended.err) == (2, told)
