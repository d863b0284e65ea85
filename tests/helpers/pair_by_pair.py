"""Equations 5 and 6 of CLSD written out pair by pair, and images to try them on."""

import itertools

import torch

ALL_NEGATIVES = [('cross',), ('intra',), ('cross', 'intra'), ('simclr',), ('global',)]


def l1(first, second):
    return (first - second).abs().mean()


def cosine(first, second):
    return 1 - (first * second).sum() / (first.square().sum() * second.square().sum()).sqrt()


DISTANCES = {'l1': l1, 'cosine': cosine}


def sum_to_negatives(i, sr, head, negatives, d):
    """The denominator of Eq. 5 for image i, without eps."""
    if negatives == ('global',):
        versions = [(k, image) for images in (sr, head) for k, image in enumerate(images)]
        return sum(d(one, other) for (k, one), (m, other) in itertools.combinations(versions, 2) if k != m)
    total = 0
    for k in range(len(sr)):
        if k != i:
            total = total + (d(sr[i], head[k]) if 'cross' in negatives else 0)
            total = total + (d(head[i], head[k]) if 'intra' in negatives else 0)
            total = total + (d(head[i], sr[k]) + d(head[i], head[k]) if 'simclr' in negatives else 0)
    return total


def plain_loss(sr, head_srs, negatives=('cross', 'intra'), distance='l1', reduction='sum', eps=1e-7):
    """Eq. 5 and 6 as printed: sum over heads and images, pair by pair."""
    d = DISTANCES[distance]
    total = 0
    for head in head_srs:
        ratios = [d(sr[i], head[i]) / (sum_to_negatives(i, sr, head, negatives, d) + eps) for i in range(len(sr))]
        total = total + sum(ratios) / (len(sr) if reduction == 'mean' else 1)
    return total


def make_images(count=4, heads=3, shape=(3, 6, 5), dtype=torch.float64, seed=0, noise=0.1):
    """A student's output and those of heads near it, leaves that ask for a gradient."""
    generator = torch.Generator().manual_seed(seed)
    sr = torch.rand(count, *shape, dtype=dtype, generator=generator)
    head_srs = [sr + noise * torch.randn(sr.shape, dtype=dtype, generator=generator) for _ in range(heads)]
    return sr.requires_grad_(), [head_sr.requires_grad_() for head_sr in head_srs]


def gradients(loss, sr, head_srs):
    """Gradients for sr and each head; zeros where the loss does not depend on one."""
    return torch.autograd.grad(loss, (sr, *head_srs), materialize_grads=True)
