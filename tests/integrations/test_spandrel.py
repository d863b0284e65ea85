"""Students in spandrel: those that this project registers, and those that spandrel knows."""

import pytest
import torch
from basicsr.archs import build_network
from helpers.students import student

from basicsr_clsd.archs.windows import whole_windows

spandrel = pytest.importorskip('spandrel')
RGB = {'num_in_ch': 3, 'num_out_ch': 3}
SWINIR = {
    **{'type': 'SwinIR', 'upscale': 2, 'img_size': 24, 'window_size': 8, 'depths': [2, 2], 'embed_dim': 12},
    **{'num_heads': [2, 2], 'upsampler': 'pixelshuffledirect', 'in_chans': 3, 'mlp_ratio': 2, 'img_range': 1.0},
}
KNOWN = {
    'Compact': {'type': 'SRVGGNetCompact', **RGB, 'num_feat': 8, 'num_conv': 2, 'upscale': 2},
    'ESRGAN': {'type': 'RRDBNet', **RGB, 'num_feat': 8, 'num_block': 1, 'num_grow_ch': 32, 'scale': 4},
    'SwinIR': SWINIR,
}


def images(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


def opened(network: torch.nn.Module, path) -> 'spandrel.ImageModelDescriptor':
    torch.save({'params': network.state_dict()}, path)
    return spandrel.ModelLoader('cpu').load_from_file(path)


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_edsr_loads_once_this_is_imported(tmp_path, scale):
    import basicsr_clsd.integrations.spandrel  # noqa: F401, PLC0415

    network = student(0, upscale=scale, num_feat=12, num_block=3)
    loaded = opened(network, tmp_path / 'net.pth')
    assert loaded.architecture.id == 'EDSR' and (loaded.scale, loaded.input_channels) == (scale, 3)
    torch.testing.assert_close(loaded(images(9, 14)), network(images(9, 14)).clamp(0, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', KNOWN)
def test_students_that_spandrel_knows(tmp_path, name):
    import basicsr_clsd.integrations.spandrel  # noqa: F401, PLC0415  (takes none of them away)

    torch.manual_seed(0)
    network = build_network(dict(KNOWN[name])).eval().requires_grad_(False)
    loaded = opened(network, tmp_path / 'net.pth')
    assert loaded.architecture.id == name
    torch.testing.assert_close(loaded(images(16, 24)), network(images(16, 24)).clamp(0, 1), rtol=0, atol=1e-5)


def test_swinir_is_padded_otherwise(tmp_path):
    """spandrel mirrors without the border's pixels, the authors' test with them; inside both see the same."""
    torch.manual_seed(0)
    network = build_network(dict(SWINIR)).eval().requires_grad_(False)
    for value in network.parameters():
        value.mul_(2)
    loaded, lq = opened(network, tmp_path / 'net.pth'), images(13, 21)
    theirs = network(torch.nn.functional.pad(lq, (0, 3, 0, 3), 'reflect'))[..., :26, :42].clamp(0, 1)
    torch.testing.assert_close(loaded(lq), theirs, rtol=0, atol=1e-5)
    authors = network(whole_windows(lq, 8))[..., :26, :42].clamp(0, 1)
    assert (loaded(lq) - authors).abs().max() > 1e-3
