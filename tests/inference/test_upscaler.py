"""The Python API: every shape and type of image, every kind of weights, what it refuses."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from basicsr.archs import build_network
from basicsr.archs.edsr_arch import EDSR
from helpers.students import edsr_pytorch_weights, student

from basicsr_clsd import Upscaler
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.photo import upright
from basicsr_clsd.inference.tiles import receptive_field
from basicsr_clsd.inference.torch_network import edsr_receptive_field, upscale_in_stages
from basicsr_clsd.networks.edsr_arguments import edsr_arguments


def image(dtype: type, *shape: int) -> np.ndarray:
    values = np.random.default_rng(0).random(shape)
    return values.astype(np.float32) if dtype == np.float32 else (values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('channels', [(), (1,), (2,), (3,), (4,)])
def test_shape_type_and_range_are_those_of_the_image(model, dtype, channels):
    given = image(dtype, 9, 14, *channels)
    made = Upscaler(model)(given)
    assert made.shape == (18, 28, *channels) and made.dtype == dtype
    assert made.min() >= 0 and made.max() <= (1 if dtype == np.float32 else np.iinfo(dtype).max)


def test_values_are_those_of_the_network(model, expected, close):
    upscaler = Upscaler(model)
    for dtype in (np.uint8, np.uint16):
        given = image(dtype, 17, 12, 3)
        close(upscaler(given), expected(given))
        close(Upscaler(model, tile=5)(given), expected(given))
    given = image(np.float32, 17, 12, 3)
    lq = torch.from_numpy(given).permute(2, 0, 1)[None]
    np.testing.assert_allclose(upscaler(given), student(0)(lq)[0].permute(1, 2, 0).clamp(0, 1), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(upscaler(given[:, :, :1])[..., 0], upscaler(given[..., 0]))


def test_ensemble_turns_with_the_image(model):
    upscaler, given = Upscaler(model, ensemble=True), image(np.float32, 8, 11, 3)
    np.testing.assert_allclose(upscaler(np.rot90(given)), np.rot90(upscaler(given)), rtol=0, atol=1e-5)
    assert np.abs(upscaler(given) - Upscaler(model)(given)).max() > 1e-4


def test_bf16_is_near(model):
    given = image(np.float32, 12, 9, 3)
    difference = np.abs(Upscaler(model, precision='bf16')(given) - Upscaler(model)(given)).max()
    assert 0 < difference < 0.02


@pytest.mark.parametrize(('scale', 'blocks', 'width'), [(2, 1, 8), (3, 2, 12), (4, 3, 8), (8, 1, 4)])
def test_scale_width_and_depth_are_read_off_the_weights(tmp_path, scale, blocks, width):
    network = student(1, num_feat=width, num_block=blocks, upscale=scale)
    found = edsr_arguments(network.state_dict())
    assert found is not None
    assert [found[key] for key in ('upscale', 'num_block', 'num_feat', 'res_scale')] == [scale, blocks, width, 1]
    assert edsr_arguments(edsr_pytorch_weights(network)) == found
    given = image(np.float32, 6, 7, 3)
    wanted = network(torch.from_numpy(given).permute(2, 0, 1)[None])[0].permute(1, 2, 0).clamp(0, 1)
    contents = {
        'bare.pth': network.state_dict(),
        'params.pth': {'params': network.state_dict()},
        'average.pth': {'params': student(2).state_dict(), 'params_ema': network.state_dict()},
        'theirs.pt': edsr_pytorch_weights(network),
    }
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
        upscaler = Upscaler(tmp_path / name)
        assert upscaler.scale == scale
        np.testing.assert_allclose(upscaler(given), wanted, rtol=0, atol=1e-5)


def test_the_papers_large_network_scales_its_residuals():
    with torch.device('meta'):
        state = EDSR(3, 3, num_feat=256, num_block=32, upscale=2).state_dict()
    found = edsr_arguments(state)
    assert found is not None and found['res_scale'] == 0.1


def test_residual_scaling_is_that_of_the_experiment(tmp_path):
    network = student(0, res_scale=0.5)
    models = tmp_path / 'run' / 'models'
    models.mkdir(parents=True)
    torch.save({'params': network.state_dict()}, models / 'net_g_9.pth')
    options = {'name': 'run', 'scale': 2, 'network_g': {'type': 'EDSRHeads', 'res_scale': 0.5, 'head_taps': [1]}}
    (tmp_path / 'run' / 'run.yml').write_text(yaml.safe_dump(options))
    given = image(np.float32, 6, 7, 3)
    wanted = network(torch.from_numpy(given).permute(2, 0, 1)[None])[0].permute(1, 2, 0).clamp(0, 1)
    np.testing.assert_allclose(Upscaler(models / 'net_g_9.pth')(given), wanted, rtol=0, atol=1e-5)


def test_another_arch_needs_its_options(tmp_path):
    section = {'type': 'MSRResNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'upscale': 3}
    network = build_network(dict(section)).eval().requires_grad_(False)
    torch.save({'params': network.state_dict()}, tmp_path / 'net.pth')
    with pytest.raises(UserError, match=r'net\.pth: not the weights of an EDSR for RGB; give the options'):
        Upscaler(tmp_path / 'net.pth')
    (tmp_path / 'opt.yml').write_text(yaml.safe_dump({'name': 'x', 'scale': 3, 'network_g': section}))
    given = image(np.float32, 20, 21, 3)
    wanted = network(torch.from_numpy(given).permute(2, 0, 1)[None])[0].permute(1, 2, 0).clamp(0, 1)
    for tile in (None, 9):
        made = Upscaler(tmp_path / 'net.pth', options=tmp_path / 'opt.yml', tile=tile)(given)
        np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_stages_are_the_network(scale, monkeypatch):
    network, lq = student(3, upscale=scale, res_scale=0.1), torch.rand(1, 3, 21, 33)
    assert torch.equal(upscale_in_stages(network, lq, scale), network(lq))
    monkeypatch.setattr('basicsr_clsd.inference.torch_network.TAIL_TILE', 8)
    torch.testing.assert_close(upscale_in_stages(network, lq, scale), network(lq), rtol=0, atol=1e-5)
    assert edsr_receptive_field(network) == receptive_field(network, scale)


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (np.zeros((4, 4, 3)), 'an image of the type float64'),
        (np.zeros((4, 4, 3), np.int32), 'an image of the type int32'),
        (np.zeros((4, 4, 5), np.uint8), r'an image of shape \(4, 4, 5\)'),
        (np.zeros((0, 4, 3), np.uint8), r'an image of shape \(0, 4, 3\)'),
        (np.zeros(4, np.uint8), r'an image of shape \(4,\)'),
    ],
)
def test_what_is_no_image(model, wrong, message):
    with pytest.raises(UserError, match=message):
        Upscaler(model)(wrong)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientations_are_those_of_pillow(orientation):
    from PIL import Image, ImageOps  # noqa: PLC0415

    pixels = image(np.uint8, 4, 7, 3)
    photo = Image.fromarray(pixels)
    photo.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(upright(pixels, orientation), np.array(ImageOps.exif_transpose(photo)))


def test_importing_the_package_imports_no_torch():
    code = 'import sys, basicsr_clsd; sys.exit("torch" in sys.modules or "basicsr" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], check=True, cwd=Path(__file__).resolve().parents[2])
