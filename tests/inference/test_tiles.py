"""Tiles against the whole image, how far a network sees, and what happens when memory runs out."""

import logging
import math
from collections.abc import Iterator

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.rcan_arch import RCAN
from torch import Tensor, nn

from basicsr_clsd import registry
from basicsr_clsd.config.components import Component
from basicsr_clsd.inference.tiles import Tiles, receptive_field, upscale_in_tiles
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.inference.transforms import self_ensemble


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What BasicSR's logger is told, whether or not another test has made it keep that to itself."""
    logger = logging.getLogger('basicsr')
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def edsr(blocks: int, scale: int) -> EDSR:
    torch.manual_seed(0)
    return EDSR(3, 3, num_feat=8, num_block=blocks, upscale=scale).eval().requires_grad_(False)


def edsr_reach(blocks: int, scale: int) -> int:
    """First convolution, two in each block, one after them, then those of the upsampler and the last one."""
    reach: float = 1 + 2 * blocks + 1
    if scale == 4:
        return math.floor(reach + 1 + 1 / 2 + 1 / 4 + 3 / 4)
    return math.floor(reach + 1 + 1 / scale + (scale - 1) / scale)


def swinir() -> TorchNetwork:
    network = {
        'type': 'SwinIR', 'upscale': 2, 'img_size': 16, 'window_size': 4, 'depths': [2], 'embed_dim': 8,
        'num_heads': [2], 'mlp_ratio': 2, 'upsampler': 'pixelshuffledirect',
    }  # fmt: skip
    torch.manual_seed(0)
    section = Component.model_validate(network)
    return TorchNetwork(registry.build('archs', section, 'network_g'), section, 2)


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(('blocks', 'scale'), [(1, 2), (2, 3), (3, 4), (16, 2)])
def test_receptive_field_is_what_the_layers_add_up_to(blocks, scale):
    assert receptive_field(edsr(blocks, scale), scale) == edsr_reach(blocks, scale)


