r"""PSNR, speed and size of trained students in each runtime and precision, on one core.

    python scripts/benchmarks/devices.py -m small_EDSR_x2 experiments/small_ECBSR_x2/models/net_g_latest.pth \
        --calibrate datasets/BSDS400 --psnr datasets/Set5/HR/x2:datasets/Set5/LRbicx2 --json FILE --figure PNG

Each student is exported to each format as `export.py` does, and what is measured is what the files hold. The process is
bound to one core. Inference of an image, arrays in and out, is timed in turns, in an order drawn anew each time;
ratios to onnxruntime in fp32 are medians, over the repeats, of those within a repeat.
- **PSNR**: mean on Y, of outputs rounded to 8 bits; a border of the scale is cut.
- **MB**: of the exported file, or pair of files. OpenVINO reads the ONNX file; in bf16 it is that of fp32.
What a runtime cannot take is said, and has no row.
"""

import argparse
import json
import os
import random
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import torch
from measuring import cpu_name, seconds
from rich.console import Console

from basicsr_clsd.conversion.ncnn import NcnnModel
from basicsr_clsd.deploy import devices, int8, writers
from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.loader import load
from basicsr_clsd.inference.runtimes import ExecutorchProgram, NcnnNetwork, OnnxruntimeModel, OpenvinoModel, Run
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.networks.check import LUMA
from basicsr_clsd.networks.zoo import model_file
from basicsr_clsd.runtime.hardware import computes_bf16

CPU = torch.device('cpu')
PLAIN, REFERENCE = 'torch fp32', 'onnxruntime fp32'
MARKS = {'fp32': 'o', 'bf16': 's', 'int8': '^'}
WAYS = (PLAIN, 'torch bf16', 'ncnn fp32', 'ExecuTorch fp32', REFERENCE, 'onnxruntime int8')
WAYS += ('OpenVINO fp32', 'OpenVINO int8', 'OpenVINO bf16')
OPSET = 20
INT8_OPENVINO = 'int8_openvino'


@dataclass
class Row:
    """A student in a runtime and a precision."""

    student: str
    way: str
    bytes: int
    psnr: dict[str, float] = field(default_factory=dict)  # dB on Y, by set
    seconds: list[float] = field(default_factory=list)


class Student:
    """A trained network, and its files in a folder."""

    def __init__(self, model: str, folder: Path, calibrate: Path | None) -> None:
        self.source = model_file(model)
        network = load(self.source, gpu=False)
        assert isinstance(network, TorchNetwork)
        self.network, self.folder, self.calibrate = network, folder, calibrate
        self.name = writers.default_name(network, self.source)

    def onnx(self, kind: str) -> Path:
        """Export to ONNX once: in fp32, or in int8 for a runtime."""
        path = self.folder / f'{self.name}_{kind}.onnx'
        if not path.exists():
            what = self.calibrate if self.calibrate and kind != 'fp32' else 'fp32'
            header = writers.header_of(self.network, self.source)
            for_openvino = kind == INT8_OPENVINO
            writers.write_onnx(self.network, path, header, what, OPSET, Console(stderr=True), for_openvino)
        return path

    def by_torch(self, precision: str) -> tuple[Run, Sequence[Path]]:
        """The network itself, and its weights as BasicSR has them."""
        path = self.folder / f'{self.name}.pth'
        writers.write_basicsr(self.network, path)
        network = self.network.in_precision(precision)
        return lambda lq: network.upscale(torch.from_numpy(lq)).numpy(), [path]

    def by_ncnn(self) -> tuple[Run, Sequence[Path]]:
        """The pair of `export.py ncnn`."""
        path = self.folder / f'{self.name}.param'
        devices.write_ncnn(self.network, path, half=False)
        weights = path.with_suffix('.bin')
        return NcnnNetwork(NcnnModel(path.read_text('utf-8'), weights.read_bytes())), [path, weights]

    def by_executorch(self) -> tuple[Run, Sequence[Path]]:
        """The program of `export.py executorch`."""
        path = self.folder / f'{self.name}.pte'
        devices.write_executorch(self.network, path)
        return ExecutorchProgram(path.read_bytes()), [path]

    def ways(self, wanted: Sequence[str]) -> dict[str, Callable[[], tuple[Run, Sequence[Path]]]]:
        """How to open it in the wanted runtimes and precisions, and in the one that all are compared with."""
        found: dict[str, Callable[[], tuple[Run, Sequence[Path]]]] = {
            PLAIN: lambda: self.by_torch('fp32'),
            'torch bf16': lambda: self.by_torch('bf16'),
            'ncnn fp32': self.by_ncnn,
            'ExecuTorch fp32': self.by_executorch,
        }
        found[REFERENCE] = lambda: (OnnxruntimeModel(self.onnx('fp32')), [self.onnx('fp32')])
        if self.calibrate:
            found['onnxruntime int8'] = lambda: (OnnxruntimeModel(self.onnx('int8')), [self.onnx('int8')])
        found['OpenVINO fp32'] = lambda: (OpenvinoModel(self.onnx('fp32')), [self.onnx('fp32')])
        if self.calibrate:
            found['OpenVINO int8'] = lambda: (OpenvinoModel(self.onnx(INT8_OPENVINO)), [self.onnx(INT8_OPENVINO)])
        found['OpenVINO bf16'] = lambda: (OpenvinoModel(self.onnx('fp32'), 'bf16'), [self.onnx('fp32')])
        return {
            way: how
            for way, how in found.items()
            if (way == REFERENCE or way in wanted) and (not way.endswith('bf16') or computes_bf16(0))
        }


