"""Megapixels of output per second, and memory, of the ways to run a trained network, beside BasicSR's own.

    python benchmarks/inference.py --threads 2 --repeats 5 --calibrate datasets/BSDS400 --json inference.json

BasicSR's way is its `EDSR` in fp32 on the whole image; the others are this project's: `Upscaler` as `infer.py` has it
(tiles of 512 where the image is larger, channels_last), the same on the whole image, in bf16, and compiled, and ONNX
files by onnxruntime in fp32 and int8, and by OpenVINO where that is installed: in f32, in bf16, which is its default on
processors that have it, and int8 with the rest in f32. All get the same uint8 images and give uint8 images.
The ways take turns within each repeat, in an order drawn anew each time, so that whatever else the machine does falls
on all of them; ratios are medians, over the repeats, of those within a repeat.
- **Peak memory**: of the resident size of a fresh process, beyond what it has once it has upscaled a tiny image.
- **Largest difference** to BasicSR's output, in steps of 8 bits.
- **PSNR** (`--psnr`): on Y, of each way on the images of test folders, HR:LR; for bf16 and int8 what the speed costs.
Without `--model` weights are drawn at random: they take the same time, but say nothing about PSNR, and int8 is made
with what is in `--calibrate` all the same.
"""

import argparse
import json
import multiprocessing
import os
import random
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measuring import cpu_name, seconds
from numpy.typing import NDArray
from rich.console import Console

from basicsr_clsd import Upscaler
from basicsr_clsd.deploy.writers import header_of, write_onnx
from basicsr_clsd.inference.loader import load
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.networks.zoo import model_file
from basicsr_clsd.runtime.memory import keep_freed_memory, process_peak, reset_process_peak

Image = NDArray[np.uint8]
Run = Callable[[Image], Image]
BASICSR, DEFAULT = 'BasicSR', 'Upscaler'
BF16, COMPILED, INT8 = 'Upscaler, bf16', 'Upscaler, compiled', 'onnxruntime int8'
WHOLE, ORT = 'Upscaler, whole image', 'onnxruntime fp32'
OPENVINO, OPENVINO_BF16, OPENVINO_INT8 = 'OpenVINO f32', 'OpenVINO bf16', 'OpenVINO int8'
WAYS = (BASICSR, DEFAULT, WHOLE, BF16, COMPILED, ORT, INT8, OPENVINO, OPENVINO_BF16, OPENVINO_INT8)
IN_FP32 = (DEFAULT, WHOLE, COMPILED, ORT, OPENVINO)
SIZES = ('320x240', '1280x720')
FILES = {ORT: 'fp32', OPENVINO: 'fp32', OPENVINO_BF16: 'fp32', INT8: 'int8', OPENVINO_INT8: 'int8'}
WARM_UP = (8, 8, 3)
CPU = torch.device('cpu')


@dataclass
class Case:
    """A way to upscale at a scale and a size."""

    way: str
    scale: int
    size: str
    peak_bytes: int = 0
    difference: float = 0.0  # to BasicSR's output, in steps of 8 bits
    seconds: list[float] = field(default_factory=list)


def weights_of(scale: int, args: argparse.Namespace) -> Path:
    """Return the weights at a scale: those of `--model`, or random ones of the paper's student, written once."""
    if args.model:
        return model_file(args.model)
    path = Path(args.folder, f'EDSR_x{scale}.pth')
    if not path.exists():
        from basicsr.archs.edsr_arch import EDSR  # noqa: PLC0415  (basicsr_clsd makes BasicSR importable)

        torch.manual_seed(0)
        network = EDSR(3, 3, num_feat=args.width, num_block=args.blocks, upscale=scale)
        torch.save({'params': network.state_dict()}, path)
    return path


def write_files(scale: int, args: argparse.Namespace) -> None:
    """Export the weights to ONNX, in fp32 and int8."""
    source = weights_of(scale, args)
    network = load(source, gpu=False)
    assert isinstance(network, TorchNetwork)
    for kind in ('fp32', args.calibrate):
        if kind is not None:
            path = onnx_file(scale, 'fp32' if kind == 'fp32' else 'int8', args)
            write_onnx(network, path, header_of(network, source), kind, 20, Console(stderr=True))


def onnx_file(scale: int, precision: str, args: argparse.Namespace) -> Path:
    """Return the path of an exported file."""
    return Path(args.folder, f'x{scale}_{precision}.onnx')


def build(way: str, scale: int, args: argparse.Namespace) -> Run:
    """Build a way to upscale."""
    torch.set_num_threads(args.threads)
    source = weights_of(scale, args)
    keep_freed_memory(way != BASICSR)
    if way == BASICSR:
        return basicsr_way(source)
    if way.startswith('OpenVINO'):
        return openvino_way(onnx_file(scale, FILES[way], args), 'bf16' if way == OPENVINO_BF16 else 'f32')
    if way in FILES:
        return Upscaler(onnx_file(scale, FILES[way], args), tile=0, gpu=False)
    tile = 0 if way == WHOLE else args.tile
    upscaler = Upscaler(source, tile=tile, precision='bf16' if way == BF16 else 'fp32', gpu=False)
    if way == COMPILED:
        assert isinstance(upscaler.network, TorchNetwork)
        for name in ('body', 'upsample'):
            upscaler.network.module.get_submodule(name).compile(dynamic=True)
    return upscaler


