"""``export.py``: every format, read back; what the files say of themselves; int8; what is refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.archs.edsr_arch import EDSR
from helpers.students import ARGUMENTS, edsr_pytorch_weights, student

from basicsr_clsd import Upscaler
from basicsr_clsd.images.photo import read_photo
from basicsr_clsd.inference.onnx_network import OnnxNetwork

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
COUNT = sum(value.numel() for value in student(0).parameters())


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> Path:
    """A student in an experiment's folder."""
    folder = tmp_path_factory.mktemp('experiments') / 'CLSD_seed7'
    (folder / 'models').mkdir(parents=True)
    options = {'name': 'CLSD_seed7', 'scale': 2, 'manual_seed': 7, 'network_g': {'type': 'EDSR', **ARGUMENTS}}
    (folder / 'CLSD_seed7.yml').write_text(json.dumps(options))
    torch.save({'params': student(0).state_dict()}, folder / 'models' / 'net_g_500.pth')
    return folder / 'models' / 'net_g_500.pth'


@pytest.fixture
def export(run_command, tmp_path):
    """``export('onnx', *arguments)``: runs ``export.py``, which must succeed; returns what it wrote and printed."""

    def run(*arguments: str | Path) -> tuple[Path, str]:
        before = set(tmp_path.rglob('*'))
        ended = run_command('export', *arguments, cwd=tmp_path)
        assert ended.code == 0 and ended.err == '', ended
        (made,) = set(tmp_path.rglob('*')) - before
        return made, ended.out

    return run


def lq(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_onnx_is_the_network_at_any_size(export, tmp_path, scale):
    network = student(scale, upscale=scale)
    torch.save(network.state_dict(), tmp_path / 'net.pth')
    path, _ = export('onnx', '-m', 'net.pth', '-o', 'net.onnx')
    onnx.checker.check_model(str(path), full_check=True)
    exported = OnnxNetwork(path)
    assert exported.scale == scale and exported.receptive_field == 6
    for shape in ((1, 3, 1, 1), (1, 3, 13, 7), (3, 3, 5, 8), (1, 3, 481, 640)):
        torch.testing.assert_close(exported.upscale(lq(*shape)), network(lq(*shape)), rtol=0, atol=1e-5)


def test_onnx_says_what_it_is(export, model):
    path, printed = export('onnx', '-m', model)
    assert path.name == f'CLSD_seed7_x2_{round(COUNT / 1000)}K.onnx'
    assert f'x2, {COUNT:,} parameters' in printed
    stored = onnx.load(path)
    assert stored.opset_import[0].version == 20
    header = {entry.key: entry.value for entry in stored.metadata_props}
    assert header['scale'] == '2' and header['parameters'] == str(COUNT) and header['source'] == 'net_g_500.pth'
    assert json.loads(header['run']) == {'name': 'CLSD_seed7', 'manual_seed': 7, 'iteration': 500}
    assert {key: json.loads(header['network_g'])[key] for key in ARGUMENTS} == ARGUMENTS
    (image,) = stored.graph.input
    assert [place.dim_param or place.dim_value for place in image.type.tensor_type.shape.dim][1] == 3
    assert sum(bool(place.dim_param) for place in image.type.tensor_type.shape.dim) == 3


def test_fp16_keeps_its_ends(export, model):
    path, printed = export('onnx', '-m', model, '--precision', 'fp16')
    assert path.stem.endswith('K_fp16') and 'fp16: differs by at most 0.' in printed
    stored = {weight.name: weight.data_type for weight in onnx.load(path).graph.initializer}
    kinds = {name: stored[name] for name in stored if name.endswith('weight')}
    half = {name for name, kind in kinds.items() if kind == onnx.TensorProto.FLOAT16}
    assert len(kinds) == 6 and len(half) == 4
    assert not any('conv_first' in name or 'conv_last' in name for name in half)
    difference = OnnxNetwork(path).upscale(lq(1, 3, 30, 20)) - student(0)(lq(1, 3, 30, 20))
    assert 0 < difference.abs().max() < 0.5 / 255


@pytest.mark.parametrize('kind', ['onnx', 'safetensors', 'basicsr', 'edsr-pytorch'])
def test_round_trip(export, model, kind):
    if kind == 'safetensors':
        pytest.importorskip('safetensors')
    path, _ = export(kind, '-m', model)
    image = np.random.default_rng(0).random((11, 14, 3)).astype(np.float32)
    wanted, found = Upscaler(model)(image), Upscaler(path)(image)
    if kind == 'onnx':
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, wanted)
    if kind != 'onnx':
        again, _ = export('basicsr', '-m', path, '-o', 'again.pth')
        state = torch.load(again, weights_only=True)['params']
        assert all(torch.equal(value, state[name]) for name, value in student(0).state_dict().items())


