"""B: losses and gradients of the GPU are the CPU's, and each precision rounds as it says."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from contrastive_loss import EPS, double_loop, make_images
from operators import batch_of
from torch import Tensor
from torch.nn import functional as F
from training_steps import method_options, write_teachers

from basicsr_clsd.engine.build import build_model
from basicsr_clsd.losses import ContrastiveLoss
from basicsr_clsd.models import SupervisedModel
from basicsr_clsd.runtime import cudnn
from gpu_parts.rows import Check, Row, at_least, at_most, attempt, exactly, skipped

METHODS = ('EDSR', 'DS', 'CLSD', 'FAKD')
LR_24 = ('datasets:train:gt_size=96',)
NEGATIVES = (('cross',), ('intra',), ('cross', 'intra'), ('simclr',), ('global',))
TF32_CAPABILITY = (8, 0)
# Of the norm of all gradients. They jump where rounding moves a value over the kink of a ReLU or of an L1 loss: with
# the paper's student at LR 24, on one CPU, those of fp32 are 4e-5 (FAKD) to 6e-5 (EDSR, CLSD) from fp64's. Errors of
# 1e-5 in each convolution make it 2e-4, TensorFloat-32 6e-3.
GRADIENT_BAR = 5e-4


def rows(check: Check) -> Iterator[Row]:
    """Every comparison."""
    methods = METHODS if check.on_gpu and not check.quick else ('CLSD',)
    write_teachers(check.settings(4, methods))
    for method in methods:
        yield from attempt(f'{method}: losses and gradients', lambda method=method: compare(method, check))
    for count in (16, 64) if check.on_gpu else (4,):
        yield from attempt(f'L_CS, {count} images', lambda count=count: contrast(count, check))
    yield from attempt('rounding of convolutions', lambda: convolutions(check))
    yield from attempt('upscaling', lambda: upscaling(check))


def build(method: str, setting: str, device: str, check: Check) -> SupervisedModel:
    """A method's model, with the weights that every device gets."""
    cudnn.set_up(tf32=setting == 'tf32', deterministic=True, benchmark=False)
    size = check.size or LR_24
    options = method_options(method, setting, check.settings(4, device=device), size)
    torch.manual_seed(0)
    return build_model(options)


def accumulated(model: SupervisedModel) -> tuple[dict[str, float], Tensor]:
    """The loss terms of a batch, and all gradients as a vector."""
    generator = torch.Generator().manual_seed(0)
    shapes = {name: images.shape for name, images in batch_of(model).items()}
    model.update_learning_rate(1)
    model.feed_data({name: torch.randint(256, s, generator=generator).to(torch.uint8) for name, s in shapes.items()})
    model.accumulate_gradients(1)
    parameters: Mapping[str, Any] = dict(model.net_g.named_parameters())
    gradients = [p.grad.cpu().double().flatten() for p in parameters.values() if p.grad is not None]
    terms = {name: float(value) for name, value in model.log_dict.items() if name.startswith('L_')}
    return terms, torch.cat(gradients)


def worst(terms: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """The largest relative difference of a loss term."""
    return max(abs(terms[name] - value) / max(abs(value), 1e-12) for name, value in reference.items())


def compare(method: str, check: Check) -> Iterator[Row]:
    """A method in each precision, against fp32 on the CPU."""
    terms, gradients = accumulated(build(method, 'fp32', 'cpu', check))
    for setting, bar in (('fp32', 1e-4), ('tf32', 5e-3), ('bf16', 5e-3), ('bf16+channels_last', 5e-3)):
        if setting == 'tf32' and not check.on_gpu:
            continue
        found, its = accumulated(build(method, setting, check.device, check))
        yield at_most(f'{method}, {setting}: loss terms against the CPU', worst(found, terms), bar)
        if setting == 'fp32':
            difference = float((its - gradients).norm() / gradients.norm())
            yield at_most(f'{method}, {setting}: gradients against the CPU', difference, GRADIENT_BAR)
    if not check.on_gpu:
        yield skipped(f'{method}, tf32 and fp16', 'precisions of GPUs')
        return
    model = build(method, 'fp16', check.device, check)
    accumulated(model)
    model.step()
    yield exactly(f'{method}, fp16: steps done', float(model.log_dict['done']), 1)


def contrast(count: int, check: Check) -> Iterator[Row]:
    """L_CS with each choice of negatives, against fp64 on the CPU; the usual one against its definition, too."""
    images, heads = make_images(count, 3, 96 if check.on_gpu else 12, 'cpu')
    for negatives in NEGATIVES:
        loss, name = ContrastiveLoss(negatives=negatives, eps=EPS), '+'.join(negatives)
        results = []
        for device, dtype in (('cpu', torch.float64), (check.device, torch.float32)):
            these = [head.detach().to(device, dtype).requires_grad_() for head in heads]
            value = loss(images.to(device, dtype), these)
            value.backward()
            results.append(
                (float(value), torch.cat([h.grad.flatten().cpu().double() for h in these if h.grad is not None]))
            )
        (exact, right), (found, its) = results
        yield at_most(f'L_CS of {name}, {count} images: value', abs(found - exact) / exact, 1e-5)
        yield at_most(f'L_CS of {name}, {count} images: gradient', float((its - right).norm() / right.norm()), 1e-5)
    with torch.no_grad():
        defined = float(double_loop(images.double(), [head.double() for head in heads]))
        found = float(ContrastiveLoss(eps=EPS)(images.to(check.device), [head.to(check.device) for head in heads]))
    yield at_most(f'L_CS, {count} images: against Eq. 5', abs(found - defined) / defined, 1e-5)


def convolutions(check: Check) -> Iterator[Row]:
    """The error of a convolution against fp64: only that tells whether TensorFloat-32 is truly off, or on."""
    torch.manual_seed(0)
    images, weights = torch.randn(4, 64, 48, 48), torch.randn(64, 64, 3, 3)
    exact = F.conv2d(images.double(), weights.double())

    def error(tf32: bool) -> float:
        cudnn.set_up(tf32=tf32, deterministic=True, benchmark=False)
        found = F.conv2d(images.to(check.device), weights.to(check.device)).cpu().double()
        return float((found - exact).norm() / exact.norm())

    yield at_most('convolution in fp32: error', error(tf32=False), 5e-6)
    if not check.on_gpu or torch.cuda.get_device_capability() < TF32_CAPABILITY:
        yield skipped('convolution in TensorFloat-32: error', 'the device has no TensorFloat-32')
        return
    yield at_least('convolution in TensorFloat-32: error', error(tf32=True), 1e-5)


def upscaling(check: Check) -> Iterator[Row]:
    """Tests and photos are upscaled in fp32, whatever a training before has set."""
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    (reference,) = build('EDSR', 'fp32', 'cpu', check).upscale(image)
    (found,) = build('EDSR', 'tf32', check.device, check).upscale(image)
    yield at_most('upscaling: against the CPU', float((found - reference).norm() / reference.norm()), 1e-5)
