"""What the tests share: tiny image sets, tiny options, and the training command run as a user runs it."""

import os

os.environ['OMP_NUM_THREADS'] = '1'  # before torch is imported; programs that the tests start inherit it

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
import yaml

pytest_plugins = (
    'helpers.benchmarks',
    'helpers.browser',
    'helpers.data_command',
    'helpers.hosts',
    'helpers.luma',
    'helpers.slurm',
    'helpers.tiny_models',
)

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))  # the tests are of this checkout, whatever is installed

import basicsr_clsd  # noqa: E402, F401  (makes basicsr importable for the test files)

IMPORTED_BY_COMMANDS = (
    'basicsr_clsd.engine.trainer',
    'basicsr_clsd.evaluation.benchmark',
    'basicsr_clsd.inference.folder',
    'basicsr_clsd.deploy.writers',
)

torch.set_num_threads(1)


class Ended(NamedTuple):
    """A program that has ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def smooth_image(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A random image (H, W, 3), uint8, with structure that survives shrinking."""
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='session')
def make_images() -> Callable[..., Path]:
    """``make_images(folder, count=4, height=48, width=48, seed=0)``: writes img1.png, ...; returns the folder."""

    def make(folder: Path, count: int = 4, height: int = 48, width: int = 48, seed: int = 0) -> Path:
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        for number in range(1, count + 1):
            assert cv2.imwrite(str(folder / f'img{number}.png'), smooth_image(rng, height, width))
        return folder

    return make


@pytest.fixture(scope='session')
def benchmark_data() -> Path:
    """The folder with ``Set5`` and ``Set14``: ``$CLSD_DATA`` or ``datasets/``; skips the test where they are not."""
    folder = Path(os.environ.get('CLSD_DATA') or REPO / 'datasets')
    for name in ('Set5', 'Set14'):
        if not (folder / name / 'HR').is_dir():
            pytest.skip(f'{name} is not in {folder}')
    return folder


@pytest.fixture(scope='session')
def make_pairs(make_images: Callable[..., Path]) -> Callable[..., tuple[Path, Path]]:
    """``make_pairs(folder, scale=2, **sizes of make_images)``: writes ``HR`` and ``LR`` in it; returns both folders."""

    def make(folder: Path, scale: int = 2, **sizes: int) -> tuple[Path, Path]:
        hr, lr = make_images(folder / 'HR', **sizes), folder / 'LR'
        lr.mkdir()
        for path in hr.iterdir():
            image = cv2.imread(str(path))
            assert image is not None
            size = (image.shape[1] // scale, image.shape[0] // scale)
            assert cv2.imwrite(str(lr / path.name), cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        return hr, lr

    return make


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested values with changes, key by key; a change of ``None`` takes a key out."""
    result = deepcopy(dict(values))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = deepcopy(value)
    return result


@pytest.fixture(scope='session')
def tiny_options() -> Callable[..., dict[str, Any]]:
    """``tiny_options(folder, changes={})``: options of a CLSD training of a second, to be changed key by key.

    x2, a student of 2 blocks and 8 channels, one head; data in ``folder/train`` and ``folder/val`` as ``make_pairs``
    writes them; runs in ``folder/experiments``.
    """

    def options(folder: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        tiny = {
            'name': 'tiny',
            'model_type': 'CLSDModel',
            'scale': 2,
            'num_gpu': 0,
            'manual_seed': 7,
            'network_g': {
                'type': 'EDSRHeads',
                'num_feat': 8,
                'num_block': 2,
                'upscale': 2,
                'head_taps': [1],
                'head_num_block': 1,
            },
            'datasets': {
                'train': {
                    'name': 'Train',
                    'type': 'PairedDataset',
                    'dataroot_gt': str(folder / 'train' / 'HR'),
                    'dataroot_lq': str(folder / 'train' / 'LR'),
                    'gt_size': 16,
                    'num_worker_per_gpu': 0,
                    'batch_size_per_gpu': 2,
                },
                'val': {
                    'name': 'Val',
                    'type': 'PairedDataset',
                    'dataroot_gt': str(folder / 'val' / 'HR'),
                    'dataroot_lq': str(folder / 'val' / 'LR'),
                },
            },
            'path': {
                'experiments_root': str(folder / 'experiments'),
                'results_root': str(folder / 'results'),
                'tb_root': str(folder / 'tb_logger'),
            },
            'train': {
                'optim_g': {'type': 'Adam', 'lr': 1e-3, 'betas': [0.9, 0.999]},
                'scheduler': {'type': 'MultiStepLR', 'milestones': [6], 'gamma': 0.5},
                'total_iter': 8,
                'pixel_opt': {'type': 'L1Loss', 'loss_weight': 0.5},
                'aux_opt': {'type': 'L1Loss', 'loss_weight': 0.5},
                'contrastive_opt': {'type': 'ContrastiveLoss', 'loss_weight': 10},
            },
            'val': {'val_freq': 4, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 2}}},
            'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False},
        }
        return merged(tiny, changes or {})

    return options


@pytest.fixture(scope='session')
def write_yaml() -> Callable[[Path, Mapping[str, Any]], Path]:
    """``write_yaml(path, values)``: writes an options file; returns its path."""

    def write(path: Path, values: Mapping[str, Any]) -> Path:
        path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding='utf-8')
        return path

    return write


class CommandServer:
    """Runs commands without their seconds of imports; see ``command_server.py``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(REPO / 'tests' / 'helpers' / 'command_server.py'), *IMPORTED_BY_COMMANDS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, processes: list[dict[str, Any]]) -> list[Ended]:
        """Run processes, each with ``argv``, ``cwd``, ``env`` and ``accident``, together to their ends."""
        streams = [[self.folder / f'{name}{number}' for name in ('out', 'err')] for number in range(len(processes))]
        job = [
            {**process, 'out': str(out), 'err': str(err)}
            for process, (out, err) in zip(processes, streams, strict=True)
        ]
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + '\n')
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, 'the server ended: a command cannot be imported'
        texts = [[path.read_text(encoding='utf-8', errors='replace') for path in pair] for pair in streams]
        return [Ended(code, out, err) for code, (out, err) in zip(json.loads(answer), texts, strict=True)]


