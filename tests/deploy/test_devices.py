"""``export.py ncnn | executorch | coreml | official``: run where they can be, and what is refused."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network
from helpers.students import student

from basicsr_clsd import Upscaler
from basicsr_clsd.conversion.ncnn import NcnnModel
from basicsr_clsd.conversion.source import absent
from basicsr_clsd.deploy.devices import scale_read_by_upscayl
from basicsr_clsd.inference.runtimes import ExecutorchProgram, NcnnNetwork
from basicsr_clsd.inference.tiles import Tiles

SIZES = ((1, 1), (7, 13), (64, 64), (481, 640))
RCAN = {'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_group': 2, 'num_block': 2, 'upscale': 2}
ECBSR = {'type': 'ECBSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_block': 1, 'num_channel': 8, 'with_idt': True}
ECBSR |= {'act_type': 'prelu', 'scale': 2}
SWINIR = {
    **{'type': 'SwinIR', 'upscale': 2, 'img_size': 8, 'window_size': 8, 'depths': [1], 'embed_dim': 8},
    **{'num_heads': [2], 'upsampler': 'pixelshuffledirect', 'in_chans': 3, 'mlp_ratio': 2},
}


def need(*packages: str) -> None:
    if missing := absent(*packages):
        pytest.skip(f'{", ".join(missing)}: not installed')


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model(tmp_path) -> Path:
    torch.save(student(0).state_dict(), tmp_path / 'net.pth')
    return tmp_path / 'net.pth'


@pytest.fixture
def export(run_command, tmp_path):
    """``export('ncnn', *arguments)``: runs ``export.py``, which must succeed; returns what it printed."""

    def run(*arguments: str | Path) -> str:
        ended = run_command('export', *arguments, cwd=tmp_path)
        assert ended.code == 0, ended
        return ended.out

    return run


def other(tmp_path: Path, section: dict, factor: float = 3) -> tuple[torch.nn.Module, list[str | Path]]:
    """A network of a section, and the arguments that name its files."""
    torch.manual_seed(0)
    network = build_network(dict(section)).eval().requires_grad_(False)
    for value in network.parameters():
        value.mul_(factor)  # BasicSR's own initial weights are so small that little would be seen
    torch.save({'params': network.state_dict()}, tmp_path / 'other.pth')
    (tmp_path / 'opt.yml').write_text(yaml.safe_dump({'name': 'x', 'scale': 2, 'network_g': section}))
    return network, ['-m', 'other.pth', '-opt', 'opt.yml']


def read_pair(path: Path) -> NcnnNetwork:
    return NcnnNetwork(NcnnModel(path.read_text('utf-8'), path.with_suffix('.bin').read_bytes()))


def test_ncnn_pair_is_the_network(export, model, tmp_path):
    need('pnnx', 'ncnn')
    export('ncnn', '-m', model)
    (path,) = tmp_path.glob('*.param')
    layers = [line.split() for line in path.read_text('utf-8').splitlines()[2:]]  # type, name, counts, blobs, ...
    assert layers[0][0] == 'Input' and layers[0][4] == 'data'
    assert layers[-1][4 + int(layers[-1][2])] == 'output'
    assert scale_read_by_upscayl(path.stem) == 2
    network = read_pair(path)
    for size in SIZES:
        found = torch.from_numpy(network(images(1, 3, *size).numpy()))
        torch.testing.assert_close(found, student(0)(images(1, 3, *size)), rtol=0, atol=1e-4)
    export('ncnn', '-m', model, '--precision', 'fp16')
    half = next(tmp_path.glob('*_fp16.bin'))
    assert half.stat().st_size < 0.6 * path.with_suffix('.bin').stat().st_size


def test_ncnn_pair_of_an_ecbsr_for_rgb_is_the_network(export, tmp_path):
    need('pnnx', 'ncnn')
    network, arguments = other(tmp_path, ECBSR, 1)
    export('ncnn', *arguments, '-o', 'net_x2.param')
    pair = read_pair(tmp_path / 'net_x2.param')
    for size in SIZES:
        found = torch.from_numpy(pair(images(1, 3, *size).numpy()))
        torch.testing.assert_close(found, network(images(1, 3, *size)), rtol=0, atol=1e-4)


def test_ncnn_pair_makes_the_picture_of_infer_in_tiles(export, model, tmp_path):
    need('pnnx', 'ncnn')
    export('ncnn', '-m', model, '-o', 'net_x2.param', '--precision', 'fp16')
    network = read_pair(tmp_path / 'net_x2.param')
    photo = np.random.default_rng(0).integers(0, 256, (45, 60, 3)).astype(np.uint8)
    lq = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    tiles = Tiles(lambda part: torch.from_numpy(network(part.numpy())), 2, tile=20, overlap=6)
    found = tiles(lq)[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy()
    assert np.abs(found - Upscaler(model)(photo)).max() <= 2


def test_ncnn_refuses_names_that_tell_another_scale_and_operators_that_it_lacks(run_command, model, tmp_path):
    need('pnnx')
    for name in ('from_x3_net', 'net'):
        ended = run_command('export', 'ncnn', '-m', model, '-o', f'{name}.param', cwd=tmp_path)
        assert ended.code == 2 and 'Upscayl would read scale' in ended.err and ended.err.count('\n') == 1
    _, arguments = other(tmp_path, SWINIR)
    ended = run_command('export', 'ncnn', *arguments, cwd=tmp_path)
    assert ended.code == 2 and ended.err.startswith('error: SwinIR: ncnn has no ') and 'torch.unbind' in ended.err
    assert ended.err.count('\n') == 1
    assert not list(tmp_path.glob('*.param')) and not list(tmp_path.glob('*.bin'))


@pytest.mark.parametrize('files', [['net_x2.param'], ['net_x2.bin']])
def test_neither_file_of_a_pair_is_overwritten(run_command, model, tmp_path, files):
    for name in files:
        (tmp_path / name).write_text('mine')
    ended = run_command('export', 'ncnn', '-m', model, '-o', 'net_x2.param', cwd=tmp_path)
    assert ended.code == 2 and f'{files[0]}: is there already' in ended.err
    assert [(tmp_path / name).read_text() for name in files] == ['mine']


@pytest.mark.slow
def test_executorch_program_is_the_network(export, model, tmp_path):
    need('executorch')
    assert 'at most 1024 x 1024' in export('executorch', '-m', model)
    (path,) = tmp_path.glob('*.pte')
    program = ExecutorchProgram(path.read_bytes())
    for size in SIZES:
        found = torch.from_numpy(program(images(1, 3, *size).numpy()))
        torch.testing.assert_close(found, student(0)(images(1, 3, *size)), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_coreml_package_has_free_sizes(export, run_command, model, tmp_path):
    need('coremltools')
    assert 'not run' in export('coreml', '-m', model, '-o', 'net.mlpackage')
    from coremltools.models.utils import load_spec  # noqa: PLC0415

    spec = load_spec(str(tmp_path / 'net.mlpackage'))
    (image,) = spec.description.input
    sides = image.type.multiArrayType.shapeRange.sizeRanges
    assert image.name == 'lq' and [(side.lowerBound, side.upperBound) for side in sides[2:]] == [(1, 2048)] * 2
    assert run_command('export', 'coreml', '-m', model, '-o', 'net.mlpackage', cwd=tmp_path).code == 2
    export('coreml', '-m', model, '-o', 'net.mlpackage', '--overwrite')
    (tmp_path / 'mine.mlpackage').mkdir()
    ended = run_command('export', 'coreml', '-m', model, '-o', 'mine.mlpackage', '--overwrite', cwd=tmp_path)
    assert ended.code == 2 and 'no Core ML package' in ended.err and (tmp_path / 'mine.mlpackage').is_dir()


@pytest.mark.parametrize(
    ('kind', 'package'), [('ncnn', 'pnnx'), ('executorch', 'executorch'), ('coreml', 'coremltools')]
)
def test_a_missing_converter_is_told_with_its_command(model, monkeypatch, tmp_path, capsys, kind, package):
    from basicsr_clsd import export as command  # noqa: PLC0415

    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr('sys.argv', ['export', kind, '-m', str(model), '-o', str(tmp_path)])
    before = set(tmp_path.rglob('*'))
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2 and set(tmp_path.rglob('*')) == before
    told = capsys.readouterr().err
    assert told == f"error: {package} is not installed; pip install 'basicsr-clsd[devices]'\n"


def test_official_rcan_is_read_by_spandrel(export, run_command, model, tmp_path):
    spandrel = pytest.importorskip('spandrel')
    network, arguments = other(tmp_path, RCAN)
    export('official', *arguments, '-o', 'official.pth')
    loaded = spandrel.ModelLoader('cpu').load_from_file(tmp_path / 'official.pth')
    assert loaded.architecture.id == 'RCAN' and loaded.scale == 2
    lq = images(1, 3, 17, 24)
    torch.testing.assert_close(loaded(lq.clone()), network(lq).clamp(0, 1), rtol=0, atol=1e-4)
    ended = run_command('export', 'official', '-m', model, cwd=tmp_path)
    assert ended.code == 2 and ended.err.startswith('error: EDSR: ')
    _, scaled = other(tmp_path, {**RCAN, 'res_scale': 0.5})
    ended = run_command('export', 'official', *scaled, '--overwrite', cwd=tmp_path)
    assert ended.code == 2 and 'res_scale 1' in ended.err