def test_files_of_other_projects(export, model):
    path, _ = export('basicsr', '-m', model)
    EDSR(**ARGUMENTS).load_state_dict(torch.load(path, weights_only=True)['params'], strict=True)
    path, _ = export('edsr-pytorch', '-m', model)
    found, wanted = torch.load(path, weights_only=True), edsr_pytorch_weights(student(0))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5)


def test_safetensors_header(export, tmp_path):
    safetensors = pytest.importorskip('safetensors')
    torch.save(student(0, res_scale=0.5).state_dict(), tmp_path / 'net.pth')
    options = {'name': 'x', 'scale': 2, 'network_g': {'type': 'EDSR', **ARGUMENTS, 'res_scale': 0.5}}
    (tmp_path / 'opt.yml').write_text(json.dumps(options))
    path, _ = export('safetensors', '-m', 'net.pth', '-opt', 'opt.yml')
    with safetensors.safe_open(path, 'pt') as file:
        assert file.metadata()['scale'] == '2' and file.metadata()['parameters'] == str(COUNT)
    image = np.random.default_rng(0).random((6, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        Upscaler(path)(image), Upscaler(tmp_path / 'net.pth', options=tmp_path / 'opt.yml')(image)
    )


@pytest.mark.parametrize('kind', ['fp32', 'fp16', 'int8'])
def test_onnx_is_valid_for_other_programs(export, model, make_images, tmp_path, kind):
    """By ONNX's own checker, and for OpenCV, which as most others takes nodes in the order of the file."""
    arguments = {'fp32': [], 'fp16': ['--precision', 'fp16'], 'int8': ['--int8', '--calibrate', tmp_path / 'photos']}
    make_images(tmp_path / 'photos', count=4, height=40, width=48)
    path, _ = export('onnx', '-m', model, *arguments[kind])
    onnx.checker.check_model(str(path), full_check=True)
    if int(cv2.__version__.split('.')[0]) < 5:
        pytest.skip('OpenCV 4 does not know all operators of fp16 and int8')
    image = lq(1, 3, 24, 20)
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(image.numpy())
    expected = OnnxNetwork(path).upscale(image).numpy()
    assert np.abs(network.forward() - expected).max() < {'fp32': 1e-5, 'fp16': 2 / 255, 'int8': 4 / 255}[kind]


def test_int8(export, make_images, tmp_path):
    make_images(tmp_path / 'photos', count=8, height=64, width=72)
    for name in ('img5.png', 'img6.png'):  # photos are upright, too
        photo = cv2.imread(str(tmp_path / 'photos' / name))
        assert photo is not None and cv2.imwrite(str(tmp_path / 'photos' / name), photo.transpose(1, 0, 2))
    path, printed = export('onnx', '-m', 'small_EDSR_x2', '--int8', '--calibrate', 'photos')
    assert path.name == 'small_EDSR_x2_344K_int8.onnx'
    model = onnx.load(path)
    kinds = {weight.name: weight.data_type for weight in model.graph.initializer if len(weight.dims) == 4}
    eight = [name for name, kind in kinds.items() if kind == onnx.TensorProto.INT8]
    header = {entry.key: entry.value for entry in model.metadata_props}
    in_float = [name for name in header['in_float'].split(', ') if name != 'none']
    assert len(eight) == 36 - len(in_float) > 0
    per_channel = [weight for weight in model.graph.initializer if weight.name.endswith('weight_scale')]
    assert all(weight.dims[0] in (3, 32, 128) for weight in per_channel)
    assert f'int8: {len(eight)} of 36 convolutions; in float: {header["in_float"]}\n' in printed
    assert 'in float no convolution: ' in printed  # what was tried is told
    assert '2 photos held out, PSNR on Y: ' in printed
    change = float(printed.split(' dB)')[-2].rsplit('(', 1)[1])
    assert -0.5 < change < 0.5
    image = read_photo(tmp_path / 'photos' / 'img8.png').pixels.astype(np.float32) / 255
    difference = np.abs(Upscaler(path)(image) - Upscaler('small_EDSR_x2')(image))
    assert 0 < difference.mean() < 1 / 255


@pytest.mark.parametrize(('runtime', 'rounded'), [('onnxruntime', True), ('openvino', False)])
def test_int8_of_prelu_is_as_each_runtime_likes_it(run_command, make_images, tmp_path, runtime, rounded):
    from basicsr.archs import build_network  # noqa: PLC0415

    make_images(tmp_path / 'photos', count=4, height=48, width=48)
    section = {'type': 'SRVGGNetCompact', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_conv': 2, 'upscale': 2}
    torch.manual_seed(0)
    network = build_network(dict(section)).eval().requires_grad_(False)
    torch.save({'params': network.state_dict()}, tmp_path / 'a.pth')
    (tmp_path / 'a.yml').write_text(yaml.safe_dump({'name': 'a', 'scale': 2, 'network_g': section}))
    how = ['-m', 'a.pth', '-opt', 'a.yml', '--calibrate', 'photos', '-o', 'a.onnx', '--int8', runtime]
    ended = run_command('export', 'onnx', *how, cwd=tmp_path)
    assert ended.code == 0, ended.err
    model = onnx.load(tmp_path / 'a.onnx')
    maker = {output: node.op_type for node in model.graph.node for output in node.output}
    before = [maker[node.input[0]] for node in model.graph.node if node.op_type == 'PRelu']
    assert len(before) == 3 and ('DequantizeLinear' in before) == rounded
    assert sum(kind == 'QuantizeLinear' for kind in maker.values()) >= 2
    lq = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(0))
    expected = network(lq)
    assert (OnnxNetwork(tmp_path / 'a.onnx').upscale(lq) - expected).abs().mean() < 4 / 255


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['onnx', '-o', 'there.onnx'], 'there.onnx: is there already; --overwrite replaces it'),
        (['onnx', '--int8'], '--int8 and --calibrate FOLDER need each other'),
        (['onnx', '--calibrate', '.'], '--int8 and --calibrate FOLDER need each other'),
        (['onnx', '--int8', '--calibrate', '.', '--precision', 'fp16'], 'not with --precision fp16'),
        (['onnx', '--int8', '--calibrate', 'nowhere'], 'nowhere: no such folder'),
        (['onnx', '--int8', '--calibrate', '.'], '.: 0 photos; calibration needs at least 4'),
        (['onnx', '--opset', '99'], 'EDSR: cannot be exported to ONNX (opset 99): '),
        (['safetensors', '-m', 'there.onnx'], 'there.onnx: an ONNX file has no weights'),
        (['basicsr', '-m', 'nowhere.pth'], 'nowhere.pth: no such file'),
        (['basicsr', '-o', 'there.onnx/x'], 'cannot be written'),
    ],
)
def test_mistakes_are_told_in_a_line(run_command, model, tmp_path, arguments, message):
    (tmp_path / 'there.onnx').write_bytes(b'mine')
    kind, *rest = arguments
    ended = run_command('export', kind, '-m', model, *rest, cwd=tmp_path)
    assert ended.code == 2, ended
    assert message in ended.err and ended.err.count('\n') == 1
    assert [path.name for path in tmp_path.iterdir()] == ['there.onnx']
    assert (tmp_path / 'there.onnx').read_bytes() == b'mine'


def test_an_arch_that_onnx_ties_to_one_size_is_refused(run_command, tmp_path):
    from basicsr.archs import build_network  # noqa: PLC0415

    section = {
        'type': 'SwinIR', 'upscale': 2, 'img_size': 16, 'window_size': 4, 'depths': [2], 'embed_dim': 8,
        'num_heads': [2], 'mlp_ratio': 2, 'upsampler': 'pixelshuffledirect',
    }  # fmt: skip
    torch.save({'params': build_network(dict(section)).state_dict()}, tmp_path / 'swin.pth')
    (tmp_path / 'opt.yml').write_text(json.dumps({'name': 'x', 'scale': 2, 'network_g': section}))
    ended = run_command('export', 'onnx', '-m', 'swin.pth', '-opt', 'opt.yml', cwd=tmp_path)
    assert ended.code == 2 and 'error: SwinIR: attends within windows' in ended.err
    assert not list(tmp_path.glob('*.onnx'))
