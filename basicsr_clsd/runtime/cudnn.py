"""How convolutions and products are computed on an NVIDIA GPU: their rounding, and whether alike each time.

Elsewhere these flags of torch's have no effect. TensorFloat-32 rounds what is multiplied to 10 bits of mantissa, on
GPUs of compute capability 8 or more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# torch does not tell type checkers of them.
CUDNN: Any = torch.backends.cudnn
MATMUL: Any = torch.backends.cuda.matmul


def set_up(*, tf32: bool, deterministic: bool, benchmark: bool) -> None:
    """Choose for this process.

    Args:
        tf32: Convolve in TensorFloat-32. Products of matrices stay in fp32, as in torch and BasicSR.
        deterministic: Choose among kernels that give the same bits each time.
        benchmark: Try kernels out, and take the fastest for each size of image.
    """
    CUDNN.deterministic, CUDNN.benchmark = deterministic, benchmark
    CUDNN.allow_tf32, MATMUL.allow_tf32 = tf32, False


@contextmanager
def inference(tf32: bool = False) -> Iterator[None]:
    """Compute in fp32, or convolve in TensorFloat-32, and try no kernels out, as each image has another size."""
    before = CUDNN.allow_tf32, MATMUL.allow_tf32, CUDNN.benchmark
    CUDNN.allow_tf32, MATMUL.allow_tf32, CUDNN.benchmark = tf32, False, False
    try:
        yield
    finally:
        CUDNN.allow_tf32, MATMUL.allow_tf32, CUDNN.benchmark = before
