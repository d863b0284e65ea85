"""G: photos upscaled beside BasicSR's EDSR, and the pixels against the CPU's."""

import statistics
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
import yaml
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.srvgg_arch import SRVGGNetCompact
from measuring import seconds

from basicsr_clsd import Upscaler
from basicsr_clsd.runtime import cudnn
from gpu_parts.rows import Check, Row, at_least, at_most, attempt, told

SIZES = ((240, 320), (720, 1280), (1356, 2040))
NETWORK = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 16, 'upscale': 4}
LUMA = {'num_in_ch': 1, 'num_out_ch': 1, 'num_feat': 16, 'num_conv': 4, 'upscale': 4, 'act_type': 'prelu'}
CHANNELS = {'gray': 1, 'RGB': 3, 'RGBA': 4}
REPEATS = 3


def rows(check: Check) -> Iterator[Row]:
    """Every size, and what ensembles and precisions take."""
    torch.manual_seed(0)
    network = EDSR(**{**NETWORK, 'num_feat': 64 if check.on_gpu else 4})
    file = check.folder / 'edsr.pth'
    torch.save({'params': network.state_dict()}, file)
    network.eval().to(check.device)
    for size in SIZES if not check.quick else SIZES[:2] if check.on_gpu else ((24, 32),):
        yield from attempt(f'{size[1]}x{size[0]}', lambda size=size: photo(size, network, str(file), check))
    yield from attempt('pixels', lambda: pixels(str(file), check))


def pixels(file: str, check: Check) -> Iterator[Row]:
    """Photos of each kind, by a network of RGB and one of luma, on the device and on the CPU."""
    luma, section = check.folder / 'luma.pth', check.folder / 'luma.yml'
    torch.save({'params': SRVGGNetCompact(**LUMA).state_dict()}, luma)
    section.write_text(
        yaml.safe_dump({'name': 'luma', 'scale': 4, 'network_g': {'type': 'SRVGGNetCompact', **LUMA}}), encoding='utf-8'
    )
    draw = np.random.default_rng(0)
    images = {name: draw.integers(0, 256, (48, 64, count)).astype(np.uint8) for name, count in CHANNELS.items()}
    ways: dict[str, dict[str, Any]] = {
        'RGB network': {'model': file},
        'RGB network, ensemble, bicubic alpha': {'model': file, 'ensemble': True, 'alpha': 'bicubic'},
        'luma network': {'model': luma, 'options': str(section)},
    }
    for (way, arguments), (kind, image) in product(ways.items(), images.items()):
        ours, reference = (Upscaler(**arguments, gpu=gpu)(image).astype(int) for gpu in (check.on_gpu, False))
        difference = int(np.abs(ours - reference).max())
        yield at_most(f'{way}, {kind}, fp32: largest difference from the CPU in 8 bits', difference, 1)


def photo(size: tuple[int, int], network: EDSR, file: str, check: Check) -> Iterator[Row]:
    """A photo of one size."""
    name, device = f'{size[1]}x{size[0]}', torch.device(check.device)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    settings: dict[str, dict[str, Any]] = {'tf32': {'precision': 'tf32'}} if check.on_gpu else {}
    settings |= {'fp32': {}, 'bf16': {'precision': 'bf16'}, 'ensemble': {'ensemble': True}}
    times = {}
    for setting, arguments in settings.items():
        upscaler = Upscaler(file, gpu=check.on_gpu, **arguments)
        upscaler(image)
        if check.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        times[setting] = statistics.median(seconds(lambda up=upscaler: up(image), device) for _ in range(REPEATS))
        yield told(f'{name}, {setting}: MP/s of output', 16 * size[0] * size[1] / 1e6 / times[setting])
        if check.on_gpu:
            yield told(f'{name}, {setting}: GiB', torch.cuda.max_memory_allocated() / 2**30)

    def basicsr() -> None:
        with torch.no_grad():
            tensor = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None].to(device)
            (network(tensor)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).cpu().numpy().astype(np.uint8)

    with cudnn.inference(tf32=check.on_gpu):
        basicsr()
        theirs = statistics.median(seconds(basicsr, device) for _ in range(REPEATS))
    if check.on_gpu:
        yield at_least(f'{name}: speed, x BasicSR in tf32', theirs / times['tf32'], 1.0)
