"""Time and memory of the contrastive loss against plain ways to write it, forward and backward.

    python benchmarks/contrastive_loss.py --repeats 9 --threads 2 --sizes 96 192 --device cpu

Rows: the project's loss; a double loop over the pairs of images, indexing the batch for each pair; the same with the
batch taken apart once (indexing costs a batch of zeros per pair in the backward); broadcasting to N x N x D.
The methods take turns within each repeat, so that whatever else the machine does falls on all of them; the ratio of
the medians is what to compare. Extra memory is the peak of one forward and backward, the heads' gradients included,
beyond what was there before: on a CPU the growth of the peak resident size of a fresh process that has already run
the method on tiny images (so it includes what the C library's allocator keeps), on CUDA that of allocated memory.
The last two columns compare with the double loop in fp64.
"""

import argparse
import functools
import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import torch
from measuring import seconds
from torch import Tensor

from basicsr_clsd.losses import ContrastiveLoss
from basicsr_clsd.runtime.memory import process_peak

EPS = 1e-7
Loss = Callable[[Tensor, Sequence[Tensor]], Tensor]


def double_loop(sr: Tensor, head_srs: Sequence[Tensor], unbind: bool = False) -> Tensor:
    """Equation 5 pair by pair."""
    total = sr.new_zeros(())
    student = sr.unbind() if unbind else sr
    for head_sr in head_srs:
        head = head_sr.unbind() if unbind else head_sr
        for i in range(len(student)):
            negative = sr.new_zeros(())
            for k in range(len(student)):
                if k != i:
                    negative = negative + (student[i] - head[k]).abs().mean() + (head[i] - head[k]).abs().mean()
            total = total + (student[i] - head[i]).abs().mean() / (negative + EPS)
    return total


def broadcasting(sr: Tensor, head_srs: Sequence[Tensor]) -> Tensor:
    """Equation 5 with all pairs of a head in one tensor."""
    total = sr.new_zeros(())
    other = 1 - torch.eye(len(sr), dtype=sr.dtype, device=sr.device)
    for head_sr in head_srs:
        cross = (sr[:, None] - head_sr).abs().mean((2, 3, 4))
        intra = (head_sr[:, None] - head_sr).abs().mean((2, 3, 4))
        total = total + (cross.diagonal() / (((cross + intra) * other).sum(1) + EPS)).sum()
    return total


OURS = 'ContrastiveLoss'
METHODS: dict[str, Loss] = {
    OURS: ContrastiveLoss(eps=EPS),
    'double loop, indexed': double_loop,
    'double loop, unbound': functools.partial(double_loop, unbind=True),
    'broadcasting': broadcasting,
}


def make_images(batch: int, heads: int, size: int, device: str) -> tuple[Tensor, list[Tensor]]:
    """Return a student's output and outputs of heads that are near it, (batch, 3, size, size) each."""
    generator = torch.Generator().manual_seed(0)
    sr = torch.rand(batch, 3, size, size, generator=generator)
    # In place: memory of temporaries, freed but kept, would hide that much of what a method takes.
    heads_noise = [torch.randn(sr.shape, generator=generator).mul_(0.02) for _ in range(heads)]
    return sr.to(device), [noise.add_(sr).to(device).requires_grad_() for noise in heads_noise]


def run(method: Loss, sr: Tensor, head_srs: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """Forward and backward: the loss and its gradient for each head."""
    loss = method(sr, head_srs)
    return loss.detach(), torch.autograd.grad(loss, head_srs)


def extra_bytes(name: str, size: int, args: argparse.Namespace) -> int:
    """Return the peak memory of one forward and backward, beyond that before it."""
    if torch.device(args.device).type == 'cuda':
        sr, head_srs = make_images(args.batch, args.heads, size, args.device)
        torch.cuda.reset_peak_memory_stats(sr.device)
        before = torch.cuda.memory_allocated(sr.device)
        run(METHODS[name], sr, head_srs)
        return torch.cuda.max_memory_allocated(sr.device) - before
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as process:
        return process.submit(resident_growth, name, size, args).result()


def resident_growth(name: str, size: int, args: argparse.Namespace) -> int:
    """Return by how many bytes a forward and backward raises the peak resident size of this, a fresh process."""
    torch.set_num_threads(args.threads)
    run(METHODS[name], *make_images(2, 1, 8, args.device))
    sr, head_srs = make_images(args.batch, args.heads, size, args.device)
    before = process_peak()
    run(METHODS[name], sr, head_srs)
    return process_peak() - before


def differences(method: Loss, sr: Tensor, head_srs: Sequence[Tensor]) -> tuple[float, float]:
    """Return the relative difference of loss and gradient (largest entry against largest) to the fp64 double loop."""
    doubles = [head_sr.detach().double().requires_grad_() for head_sr in head_srs]
    expected, expected_grads = run(METHODS['double loop, unbound'], sr.double(), doubles)
    loss, grads = run(method, sr, head_srs)
    of_grads = [
        (grad - expected_grad).abs().max() / expected_grad.abs().max()
        for grad, expected_grad in zip(grads, expected_grads, strict=True)
    ]
    return ((loss - expected).abs() / expected.abs()).item(), max(of_grad.item() for of_grad in of_grads)


def compare(size: int, args: argparse.Namespace) -> None:
    """Print the table's rows for one size of the HR patch."""
    sr, head_srs = make_images(args.batch, args.heads, size, args.device)
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    for method in METHODS.values():
        run(method, sr, head_srs)  # warm-up
    for _ in range(args.repeats):
        for name, method in METHODS.items():
            times[name].append(seconds(functools.partial(run, method, sr, head_srs), sr.device))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, method in METHODS.items():
        loss, grad = differences(method, sr, head_srs)
        extra = extra_bytes(name, size, args) / 2**20
        print(
            f'{size:>4}  {name:<20}{1000 * medians[name]:>11.1f}{1000 * min(times[name]):>10.1f}'
            f'{medians[name] / medians[OURS]:>8.1f}{extra:>11.1f}{loss:>11.1e}{grad:>11.1e}'
        )


def main() -> None:
    """Print the comparison for each size."""
    parser = argparse.ArgumentParser(description='Time and memory of the contrastive loss, forward and backward.')
    parser.add_argument('--repeats', type=int, default=9, help='timed runs of each method')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help="torch's threads on the CPU")
    parser.add_argument('--sizes', type=int, nargs='+', default=[96, 192], help='sides of the HR patch in pixels')
    parser.add_argument('--batch', type=int, default=16, help='images in the batch')
    parser.add_argument('--heads', type=int, default=3, help='heads of the student')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1, ...')
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    print(
        f'torch {torch.__version__}, {args.device}, {args.threads} threads, batch {args.batch}, {args.heads} heads, '
        f'{args.repeats} repeats'
    )
    print('  HR  method                median ms    min ms  x ours  extra MiB  loss diff  grad diff')
    for size in args.sizes:
        compare(size, args)


if __name__ == '__main__':
    main()
