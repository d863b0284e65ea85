"""Time of MATLAB's bicubic against BasicSR's ``imresize`` on one image.

    python benchmarks/matlab_resize.py --repeats 9 --threads 1 --size 1356 2040

Both take the same image, in 8 bits and in float32 (which BasicSR's own scripts use), and shrink it; at the last scale
they enlarge it. They take turns within each repeat, so that whatever else the machine does falls on both; the ratio of
the medians is what to compare. "Differ" is the share of values that differ by more than rounding between the two, for
floats and with the border rule that BasicSR has.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch

from basicsr_clsd.images.matlab_resize import matlab_resize

BAR = 3.0  # times as fast as BasicSR on 8-bit images
TOLERANCE = 1e-4  # of floats in [0, 1]: BasicSR computes in float32


def smooth_image(height: int, width: int) -> np.ndarray:
    """A random image (H, W, 3), uint8, with structure larger than a pixel."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.uint8)


def seconds(resize: Callable[..., np.ndarray], image: np.ndarray, scale: float) -> float:
    """Time one resize."""
    start = time.perf_counter()
    resize(image, scale)
    return time.perf_counter() - start


def main() -> None:
    """Print the comparison for each scale and type of value."""
    parser = argparse.ArgumentParser(description="Time of MATLAB's bicubic against BasicSR's imresize.")
    parser.add_argument('--repeats', type=int, default=9, help='timed runs of each')
    parser.add_argument('--threads', type=int, default=1, help="threads of torch (BasicSR's products) and of OpenCV")
    parser.add_argument('--size', type=int, nargs=2, default=[1356, 2040], help='height and width of the image')
    parser.add_argument('--scales', type=float, nargs='+', default=[1 / 2, 1 / 3, 1 / 4, 2], help='factors')
    args = parser.parse_args()
    from basicsr.utils.matlab_functions import imresize  # noqa: PLC0415  (basicsr_clsd makes BasicSR importable)

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)

    height, width = args.size
    print(f'{width}x{height} RGB, {args.threads} threads, {args.repeats} repeats; bar for uint8: {BAR:g} x')
    print(' scale  type     BasicSR ms   ours ms   ratio   differ')
    image = smooth_image(height, width)
    for scale in args.scales:
        for values in (image, (image / 255).astype(np.float32)):
            times: dict[Callable, list[float]] = {imresize: [], matlab_resize: []}
            floats = values if values.dtype == np.float32 else (values / 255).astype(np.float32)
            difference = np.abs(imresize(floats, scale) - matlab_resize(floats, scale, border='symmetric'))
            matlab_resize(values, scale)  # warm-up
            for _ in range(args.repeats):
                for resize, taken in times.items():
                    taken.append(seconds(resize, values, scale))
            theirs, ours = (1000 * statistics.median(taken) for taken in times.values())
            bar = '' if values.dtype != np.uint8 else '  met' if theirs / ours >= BAR else '  not met'
            print(
                f'{scale:>6.3f}  {values.dtype.name:<8}{theirs:>11.1f}{ours:>10.1f}{theirs / ours:>8.1f}'
                f'{(difference > TOLERANCE).mean():>9.0%}{bar}'
            )


if __name__ == '__main__':
    main()
