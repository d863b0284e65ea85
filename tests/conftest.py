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

pytest_plugins = ('helpers.benchmarks', 'helpers.data_command', 'helpers.tiny_models')

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))  # the tests are of this checkout, whatever is installed

import basicsr_clsd  # noqa: E402, F401  (makes basicsr importable for the test files)

IMPORTED_BY_COMMANDS = (
    'basicsr_clsd.engine.trainer',
    'basicsr_clsd.evaluation.benchmark',
    'basicsr_clsd.inference.folder',
    'basicsr_clsd.deploy.onnx_file',
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
def run_program(command_server: CommandServer) -> Callable[..., Ended]:
    """``run_program('infer', *arguments, cwd=FOLDER)``: runs ``basicsr_clsd/infer.py ARGUMENTS`` to its end.

    Further keywords are those of ``command_server.arrange``.
    """

    def run(command: str, *arguments: str | Path, cwd: Path, **accident: Any) -> Ended:
        argv = [str(REPO / 'basicsr_clsd' / f'{command}.py'), *map(str, arguments)]
        return command_server.run([{'argv': argv, 'cwd': str(cwd), 'env': {**os.environ}, 'accident': accident}])[0]

    return run


@pytest.fixture(scope='session')
def run_command(command_server: CommandServer) -> Callable[..., Ended]:
    """``run_command('train', opt, *arguments)``: runs ``basicsr_clsd/train.py -opt OPT ...`` to its end.

    Keywords: ``env`` (the whole environment), ``cwd`` (default the folder of the options file), ``fresh`` (start a new
    interpreter, seconds slower), and those of ``command_server.arrange``.
    """

    def run(
        command: str,
        opt: Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        fresh: bool = False,
        **accident: Any,
    ) -> Ended:
        argv = [str(REPO / 'basicsr_clsd' / f'{command}.py'), '-opt', str(opt), *arguments]
        cwd, env = cwd or opt.parent, env or os.environ
        if not fresh:
            process = {'argv': argv, 'cwd': str(cwd), 'env': dict(env), 'accident': accident}
            return command_server.run([process])[0]
        ended = subprocess.run(
            [sys.executable, *argv], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    return run


@pytest.fixture(scope='session')
def run_script(command_server: CommandServer) -> Callable[..., Ended]:
    """``run_script('compare', *arguments)``: runs ``scripts/compare.py ...`` to its end."""

    def run(name: str, *arguments: object) -> Ended:
        argv = [str(REPO / 'scripts' / f'{name}.py'), *map(str, arguments)]
        return command_server.run([{'argv': argv, 'cwd': str(REPO), 'env': dict(os.environ), 'accident': {}}])[0]

    return run


@pytest.fixture(scope='session')
def run_processes(command_server: CommandServer) -> Callable[..., list[Ended]]:
    """``run_processes('train', opt, count, *arguments)``: runs a command in several processes as torchrun starts them.

    Keywords: ``slurm`` (as srun starts them), and for the process of rank 1 alone those of ``command_server.arrange``;
    ``everywhere`` is such an accident of all.
    """

    def run(
        command: str,
        opt: Path,
        count: int,
        *arguments: str,
        slurm: bool = False,
        everywhere: Mapping[str, Any] | None = None,
        **accident: Any,
    ) -> list[Ended]:
        with socket.create_server(('127.0.0.1', 0)) as server:
            address = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(server.getsockname()[1])}
        argv = [str(REPO / 'basicsr_clsd' / f'{command}.py'), '-opt', str(opt), *arguments]
        processes = []
        for rank in range(count):
            numbers = {'RANK': rank, 'LOCAL_RANK': rank, 'WORLD_SIZE': count}
            if slurm:
                numbers = {'SLURM_PROCID': rank, 'SLURM_LOCALID': rank, 'SLURM_NTASKS': count, 'SLURM_NODELIST': 'here'}
            env = {**os.environ, **address, **{name: str(value) for name, value in numbers.items()}}
            launcher = ['--launcher', 'slurm' if slurm else 'pytorch']
            happens = {**(everywhere or {}), **(accident if rank == 1 else {})}
            processes.append({'argv': argv + launcher, 'cwd': str(opt.parent), 'env': env, 'accident': happens})
        return command_server.run(processes)

    return run


@pytest.fixture(scope='session')
def run_train(run_command: Callable[..., Ended]) -> Callable[..., Ended]:
    """``run_train(opt, *arguments)``: runs the training command to its end; keywords as for ``run_command``."""

    def run(opt: Path, *arguments: str, **how: Any) -> Ended:
        return run_command('train', opt, *arguments, **how)

    return run