@pytest.fixture(scope='session')
def command_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandServer]:
    server = CommandServer(tmp_path_factory.mktemp('commands'))
    yield server
    server.process.communicate()


@pytest.fixture(scope='session')
def run_command(command_server: CommandServer) -> Callable[..., Any]:
    """``run_command('train', '-opt', opt, ...)``: runs ``basicsr_clsd/train.py`` with these arguments to its end.

    Keywords:
        cwd: Working folder; default that of the options file after ``-opt``, else the repository.
        env: The whole environment.
        accident: What happens on the way, see ``command_server.arrange``; of several processes to that of rank 1.
        processes: How many, as torchrun starts them; a list of how they ended is returned.
        slurm: They are started as srun does.
        everywhere: An accident of all processes.
        fresh: Start a new interpreter, seconds slower, and without accidents.

    A script is named by its folder: ``scripts/compare``.
    """

    def run(
        name: str,
        *arguments: object,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        accident: Mapping[str, Any] | None = None,
        processes: int | None = None,
        slurm: bool = False,
        everywhere: Mapping[str, Any] | None = None,
        fresh: bool = False,
    ) -> Ended | list[Ended]:
        folder = REPO if '/' in name else REPO / 'basicsr_clsd'
        argv = [str(folder / f'{name}.py'), *map(str, arguments)]
        if cwd is None:
            cwd = Path(argv[argv.index('-opt') + 1]).parent if '-opt' in argv else REPO
        env = {**(env or os.environ)}
        if fresh:
            ended = subprocess.run(
                [sys.executable, *argv], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
            )
            return Ended(ended.returncode, ended.stdout, ended.stderr)
        job = {'argv': argv, 'cwd': str(cwd), 'env': env, 'accident': dict(accident or {})}
        if processes is None:
            return command_server.run([job])[0]
        job['argv'] += ['--launcher', 'slurm' if slurm else 'pytorch']
        return command_server.run(
            [
                {
                    **job,
                    'env': {**env, **places},
                    'accident': {**(everywhere or {}), **(job['accident'] if rank == 1 else {})},
                }
                for rank, places in enumerate(places_of(processes, slurm))
            ]
        )

    return run


def places_of(processes: int, slurm: bool) -> list[dict[str, str]]:
    """What torchrun, or srun, tells each process in its environment."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        address = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(server.getsockname()[1])}
    if slurm:
        address |= {'SLURM_NTASKS': str(processes), 'SLURM_NODELIST': 'here'}
        names = ('SLURM_PROCID', 'SLURM_LOCALID')
    else:
        address |= {'WORLD_SIZE': str(processes)}
        names = ('RANK', 'LOCAL_RANK')
    return [{**address, **dict.fromkeys(names, str(rank))} for rank in range(processes)]
