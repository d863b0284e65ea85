"""Trainings by train.py's own command, on random photos."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from basicsr_clsd.config.paths import SHIPPED_OPTIONS
from basicsr_clsd.data.stores import FolderStore
from basicsr_clsd.engine.records import FILE, TrainRow, read_rows
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.prepare.lmdb_build import build_raw_lmdb
from gpu_parts.rows import Check

TRAIN = Path(__file__).resolve().parents[3] / 'basicsr_clsd' / 'train.py'
SCALE = 4


def write_photos(check: Check) -> Path:
    """Write random photos and their LR images, once; return a folder with `HR.lmdb` and `LR.lmdb` of raw pixels."""
    root, (height, width) = check.folder / 'photos', (1356, 2040) if check.on_gpu else (96, 128)
    rng = np.random.default_rng(0)
    for number in range(8):
        coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3)).astype(np.uint8)
        photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        for name, image, suffix in (('HR', photo, ''), ('LR', matlab_resize(photo, 1 / SCALE), f'x{SCALE}')):
            (root / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / name / f'{number}{suffix}.png'), image)
    for name in ('HR', 'LR'):
        build_raw_lmdb(FolderStore(root / name), root / f'{name}.lmdb')
    return root


def command(check: Check, photos: Path, name: str, method: str, changes: Sequence[str] = ()) -> list[str]:
    """The arguments of train.py for a method's shipped options."""
    data = [f'datasets:train:dataroot_gt={photos}/HR.lmdb', f'datasets:train:dataroot_lq={photos}/LR.lmdb']
    where = [f'name={name}', f'path:experiments_root={check.folder}/experiments', f'path:tb_root={check.folder}/tb']
    options = [*data, *where, *check.size, f'num_gpu={check.gpus if check.on_gpu else 0}', 'datasets:val=null']
    return ['-opt', str(SHIPPED_OPTIONS / f'train_{method}_x{SCALE}.yml'), '--force_yml', *options, *changes]


def run(
    arguments: Sequence[str], check: Check, stop: Callable[[], bool] = lambda: False, launcher: Sequence[str] = ()
) -> int:
    """Run train.py, or what a launcher starts, and send SIGTERM when it is time; return its exit code.

    Raises:
        RuntimeError: It failed; with its last line.
    """
    log = log_file(check)
    with log.open('w') as file:
        process = subprocess.Popen(
            [sys.executable, *(launcher or [str(TRAIN)]), *arguments], stdout=file, stderr=subprocess.STDOUT
        )
        try:
            told = False
            while process.poll() is None:
                if not told and stop():
                    process.terminate()
                    told = True
                time.sleep(0.01)
        finally:
            process.kill()
            process.wait()
    if process.returncode not in (0, 143):
        lines = log.read_text().strip().splitlines()
        raise RuntimeError(f'train.py ended with {process.returncode}: {lines[-1] if lines else ""}')
    return process.returncode


def log_file(check: Check) -> Path:
    """What the last training has printed."""
    return check.folder / 'log'


def root_of(name: str, check: Check) -> Path:
    """The folder of a training."""
    return check.folder / 'experiments' / name


def train_rows(name: str, check: Check) -> list[TrainRow]:
    """What a training has recorded so far."""
    path = root_of(name, check) / FILE
    return [row for row in read_rows(path) if isinstance(row, TrainRow)] if path.exists() else []


def last_state(name: str, check: Check) -> dict[str, Any]:
    """The last state of a training."""
    states = (root_of(name, check) / 'training_states').glob('*.state')
    return torch.load(max(states, key=lambda path: int(path.stem)), map_location='cpu', weights_only=True)