def test_a_network_that_averages_over_the_image_has_no_bounded_field():
    class Global(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.repeat_interleave(2, 2).repeat_interleave(2, 3) + x.mean((2, 3), keepdim=True)

    assert receptive_field(Global(), 2) is None


def test_a_network_that_sees_one_pixel_or_none():
    assert receptive_field(lambda x: x.repeat_interleave(3, 2).repeat_interleave(3, 3), 3) == 0
    assert receptive_field(lambda x: torch.zeros(1, 3, *(2 * side for side in x.shape[2:])), 2) == 0


def test_the_longer_axis_counts():
    wide = nn.Conv2d(3, 3, (1, 9), padding=(0, 4)).requires_grad_(False)
    assert receptive_field(wide, 1) == 4
    assert receptive_field(lambda x: wide(x.mT).mT, 1) == 4


def test_a_runtime_whose_relu_swallows_nan_is_seen_through():
    body = nn.Conv2d(3, 3, 7, padding=3).requires_grad_(False)
    assert receptive_field(lambda x: torch.nan_to_num(body(x)).relu(), 1) == 3


@pytest.mark.parametrize('tile', [7, 16, 31, 64])
@pytest.mark.parametrize(('height', 'width'), [(45, 38), (31, 64), (5, 70)])
def test_tiles_are_the_whole_image(tile, height, width):
    network, lq = edsr(2, 2), image(height, width)
    overlap = receptive_field(network, 2)
    assert overlap is not None
    tiled = upscale_in_tiles(lq, network, 2, tile, overlap)
    torch.testing.assert_close(tiled, network(lq), rtol=0, atol=1e-5)


@pytest.mark.parametrize('rows', [3, 5, 64])
@pytest.mark.parametrize(('height', 'width'), [(45, 38), (31, 140), (5, 70)])
def test_low_tiles_are_the_wider_and_see_no_more(rows, height, width):
    network, lq, side = edsr(2, 2), image(height, width), 16
    overlap, areas = edsr_reach(2, 2), []

    def seen(part: Tensor) -> Tensor:
        areas.append(part.shape[2] * part.shape[3])
        return network(part)

    whole, strips = network(lq), {}
    tiles = Tiles(seen, 2, side, overlap)
    for top, left, part in tiles.parts(lambda rows, columns: lq[:, :, rows, columns], height, width, rows):
        assert part.shape[2] <= 2 * min(rows, side)
        strips.setdefault(top, []).append(part)
        assert left == sum(part.shape[3] for part in strips[top][:-1]) // 2
    made = torch.cat([torch.cat(strip, 3) for strip in strips.values()], 2)
    torch.testing.assert_close(made, whole, rtol=0, atol=1e-5)
    assert max(areas) <= (side + 2 * overlap) ** 2
    if rows < side and width > 100:
        assert max(part.shape[3] for strip in strips.values() for part in strip) > 2 * side


def test_less_overlap_than_the_field_shows():
    network, lq = edsr(2, 2), image(45, 38)
    tiled = upscale_in_tiles(lq, network, 2, 16, 4)
    assert (tiled - network(lq)).abs().max() > 1e-5


@pytest.mark.parametrize('scale', [3, 4])
def test_tiles_at_other_scales(scale):
    network, lq = edsr(1, scale), image(23, 29)
    tiles = Tiles(network, scale, tile=8)
    torch.testing.assert_close(tiles(lq), network(lq), rtol=0, atol=1e-5)
    assert tiles.overlap == edsr_reach(1, scale)


def test_windows_of_a_transformer_stay_in_place():
    network, lq = swinir(), image(49, 42)
    whole = network.upscale(lq)
    tiles = Tiles(network.upscale, 2, tile=10, window=network.window)
    torch.testing.assert_close(tiles(lq), whole, rtol=0, atol=1e-5)
    unaligned = upscale_in_tiles(lq, network.upscale, 2, 10, tiles.found_overlap(3) | 1)
    assert (unaligned - whole).abs().max() > 1e-5


def test_tiles_of_a_self_ensemble_are_that_of_the_whole_image():
    network, lq = edsr(1, 2), image(20, 33)
    tiled = self_ensemble(Tiles(network, 2, tile=9))(lq)
    torch.testing.assert_close(tiled, self_ensemble(network)(lq), rtol=0, atol=1e-5)


class Small:
    """An ``upscale`` whose memory has room for so many pixels."""

    def __init__(self, room: int, error: Exception) -> None:
        self.network, self.room, self.error = edsr(1, 2), room, error
        self.given: list[tuple[int, int]] = []

    def __call__(self, lq: Tensor) -> Tensor:
        self.given.append((lq.shape[2], lq.shape[3]))
        if lq.shape[2] * lq.shape[3] > self.room:
            raise self.error
        return self.network(lq)


@pytest.mark.parametrize(
    'error',
    [
        torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB'),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
        MemoryError('Unable to allocate 3 GiB'),
    ],
)
def test_smaller_tiles_when_memory_runs_out(error, log):
    small, lq = Small(50 * 50, error), image(90, 100)
    tiles = Tiles(small, 2, name='net')
    torch.testing.assert_close(tiles(lq), small.network(lq), rtol=0, atol=1e-5)
    assert small.given[0] == (90, 100) and max(h * w for h, w in small.given[-4:]) <= 50 * 50
    assert tiles.tile == 25  # 100, 50 with 6 pixels around it is too much, 25
    assert 'net: memory ran out; going on in tiles of 25 pixels' in log.text
    small.given.clear()
    tiles(lq)
    assert all(h * w <= 50 * 50 for h, w in small.given)  # the next image is not tried whole


def test_memory_that_does_not_suffice_for_the_smallest_tile():
    small = Small(0, RuntimeError('CUDA error: out of memory'))
    with pytest.raises(OSError, match='not enough memory for tiles of 16 pixels'):
        Tiles(small, 2, overlap=4)(image(40, 40))


def test_another_error_is_not_taken_for_memory():
    with pytest.raises(RuntimeError, match='size of tensor'):
        Tiles(Small(0, RuntimeError('size of tensor a')), 2)(image(20, 20))


def test_a_network_without_bounded_field_says_so(log):
    network = RCAN(3, 3, num_feat=8, num_group=1, num_block=1, squeeze_factor=4, upscale=2).eval().requires_grad_(False)
    tiles = Tiles(network, 2, tile=16, name='RCAN')
    assert tiles(image(24, 20)).shape == (1, 3, 48, 40)
    assert tiles.overlap == 32
    assert 'RCAN: its output depends on the whole image' in log.text