def read_samples(pairs: str, channels: int) -> list[int8.Sample]:
    """Read HR:LR, paired by their order, as a network of RGB or of luma takes them."""
    folders = [sorted(path for path in Path(part).iterdir() if path.suffix == '.png') for part in pairs.split(':')]
    samples = []
    for paths in zip(*folders, strict=True):
        gt, lq = (np.asarray(cv2.imread(str(path)), np.uint8) for path in paths)
        lq = lq.astype(np.float32) / 255
        if channels == LUMA:
            from basicsr.utils import bgr2ycbcr  # noqa: PLC0415  (basicsr_clsd makes BasicSR importable)

            lq = bgr2ycbcr(lq, y_only=True)[..., None]
            gt = bgr2ycbcr(gt, y_only=True)[..., None].astype(np.uint8)
        samples.append(int8.Sample(lq[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32, order='C'), gt))
    return samples


def measure(student: Student, args: argparse.Namespace) -> list[Row]:
    """Measure a student in all ways."""
    runs: dict[str, Run] = {}
    rows = []
    for way, how in student.ways(args.ways).items():
        try:
            runs[way], files = how()
        except UserError as error:
            print(f'{student.name}, {way}: {error}', file=sys.stderr)
            continue
        rows.append(Row(student.name, way, sum(file.stat().st_size for file in files)))
    width, height = map(int, args.size.split('x'))
    image = np.random.default_rng(0).random((1, student.network.channels, height, width), np.float32)
    sets = {pairs: read_samples(pairs, student.network.channels) for pairs in args.psnr}
    for row in rows:
        row.psnr = {name_of(pairs): int8.mean_psnr(runs[row.way], sets[pairs], student.network.scale) for pairs in sets}
    order = random.Random(0)
    turns = list(rows)
    for _ in range(args.repeats):
        order.shuffle(turns)
        for row in turns:
            row.seconds.append(seconds(lambda row=row: runs[row.way](image), CPU))
    return rows


def name_of(pairs: str) -> str:
    """Return a set's name, the folder above its HR images: Set5 of .../Set5/HR/x2."""
    hr, _ = pairs.split(':')
    return next(part for part in reversed(Path(hr).parts) if part not in ('HR', 'x2', 'x3', 'x4'))


