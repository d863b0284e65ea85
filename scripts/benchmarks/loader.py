"""Patches per second, CPU time per patch and memory per worker: this project's storages beside BasicSR's data set.

    python benchmarks/loader.py --photos 8 --repeats 3 --seconds 0.5 --scales 2 4 --patches 96 192 --workers 0 2
    python benchmarks/loader.py --data PHOTOS

The images are smooth random photos of 2040x1356 pixels, or the first ones of a folder, and the 480x480 sub-images that
BasicSR's users cut from photos. Both are stored as files, as BasicSR's PNG LMDB and as an LMDB of raw pixels; LR images
are MATLAB's bicubic. Read are random training patches of HR and LR, flipped and transposed, in collated batches that
end as float32 in [0, 1] in the main process, where this project's bytes are converted as in its model. BasicSR's
``PairedImageDataset`` reads the same PNG LMDB and the same files.

Every measurement has a process of its own; the methods take turns within each repeat, so that whatever else the machine
does falls on all of them, and the medians of CPU time are what to compare: patches per second and core is one over it.
Memory is proportional (PSS: what processes share is divided among them); its anonymous part is what a worker holds,
its mapped part is the system's cache of the files, which is given up when others need it.
"""

import argparse
import contextlib
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler

from basicsr_clsd.data import PairedDataset
from basicsr_clsd.data.sampler import PatchBatches, PositionBatchSampler
from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.prepare.lmdb_build import build_png_lmdb, build_raw_lmdb

PHOTO, SUB = (1356, 2040), 480
RAW, PNG, FILES = 'raw LMDB', 'PNG LMDB', 'files'
FOLDERS = {RAW: 'raw', PNG: 'png', FILES: 'files'}
OURS, THEIRS = 'this project', 'BasicSR'
SUBS, PHOTOS = '480x480 sub-images', 'whole photos'
TICKS = os.sysconf('SC_CLK_TCK')
# Bars: patches per second and core from raw pixels at HR patch 96, against BasicSR's reading of these.
BAR_PATCH = 96
BARS = {SUBS: (PNG, 40), PHOTOS: (FILES, 200)}
GROWTH_BAR = 1.0  # MiB that a worker may hold more of the largest set than of the smallest


class Case(NamedTuple):
    """What is measured."""

    images: str
    reader: str
    storage: str
    scale: int
    patch: int
    workers: int


# Data


def make_data(root: Path, args: argparse.Namespace) -> None:
    """Write ``root/IMAGES/STORAGE/{HR,LRbicxS}`` for sub-images and photos, as files and LMDBs."""
    for number, photo in enumerate(photos(args)):
        height, width = (side // 12 * 12 for side in photo.shape[:2])
        write(root / PHOTOS, f'{number:04}', photo[:height, :width], args.scales)
        for top in range(0, height - SUB + 1, SUB):
            for left in range(0, width - SUB + 1, SUB):
                sub = photo[top : top + SUB, left : left + SUB]
                write(root / SUBS, f'{number:04}_{top:04}_{left:04}', sub, args.scales)
    for images in (SUBS, PHOTOS):
        for folder in sorted((root / images / FOLDERS[FILES]).iterdir()):
            for storage, build in ((RAW, build_raw_lmdb), (PNG, build_png_lmdb)):
                build(FolderStore(folder), root / images / FOLDERS[storage] / f'{folder.name}.lmdb')


def photos(args: argparse.Namespace) -> Iterator[np.ndarray]:
    """The photos: uint8, (H, W, 3), BGR."""
    if args.data is not None:
        store = FolderStore(args.data)
        large = [name for name in store.names() if min(store.size(name)) >= SUB]
        yield from (store.read(name) for name in large[: args.photos])
        return
    rng, (height, width) = np.random.default_rng(0), PHOTO
    for _ in range(args.photos):
        coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3)).astype(np.uint8)
        yield cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def write(root: Path, name: str, hr: np.ndarray, scales: list[int]) -> None:
    """Write an HR image and its LR images as PNG files."""
    for folder, image in (('HR', hr), *((f'LRbicx{scale}', matlab_resize(hr, 1 / scale)) for scale in scales)):
        path = root / FOLDERS[FILES] / folder / f'{name}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)


