"""How many operators a training step runs on a GPU, and what it copies to and from there; no GPU is needed.

    python scripts/benchmarks/operators.py
    python scripts/benchmarks/operators.py --cases EDSR CLSD --most 10

Two steps of a batch of bytes and the upscaling of an image run on a GPU that is only pretended, see
`pretended_gpu.py`. The second step is counted: `feed_data` and `optimize_parameters`, views left out. Each operator
launches a kernel or more, and where a step has little to compute, as in small networks or on large GPUs, launching
takes longer than computing. Options are those that are shipped; the teacher has 4 channels, which changes no count.
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from pretended_gpu import Record, pretended_gpu
from torch import Tensor

from basicsr_clsd import registry
from basicsr_clsd.config import load
from basicsr_clsd.config.components import Component
from basicsr_clsd.engine.build import build_model
from basicsr_clsd.models import SupervisedModel
from basicsr_clsd.networks.check import channels_of

FP32 = 'train:precision=fp32'  # autocast cannot be pretended
CHANNELS_LAST = 'train:channels_last=true'
CONTRASTIVE = 'train:contrastive_opt:'
EDSR = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 32, 'upscale': 4}
PRIVILEGED = {'type': 'PrivilegedTeacher', 'decoder': {**EDSR, 'num_block': 16}, 'scale': 4}
TEACHERS = {str(section['type']): section for section in (EDSR, PRIVILEGED)}
NARROW = ['network_g:num_feat=4', 'network_teacher:num_feat=8']
# A row of the table: options, and overrides.
CASES: dict[str, tuple[str, list[str]]] = {
    'EDSR': ('EDSR', []),
    'ASR': ('ASR', []),
    'DS': ('DS', []),
    'CLSD': ('CLSD', []),
    'CLSD, 64 images': ('CLSD', ['datasets:train:batch_size_per_gpu=64']),
    'CLSD, channels_last': ('CLSD', [CHANNELS_LAST]),
    'CLSD, EMA, norms of gradients': ('CLSD', ['train:ema_decay=0.999', 'logger:grad_norm_freq=1']),
    'CLSD of Eq. 6': ('CLSD_eq6', []),
    'CLSD, cosine': ('CLSD', [f'{CONTRASTIVE}distance=cosine']),
    'CLSD, simclr': ('CLSD', [f'{CONTRASTIVE}negatives=simclr']),
    'CLSD, attached student': ('CLSD', [f'{CONTRASTIVE}detach_teacher=false']),
    'CLSD, detached negatives': ('CLSD', [f'{CONTRASTIVE}detach_negatives=true']),
    'CLSD on RCAN': ('CLSD_RCAN', []),
    'CLSD on SwinIR': ('CLSD_SwinIR_light', []),
    'CLSD on SRVGG': ('CLSD_SRVGG', []),
    'CLSD on ECBSR': ('CLSD_ECBSR', []),
    'CLSD on MSRResNet': ('CLSD_MSRResNet', []),
    'BYOT': ('BYOT', []),
    'CSD': ('CSD_16', ['train:contrast_opt:vgg_weights=random', 'path:pretrain_network_teacher=null', *NARROW]),
    'FAKD': ('FAKD', []),
    'FitNet': ('FitNet', []),
    'LFD': ('LFD', []),
    'LSFD': ('LSFD', []),
    'AugKD': ('AugKD', []),
    'FACD': ('FACD', []),
    'PISR teacher': ('PISR_teacher', ['network_g:decoder:num_feat=4']),
    'PISR': ('PISR', ['path:pretrain_network_g=null', 'network_g:num_feat=4']),
}


@dataclass
class Row:
    """What a case's step does; with ``error``, why it cannot."""

    case: str
    operators: int = 0
    copies: list[str] = field(default_factory=list)
    upscale_copies: list[str] = field(default_factory=list)
    most: dict[str, int] = field(default_factory=dict)
    error: str | None = None


def write_teachers(folder: Path) -> None:
    """Write weights of narrow teachers."""
    for kind, section in TEACHERS.items():
        network = registry.build('archs', Component.model_validate(section), 'network_teacher')
        torch.save({'params': network.state_dict()}, folder / f'{kind}.pth')


def build(case: str, folder: Path, changes: Sequence[str] = ()) -> SupervisedModel:
    """Build the model of a case, whose teachers are in a folder."""
    method, overrides = CASES[case]
    options = load(f'{"teacher/" * method.endswith("_teacher")}train_{method}_x4.yml', [FP32, *overrides, *changes])
    if options.path.pretrain_network_teacher is not None:
        assert options.network_teacher is not None
        kind = options.network_teacher.type
        options.network_teacher = Component.model_validate(TEACHERS[kind])
        options.path.pretrain_network_teacher = str(folder / f'{kind}.pth')
    return build_model(options)


def batch_of(model: SupervisedModel) -> dict[str, Tensor]:
    """A black batch of bytes, of the size that the options say."""
    section = model.options.datasets['train']
    assert section.gt_size is not None
    sides = {'lq': section.gt_size // model.options.scale, 'gt': section.gt_size}
    count, channels = section.batch_size_per_gpu, channels_of(model.options)
    return {name: torch.zeros(count, channels, side, side, dtype=torch.uint8) for name, side in sides.items()}


def measure(case: str, folder: Path) -> Row:
    """Take two steps and upscale an image."""
    row = Row(case)
    try:
        model = build(case, folder)
        batch = batch_of(model)
        for iteration in (1, 2):
            model.update_learning_rate(iteration)
            with Record() as step:
                model.feed_data(batch)
                model.optimize_parameters(iteration)
        row.operators, row.copies = step.operators.total(), step.copies
        row.most = dict(step.operators.most_common())
        with Record() as upscaling:
            model.upscale(torch.zeros(1, channels_of(model.options), 64, 48))
        row.upscale_copies = upscaling.copies
    except Exception as error:  # a case that cannot be run is a row of its own
        row.error = f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
    return row


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--cases', nargs='+', choices=CASES, default=list(CASES), metavar='CASE', help='rows of the table'
    )
    parser.add_argument('--most', type=int, default=0, metavar='N', help='name the N most frequent operators, too')
    parser.add_argument('--json', action='store_true', help='print rows as JSON')
    args = parser.parse_args()
    warnings.filterwarnings('ignore', message='Accessing the data pointer of FakeTensor')  # torch's own, in copies
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_teachers(folder)
        with pretended_gpu():
            rows = [measure(case, folder) for case in args.cases]
    if args.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        show(rows, args.most)
    sys.exit(any(row.error for row in rows))


def show(rows: Sequence[Row], most: int) -> None:
    """Print the table."""
    print('| case | operators | copies |')
    print('| --- | ---: | ---: |')
    for row in rows:
        print(f'| {row.case} | {f"{row.operators:,}" if row.error is None else row.error} | {len(row.copies)} |')
        for operator, count in list(row.most.items())[:most]:
            print(f'|   {operator} | {count:,} | |')


if __name__ == '__main__':
    main()