def described(row: Row, rows: Sequence[Row], pixels: float) -> dict[str, Any]:
    """Return a row and what its seconds come to."""
    (reference,) = (other for other in rows if other.way == REFERENCE)
    ratio = statistics.median(its / mine for mine, its in zip(row.seconds, reference.seconds, strict=True))
    speed = pixels / 1e6 / statistics.median(row.seconds)
    return {**asdict(row), 'megapixels_per_s': speed, 'x_onnxruntime': ratio}


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print a student's table as Markdown."""
    sets = list(rows[0]['psnr'])
    print(f'\n{rows[0]["student"]}\n')
    print(f'| runtime | MP/s | ms | x onnxruntime fp32 | {" | ".join(sets)} | MB |')
    print(f'| --- |{" ---: |" * (4 + len(sets))}')
    for row in rows:
        psnr = ' | '.join(f'{row["psnr"][name]:.3f}' for name in sets)
        print(
            f'| {row["way"]} | {row["megapixels_per_s"]:.2f} | {1e3 * statistics.median(row["seconds"]):.1f} | '
            f'{row["x_onnxruntime"]:.2f} | {psnr} | {row["bytes"] / 1e6:.3f} |',
            flush=True,
        )


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw PSNR on the last set against speed."""
    mpl.use('Agg')
    from matplotlib import pyplot as plt  # noqa: PLC0415  (after its backend is chosen)

    name = list(rows[0]['psnr'])[-1]
    figure, axes = plt.subplots(figsize=(7, 4), layout='constrained')
    runtimes = list(dict.fromkeys(row['way'].split()[0] for row in rows))
    for row in rows:
        runtime, kind = row['way'].split()
        how = {'color': f'C{runtimes.index(runtime)}', 'marker': MARKS[kind], 's': 45, 'alpha': 0.85, 'linewidths': 0}
        axes.scatter(row['megapixels_per_s'], row['psnr'][name], **how)
    for student in dict.fromkeys(row['student'] for row in rows):
        mine = [row for row in rows if row['student'] == student]
        left, top = min(row['megapixels_per_s'] for row in mine), max(row['psnr'][name] for row in mine)
        axes.annotate(student, (left, top), (0, 8), textcoords='offset points', fontsize=9)
    for number, runtime in enumerate(runtimes):
        axes.scatter([], [], color=f'C{number}', label=runtime)
    for kind, mark in MARKS.items():
        axes.scatter([], [], color='gray', marker=mark, label=kind)
    axes.set(xscale='log', xlabel='megapixels of output per second, one core', ylabel=f'PSNR on {name}, dB')
    axes.margins(y=0.15)
    axes.grid(alpha=0.3, which='both')
    axes.legend(fontsize=8, loc='center left', bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='PSNR, speed and size of students in each runtime, on one core.')
    parser.add_argument('-m', '--models', nargs='+', required=True, help='weights, or names in the model zoo')
    parser.add_argument(
        '--ways', nargs='+', choices=WAYS, default=list(WAYS), metavar='WAY', help='some alone, beside onnxruntime fp32'
    )
    parser.add_argument('--size', default='320x240', metavar='WxH', help='of the input')
    parser.add_argument('--repeats', type=int, default=9, help='timed turns of each way')
    parser.add_argument('--calibrate', type=Path, metavar='FOLDER', help='photos to make int8 by; without, no int8')
    parser.add_argument('--psnr', nargs='+', required=True, metavar='HR:LR', help='folders to measure PSNR on')
    parser.add_argument('--json', type=Path, help='write every number to this file')
    parser.add_argument('--figure', type=Path, metavar='PNG', help='draw PSNR, on the last set, against speed')
    return parser.parse_args()


def main() -> None:
    """Measure, print the tables, write the JSON and the figure."""
    args = parse()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    machine = {'cpu': cpu_name(), 'torch': torch.__version__, 'command': shlex.join(['python', *sys.argv])}
    print(f'{machine["cpu"]}, torch {machine["torch"]}: `{machine["command"]}`')
    width, height = map(int, args.size.split('x'))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            student = Student(model, Path(folder), args.calibrate)
            found = measure(student, args)
            pixels = width * height * student.network.scale**2
            mine = [described(row, found, pixels) for row in found]
            print_rows(mine)
            rows += mine
    if args.json:
        args.json.write_text(json.dumps({'machine': machine, 'rows': rows}, indent=2) + '\n')
    if args.figure:
        draw(rows, args.figure)


if __name__ == '__main__':
    main()
