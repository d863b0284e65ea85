"""The training steps that are timed: of each method, of BasicSR's SRModel, and a plain convolution."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from paper_times import TEACHERS
from torch import nn

from basicsr_clsd.config import Options, check, load
from basicsr_clsd.config.paths import SHIPPED_OPTIONS
from basicsr_clsd.engine.build import build_model

BASICSR, CONVOLUTION = 'BasicSR', 'convolution'
# The options of each method; BasicSR gets the same file as EDSR.
METHODS = {
    'EDSR': 'train_EDSR_x{}.yml',
    'ASR': 'train_ASR_x{}.yml',
    'DS': 'train_DS_x{}.yml',
    'DS_hint': 'train_DS_hint_x{}.yml',
    'BYOT': 'train_BYOT_x{}.yml',
    'CLSD': 'train_CLSD_x{}.yml',
    'FitNet': 'train_FitNet_x{}.yml',
    'FAKD': 'train_FAKD_x{}.yml',
    'LFD': 'train_LFD_x{}.yml',
    'LSFD': 'train_LSFD_x{}.yml',
    'CSD': 'train_CSD_x{}.yml',
    'CSD_16': 'train_CSD_16_x{}.yml',
    'AugKD': 'train_AugKD_x{}.yml',
    'FACD': 'train_FACD_x{}.yml',
    'PISR': 'train_PISR_x{}.yml',
    'PISR_init': 'train_PISR_init_x{}.yml',
    'EDSR_L': 'teacher/train_EDSR_L_x{}.yml',
    'PISR_teacher': 'teacher/train_PISR_teacher_x{}.yml',
}
# Those whose teacher runs in each step; PISR_init only starts from its teacher's weights.
TAUGHT = {method: teacher for method, teacher in TEACHERS.items() if method != 'PISR_init'}
# The same code at next to no memory; two images, as the contrastive loss compares them.
TINY = ['network_g:num_feat=4', 'datasets:train:gt_size=24', 'datasets:train:batch_size_per_gpu=2']
CSD_NEGATIVES = 10  # as many as its batch of 16 has; fewer images have as many negatives as images
Step = Callable[[], None]


def method_options(method: str, setting: str, args: argparse.Namespace, extra: Sequence[str] = ()) -> Options:
    """Load the options of a method in a setting."""
    file = METHODS['EDSR' if method == BASICSR else method]
    precision, *switches = setting.split('+')
    overrides = [f'train:tf32={str(precision == "tf32").lower()}']
    overrides += [f'train:precision={"fp32" if precision == "tf32" else precision}']
    overrides += [f'train:{switch}=true' for switch in switches]
    overrides += [f'num_gpu={int(args.device == "cuda")}', f'datasets:train:batch_size_per_gpu={args.batch}', *extra]
    if method in TAUGHT:
        size = 'tiny' if extra is TINY else 'full'
        overrides += [f'path:pretrain_network_teacher={args.folder}/{size}_{TAUGHT[method]}.pth']
        within = 'decoder:' if TAUGHT[method] == 'PISR_teacher' else ''
        overrides += [f'network_teacher:{within}num_feat=4'] if extra is TINY else []
    if method == 'PISR_teacher' and extra is TINY:
        overrides += ['network_g:num_feat=null', 'network_g:decoder:num_feat=4']
    if method in ('PISR', 'PISR_init'):
        overrides += ['path:pretrain_network_g=null']
    if method == 'AugKD' and extra is TINY:
        overrides += [f'datasets:train:gt_size={4 * args.scale**2}']  # zooms out
    if method.startswith('CSD'):
        negatives = min(CSD_NEGATIVES, 2 if extra is TINY else args.batch)
        overrides += ['path:pretrain_network_teacher=null', 'train:contrast_opt:vgg_weights=random']
        overrides += [f'train:contrast_opt:num_negative={negatives}']
    options = load(SHIPPED_OPTIONS / file.format(args.scale), overrides)
    check(options)
    return options


def write_teachers(args: argparse.Namespace) -> None:
    """Write weights for the teachers of the methods that have one."""
    from basicsr.archs import build_network  # noqa: PLC0415

    for method in set(args.methods) & set(TAUGHT):
        for extra in ((), TINY):
            options = method_options(method, 'fp32', args, extra)
            path = Path(str(options.path.pretrain_network_teacher))
            if options.network_teacher is not None and not path.exists():
                network = build_network(options.network_teacher.as_dict())
                torch.save({'params': network.state_dict()}, path)


def build_step(method: str, setting: str, args: argparse.Namespace, extra: Sequence[str] = ()) -> Step:
    """Build what is timed, with a batch; return its step."""
    if method == CONVOLUTION:
        return build_convolution(setting, args)
    from basicsr.models.sr_model import SRModel  # noqa: PLC0415  (basicsr_clsd makes BasicSR importable)

    options = method_options(method, setting, args, extra)
    torch.manual_seed(0)
    theirs = {**options.as_dict(), 'is_train': True, 'dist': False}
    model = SRModel(theirs) if method == BASICSR else build_model(options)
    section = options.datasets['train']
    assert section.gt_size is not None
    sides = {'lq': section.gt_size // options.scale, 'gt': section.gt_size}
    batch = {name: torch.rand(section.batch_size_per_gpu, 3, side, side) for name, side in sides.items()}
    if args.device == 'cuda':
        batch = {name: images.pin_memory() for name, images in batch.items()}

    def step() -> None:
        model.feed_data(batch)
        model.optimize_parameters(1)

    return step


def build_convolution(setting: str, args: argparse.Namespace) -> Step:
    """Build a large plain convolution; return its forward and backward, for input and weights."""
    precision, *switches = setting.split('+')
    dtype = {'bf16': torch.bfloat16, 'fp16': torch.float16}.get(precision, torch.float32)
    memory_format = torch.channels_last if 'channels_last' in switches else torch.contiguous_format
    side = 128 if args.device == 'cuda' else 48  # enough to fill a GPU; seconds on a CPU
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(args.device, dtype).to(memory_format=memory_format)
    images = torch.rand(args.batch, 256, side, side).to(args.device, dtype).to(memory_format=memory_format)
    gradient = torch.ones_like(images)
    images.requires_grad_()

    def step() -> None:
        images.grad = layer.weight.grad = None
        layer(images).backward(gradient)

    return step
