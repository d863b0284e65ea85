"""Time and memory of the contrastive loss against two plain ways to write it, forward and backward.

    python benchmarks/contrastive_loss.py --repeats 9 --threads 2 --sizes 96 192 --device cpu

Rows: the project's loss; a double loop over the pairs of images; broadcasting to N x N x D. The methods take turns
within each repeat, so that whatever else the machine does falls on all of them; compare the ratios. Memory is the
highest sum of tensors alive at once beyond those before the forward, gradients of the heads included: on a CPU counted
from every allocation that torch's profiler records (the process's resident size would add code pages and whatever the
C library keeps), on CUDA by torch's caching allocator. The last two columns compare with the double loop in fp64.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from basicsr_clsd.losses import ContrastiveLoss

EPS = 1e-7
Loss = Callable[[Tensor, Sequence[Tensor]], Tensor]


def double_loop(sr: Tensor, head_srs: Sequence[Tensor]) -> Tensor:
    """Equation 5 pair by pair."""
    total = sr.new_zeros(())
    for head_sr in head_srs:
        for i in range(len(sr)):
            negative = sr.new_zeros(())
            for k in range(len(sr)):
                if k != i:
                    negative = negative + (sr[i] - head_sr[k]).abs().mean() + (head_sr[i] - head_sr[k]).abs().mean()
            total = total + (sr[i] - head_sr[i]).abs().mean() / (negative + EPS)
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


METHODS: dict[str, Loss] = {
    'ContrastiveLoss': ContrastiveLoss(eps=EPS),
    'double loop': double_loop,
    'broadcasting': broadcasting,
}


def make_images(batch: int, heads: int, size: int, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """Return a student's output and outputs of heads that are near it, (batch, 3, size, size) each."""
    generator = torch.Generator().manual_seed(0)
    sr = torch.rand(batch, 3, size, size, generator=generator)
    noise = [0.02 * torch.randn(sr.shape, generator=generator) for _ in range(heads)]
    return sr.to(device), [(sr + one).to(device).requires_grad_() for one in noise]


def run(method: Loss, sr: Tensor, head_srs: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """Forward and backward: the loss and its gradient for each head."""
    loss = method(sr, head_srs)
    return loss.detach(), torch.autograd.grad(loss, head_srs)


def seconds(method: Loss, sr: Tensor, head_srs: Sequence[Tensor]) -> float:
    """Time one forward and backward."""
    start = time.perf_counter()
    run(method, sr, head_srs)
    if sr.is_cuda:
        torch.cuda.synchronize(sr.device)
    return time.perf_counter() - start


def peak_bytes(method: Loss, sr: Tensor, head_srs: Sequence[Tensor]) -> int:
    """Return the largest size of tensors alive at once in a forward and backward, beyond those alive before."""
    if sr.is_cuda:
        torch.cuda.synchronize(sr.device)
        torch.cuda.reset_peak_memory_stats(sr.device)
        before = torch.cuda.memory_allocated(sr.device)
        run(method, sr, head_srs)
        return torch.cuda.max_memory_allocated(sr.device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(method, sr, head_srs)
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]  (negative where freed)
        peak = max(peak, alive)
    return peak


def differences(method: Loss, sr: Tensor, head_srs: Sequence[Tensor]) -> tuple[float, float]:
    """Return the relative difference of loss and gradient (largest entry against largest) to the fp64 double loop."""
    doubles = [head_sr.detach().double().requires_grad_() for head_sr in head_srs]
    expected, expected_grads = run(double_loop, sr.double(), doubles)
    loss, grads = run(method, sr, head_srs)
    of_grads = [
        (grad - expected_grad).abs().max() / expected_grad.abs().max()
        for grad, expected_grad in zip(grads, expected_grads, strict=True)
    ]
    return ((loss - expected).abs() / expected.abs()).item(), max(of_grads, key=Tensor.item).item()


def compare(size: int, args: argparse.Namespace) -> None:
    """Print the table's rows for one size of the HR patch."""
    sr, head_srs = make_images(args.batch, args.heads, size, torch.device(args.device))
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    for method in METHODS.values():
        run(method, sr, head_srs)  # warm-up
    for _ in range(args.repeats):
        for name, method in METHODS.items():
            times[name].append(seconds(method, sr, head_srs))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, method in METHODS.items():
        megabytes = peak_bytes(method, sr, head_srs) / 2**20
        loss, grad = differences(method, sr, head_srs)
        faster = medians['double loop'] / medians[name]
        print(
            f'{size:>4}  {name:<16}{1000 * medians[name]:>10.1f}{1000 * min(times[name]):>10.1f}{faster:>9.1f}'
            f'{megabytes:>11.1f}{loss:>11.1e}{grad:>11.1e}'
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

    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # the profiler's own messages
    torch.set_num_threads(args.threads)
    print(
        f'torch {torch.__version__}, {args.device}, {args.threads} threads, batch {args.batch}, {args.heads} heads, '
        f'{args.repeats} repeats'
    )
    print('  HR  method           median ms    min ms  speed-up   extra MiB  loss diff  grad diff')
    for size in args.sizes:
        compare(size, args)


if __name__ == '__main__':
    main()