# Measuring


def options(root: Path, case: Case) -> dict[str, Any]:
    """BasicSR's options of a training set."""
    suffix = '' if case.storage == FILES else '.lmdb'
    folder = root / case.images / FOLDERS[case.storage]
    roots = {'dataroot_gt': f'{folder}/HR{suffix}', 'dataroot_lq': f'{folder}/LRbicx{case.scale}{suffix}'}
    backend = {'type': 'lmdb' if case.storage == PNG else 'disk'}
    training = {'phase': 'train', 'scale': case.scale, 'gt_size': case.patch, 'use_hflip': True, 'use_rot': True}
    return {**roots, **training, 'io_backend': backend}


def batches(root: Path, case: Case, batch: int, names: list[str] | None = None) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of float32 images without end."""
    workers = {'num_workers': case.workers, 'multiprocessing_context': 'fork' if case.workers else None}
    if case.reader == THEIRS:
        from basicsr.data.paired_image_dataset import PairedImageDataset  # noqa: PLC0415

        theirs = PairedImageDataset(options(root, case))
        sampler = RandomSampler(theirs, replacement=True, num_samples=10**7)
        yield from DataLoader(theirs, batch_size=batch, sampler=sampler, **workers)
        return
    ours = PairedDataset({**options(root, case), 'names': names})
    order = PositionBatchSampler(images=len(ours), enlarge=100, batch_size=batch, first=0, last=10**7, seed=0)
    white = torch.tensor(255.0)
    for bytes_of in DataLoader(PatchBatches(ours, seed=0), sampler=order, batch_size=None, **workers):
        yield {key: bytes_of[key].to(torch.float32).div_(white) for key in ('lq', 'gt')}


def measure(root: Path, case: Case, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds and CPU seconds per patch, after the first batches; to be called in a fresh process."""
    stream = batches(root, case, args.batch)
    for _ in range(1 + case.workers):
        next(stream)
    count, start, cpu = 0, time.perf_counter(), cpu_seconds()
    while count < 1 + case.workers or time.perf_counter() - start < args.seconds:
        next(stream)
        count += 1
    patches = count * args.batch
    return (time.perf_counter() - start) / patches, (cpu_seconds() - cpu) / patches