def basicsr_way(source: Path) -> Run:
    """Build BasicSR's own way: its network, the whole image, as its `inference_*.py` scripts have it."""
    opened = load(source, gpu=False)
    assert isinstance(opened, TorchNetwork)
    network = opened.module.to(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def run(image: Image) -> Image:
        lq = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()
        sr = network(lq)[0].clamp(0, 1).permute(1, 2, 0).numpy()
        return (sr * 255).round().astype(np.uint8)

    return run


def openvino_way(path: Path, precision: str) -> Run:
    """Build OpenVINO's way, of the whole image; by itself it would choose the precision by the processor."""
    import openvino  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    how = {'INFERENCE_NUM_THREADS': torch.get_num_threads(), 'INFERENCE_PRECISION_HINT': precision}
    compiled = openvino.Core().compile_model(str(path), 'CPU', how)

    def run(image: Image) -> Image:
        lq = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255
        sr = compiled(lq)[0][0].clip(0, 1).transpose(1, 2, 0)
        return (sr * 255).round().astype(np.uint8)

    return run


def photo(size: str) -> Image:
    """Return a random smooth image of a size WxH."""
    width, height = map(int, size.split('x'))
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def resident_growth(case: Case, args: argparse.Namespace) -> int:
    """Return by how much a fresh process grows at most, upscaling once."""
    run = build(case.way, case.scale, args)
    run(photo('{1}x{0}'.format(*WARM_UP)))
    reset_process_peak()
    before = process_peak()
    run(photo(case.size))
    return process_peak() - before


def ways(args: argparse.Namespace) -> list[str]:
    """Return the ways that can be measured here."""
    missing = [] if find_spec('openvino') else [OPENVINO, OPENVINO_BF16, OPENVINO_INT8]
    missing += [] if args.calibrate else [INT8, OPENVINO_INT8]
    return [way for way in WAYS if way not in missing and (way == BASICSR or not args.ways or way in args.ways)]


def measure(scale: int, args: argparse.Namespace) -> Iterator[list[Case]]:
    """Measure all ways at a scale, size after size."""
    write_files(scale, args)
    order = random.Random(0)
    runs = {way: build(way, scale, args) for way in ways(args)}
    for size in args.sizes:
        cases, image = [Case(way, scale, size) for way in runs], photo(size)
        expected = runs[BASICSR](image).astype(int)
        for case in cases:
            if sys.platform == 'linux':
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as process:
                    case.peak_bytes = process.submit(resident_growth, case, args).result()
            case.difference = float(np.abs(runs[case.way](image) - expected).max())
        for _ in range(args.repeats):
            order.shuffle(cases)
            for case in cases:
                keep_freed_memory(case.way != BASICSR)
                case.seconds.append(seconds(lambda case=case, image=image: runs[case.way](image), CPU))
        yield sorted(cases, key=lambda case: WAYS.index(case.way))


def ratio(case: Case, cases: list[Case]) -> float:
    """Return how many times as fast as BasicSR's a way is, among those of its scale and size: a median of repeats."""
    (basicsr,) = (other for other in cases if other.way == BASICSR)
    return statistics.median(its / mine for mine, its in zip(case.seconds, basicsr.seconds, strict=True))


def describe_case(case: Case, cases: list[Case]) -> dict[str, Any]:
    """Return a case and what its seconds come to."""
    width, height = (int(side) * case.scale for side in case.size.split('x'))
    speed = width * height / 1e6 / statistics.median(case.seconds)
    return {**asdict(case), 'megapixels_per_s': speed, 'x_basicsr': ratio(case, cases)}


def mean_psnr(run: Run, pairs: str, scale: int) -> float:
    """Return the mean PSNR on Y over the images of HR:LR, paired by their order."""
    from basicsr.metrics import calculate_psnr  # noqa: PLC0415

    folders = [sorted(path for path in Path(part).iterdir() if path.suffix == '.png') for part in pairs.split(':')]
    values = []
    for hr, lr in zip(*folders, strict=True):
        gt, lq = cv2.imread(str(hr)), cv2.imread(str(lr))
        assert gt is not None and lq is not None
        sr = run(np.ascontiguousarray(lq[..., ::-1], np.uint8))[..., ::-1]
        height, width = sr.shape[:2]
        values.append(calculate_psnr(sr, gt[:height, :width], crop_border=scale, test_y_channel=True))
    return float(np.mean(values))


def find_bars(rows: list[dict[str, Any]], psnr: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold the ratios against the bars that the project has set itself."""
    bars = []
    for scale, size in dict.fromkeys((row['scale'], row['size']) for row in rows):
        here = [row for row in rows if (row['scale'], row['size']) == (scale, size)]
        by_way = {row['way']: row['x_basicsr'] for row in here}
        equal = [row['x_basicsr'] for row in here if row['difference'] <= 1 and row['way'] in IN_FP32]
        found = [('default', by_way.get(DEFAULT), 1.0), ('fastest equal to fp32', max(equal, default=None), 1.25)]
        found.append(('bf16', by_way.get(BF16), 2.0))
        bars += [
            {'bar': f'x{scale}, {size}: {name}, x BasicSR', 'limit': limit, 'measured': value, 'met': value >= limit}
            for name, value, limit in found
            if value is not None
        ]
    for row in psnr:
        if row['way'] == INT8:
            bar = f'{row["set"]}: int8, dB of fp32'
            bars.append({'bar': bar, 'limit': -0.1, 'measured': row['change'], 'met': row['change'] >= -0.1})  # noqa: PLR2004
    return bars


def print_machine(where: dict[str, Any]) -> None:
    """Print what is measured on, and the head of the first table, as Markdown."""
    print(
        f'torch {where["torch"]}, {where["cpu"]}, {where["cores"]} cores ({where["instructions"]}, load '
        f'{where["load"]:.1f}), {where["threads"]} threads, {where["repeats"]} repeats: `{where["command"]}`\n'
    )
    print('| scale | input | way | MP/s | x BasicSR | peak MiB | largest difference |')
    print('| --- | --- | --- | ---: | ---: | ---: | ---: |', flush=True)


def print_case(row: dict[str, Any]) -> None:
    """Print a row of the first table."""
    print(
        f'| x{row["scale"]} | {row["size"]} | {row["way"]} | {row["megapixels_per_s"]:.3f} | '
        f'{row["x_basicsr"]:.3f} | {row["peak_bytes"] / 2**20:,.0f} | {row["difference"]:.0f} |',
        flush=True,
    )


def print_rest(report: dict[str, Any]) -> None:
    """Print the other tables."""
    if report['psnr']:
        print('\n| set | way | PSNR on Y | change |\n| --- | --- | ---: | ---: |')
        for row in report['psnr']:
            print(f'| {row["set"]} | {row["way"]} | {row["psnr"]:.4f} | {row["change"]:+.4f} |')
    print('\n| bar | at least | measured | |\n| --- | ---: | ---: | --- |')
    for bar in report['bars']:
        print(f'| {bar["bar"]} | {bar["limit"]} | {bar["measured"]:.3f} | {"met" if bar["met"] else "not met"} |')


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Speed and memory of the ways to run a trained network on a CPU.')
    parser.add_argument('--scales', nargs='+', type=int, default=[2, 4])
    parser.add_argument('--sizes', nargs='+', default=list(SIZES), metavar='WxH', help='of the input')
    parser.add_argument('--model', help="weights, of one of the scales; default random ones of the paper's student")
    parser.add_argument('--width', type=int, default=64, help='channels of random weights')
    parser.add_argument('--blocks', type=int, default=16, help='blocks of random weights')
    parser.add_argument('--ways', nargs='+', choices=WAYS, metavar='WAY', help='some of the ways alone')
    parser.add_argument('--tile', type=int, help='of the Upscaler; default its own')
    parser.add_argument('--repeats', type=int, default=5, help='timed turns of each way')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--calibrate', type=Path, metavar='FOLDER', help='photos to make int8 by; without, no int8')
    parser.add_argument('--psnr', nargs='+', default=[], metavar='HR:LR', help='folders to measure PSNR on')
    parser.add_argument('--json', type=Path, help='write every number to this file')
    return parser.parse_args()


def main() -> None:
    """Measure, print the tables, write the JSON."""
    args = parse()
    torch.set_num_threads(args.threads)
    if args.model:
        args.scales = [Upscaler(args.model, gpu=False).scale]
    command = shlex.join(['python', *sys.argv])
    where = {
        'torch': torch.__version__,
        'cpu': cpu_name(),
        'instructions': torch.backends.cpu.get_cpu_capability(),
        'cores': len(os.sched_getaffinity(0)),
        'load': os.getloadavg()[0],
        'threads': args.threads,
        'repeats': args.repeats,
        'command': command,
    }
    with tempfile.TemporaryDirectory() as folder:
        args.folder = folder
        print_machine(where)
        rows: list[dict[str, Any]] = []
        for cases in (cases for scale in args.scales for cases in measure(scale, args)):
            rows += [describe_case(case, cases) for case in cases]
            for row in rows[-len(cases) :]:
                print_case(row)
        psnr: list[dict[str, Any]] = []
        for pairs in args.psnr:
            fp32 = 0.0
            for way in (BASICSR, BF16, *([INT8] if args.calibrate else [])):
                value = mean_psnr(build(way, args.scales[0], args), pairs, args.scales[0])
                fp32 = fp32 or value
                psnr.append({'set': pairs.split(':')[0], 'way': way, 'psnr': value, 'change': value - fp32})
    report = {'machine': where, 'cases': rows, 'psnr': psnr, 'bars': find_bars(rows, psnr)}
    print_rest(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2, default=str) + '\n')


if __name__ == '__main__':
    main()
