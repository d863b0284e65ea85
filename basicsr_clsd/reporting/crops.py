"""Crops of one image by every method, as the paper's Fig. 4."""

from collections.abc import Mapping

import cv2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.crops import Box, crop_psnr, in_color
from basicsr_clsd.evaluation.metrics import Image
from basicsr_clsd.reporting.figures import STYLE

BOX_COLOR = '#e6007e'


def crop_figure(name: str, gt: Image, outputs: Mapping[str, Image], box: Box) -> Figure:
    """The image with the box, and the crops of every method and of HR.

    Under each crop stands its PSNR on Y in dB, the crop's own, without a border cut off; the best in bold.

    Args:
        name: What the image is called.
        gt: HR, BGR or gray, uint8.
        outputs: By method, of HR's size.
        box: Where to look.

    Raises:
        UserError: The box does not lie in the image.
    """
    height, width = gt.shape[:2]
    if min(box) < 0 or min(box.width, box.height) < 1 or box.left + box.width > width or box.top + box.height > height:
        raise UserError(f'--box {" ".join(map(str, box))}: not within {name}, which is {width}x{height}')
    gt, outputs = in_color(gt), {method: in_color(image) for method, image in outputs.items()}
    values = {method: crop_psnr(box.of(image), box.of(gt)) for method, image in outputs.items()}
    best = max(values.values())
    crops = {**{method: box.of(image) for method, image in outputs.items()}, 'HR': box.of(gt)}
    columns = -(-len(crops) // 2) if len(crops) > 3 else len(crops)  # noqa: PLR2004
    rows = -(-len(crops) // columns)
    side = 1.9
    left = 0.75 * side * rows * min(width / height, 1.6)  # for orientation only, so it may be smaller
    with mpl.rc_context({**STYLE, 'axes.grid': False}):
        figure = Figure(figsize=(left + side * columns * box.width / box.height, rows * (side + 0.42)))
        FigureCanvasAgg(figure)
        figure.set_layout_engine('constrained', w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
        grid = figure.add_gridspec(rows, columns + 1, width_ratios=[left, *[side * box.width / box.height] * columns])
        whole = figure.add_subplot(grid[:, 0])
        _draw(whole, gt, name, interpolation='antialiased')
        whole.add_patch(Rectangle((box.left - 0.5, box.top - 0.5), box.width, box.height, fill=False, color=BOX_COLOR))
        for number, (method, crop) in enumerate(crops.items()):
            axis = figure.add_subplot(grid[number // columns, number % columns + 1])
            value = values.get(method)
            weight = 'bold' if value is not None and f'{value:.2f}' == f'{best:.2f}' else 'normal'
            _draw(axis, crop, method if value is None else f'{method}\n{value:.2f} dB', weight)
    return figure


def _draw(axis: Axes, image: Image, caption: str, weight: str = 'normal', interpolation: str = 'nearest') -> None:
    axis.imshow(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), interpolation=interpolation)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_xlabel(caption, fontsize=9, weight=weight)
    for spine in axis.spines.values():
        spine.set_visible(False)