def cpu_seconds() -> float:
    """CPU time of this process and of its workers so far."""
    total = time.process_time()
    for worker in multiprocessing.active_children():
        fields = Path(f'/proc/{worker.pid}/stat').read_text().rpartition(')')[2].split()
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def memory(root: Path, case: Case, args: argparse.Namespace, names: list[str]) -> tuple[float, float, float]:
    """MiB of a worker that has read every image: PSS, its anonymous part, its mapped part; the mean over workers."""
    stream = batches(root, case, args.batch, names)
    for _ in range(max(20, 4 * len(names) // args.batch)):
        next(stream)
    pids = [worker.pid for worker in multiprocessing.active_children()]
    sums = dict.fromkeys(('Pss', 'Pss_Anon', 'Pss_File'), 0.0)
    for pid in pids:
        for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
            name, _, rest = line.partition(':')
            if name in sums:
                sums[name] += int(rest.split()[0]) / 1024 / len(pids)
    return sums['Pss'], sums['Pss_Anon'], sums['Pss_File']


def in_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own; return what it returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('fork')) as process:
        return process.submit(function, *arguments).result()


# Tables


def compare(root: Path, scale: int, patch: int, workers: int, args: argparse.Namespace) -> list[str]:
    """Print the rows of one setting; return how it stands with the bars."""
    readers = [(OURS, RAW), (OURS, PNG), (OURS, FILES), (THEIRS, PNG), (THEIRS, FILES)]
    cases = [Case(images, *reader, scale, patch, workers) for images in (SUBS, PHOTOS) for reader in readers]
    times: dict[Case, list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(args.repeats):
        for case, taken in times.items():
            taken.append(in_process(measure, root, case, args))
    wall, cpu = ({case: statistics.median(t[part] for t in taken) for case, taken in times.items()} for part in (0, 1))
    for case in cases:
        raw = cpu[case._replace(reader=OURS, storage=RAW)]
        print(
            f'{scale:>3}{patch:>6}{workers:>8}  {case.images:<20}{case.reader:<14}{case.storage:<10}'
            f'{1 / wall[case]:>11.1f}{1e6 * cpu[case]:>13.1f}{cpu[case] / raw:>10.1f}'
        )
    if patch != BAR_PATCH or workers:
        return []
    told = []
    for images, (storage, bar) in BARS.items():
        theirs = Case(images, THEIRS, storage, scale, patch, workers)
        ratio = cpu[theirs] / cpu[theirs._replace(reader=OURS, storage=RAW)]
        what = f'x{scale}, {images}: raw LMDB against {THEIRS} on {storage}, patches/s per core'
        told.append(f'{what}: {ratio:.0f} x, bar {bar} x: {"met" if ratio >= bar else "not met"}')
    return told


def compare_memory(root: Path, scale: int, args: argparse.Namespace) -> str:
    """Print the memory of a worker by the number of images; return how that stands with the bar."""
    print('\nMemory per worker (of 2) in MiB: raw LMDB of sub-images, every image read')
    print('  images  pixels     PSS    held  mapped')
    case = Case(SUBS, OURS, RAW, scale, BAR_PATCH, 2)
    names = [name.removesuffix('.png') for name in FolderStore(root / SUBS / FOLDERS[FILES] / 'HR').names()]
    held = []
    for count in sorted({max(1, len(names) // 8), max(1, len(names) // 2), len(names)}):
        pss, anonymous, mapped = in_process(memory, root, case, args, names[:count])
        held.append(anonymous)
        pixels = count * 3 * SUB**2 * (1 + 1 / scale**2) / 2**20
        print(f'{count:>8}{pixels:>8.0f}{pss:>8.1f}{anonymous:>8.1f}{mapped:>8.1f}')
    growth = held[-1] - held[0]
    verdict = 'met' if growth <= GROWTH_BAR else 'not met'
    return f'memory held by a worker, most images against fewest: {growth:+.1f} MiB, bar {GROWTH_BAR:g} MiB: {verdict}'


def main() -> None:
    """Print the tables, and which bars are met."""
    parser = argparse.ArgumentParser(description='Speed and memory of reading training patches.')
    parser.add_argument('--data', type=Path, help='folder of photos; default: random ones')
    parser.add_argument('--photos', type=int, default=8, help='how many')
    parser.add_argument('--repeats', type=int, default=3, help='measurements of each')
    parser.add_argument('--seconds', type=float, default=0.5, help='least duration of a measurement')
    parser.add_argument('--batch', type=int, default=16, help='patches of a batch')
    parser.add_argument('--scales', type=int, nargs='+', default=[2, 4])
    parser.add_argument('--patches', type=int, nargs='+', default=[96, 192], help='sides of the HR patch')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 2], help='loader processes; 0: none but the main')
    args = parser.parse_args()
    # Per core: no reader may have helpers that another has not.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            make_data(root, args)
        files = list((root / SUBS / FOLDERS[FILES] / 'HR').iterdir())
        size = statistics.mean(path.stat().st_size for path in files) / SUB**2
        print(f'{args.photos} photos, {len(files)} sub-images, {size:.2f} bytes per pixel in PNG; batch {args.batch}')
        print(f'torch {torch.__version__}, OpenCV {cv2.__version__}, {args.repeats} repeats')
        print('  x patch workers  images              reader        storage    patches/s CPU us/patch  x raw CPU')
        told = []
        for scale in args.scales:
            for patch in args.patches:
                for workers in args.workers:
                    told += compare(root, scale, patch, workers, args)
        told.append(compare_memory(root, args.scales[0], args))
        print('\n' + '\n'.join(told))


if __name__ == '__main__':
    main()
