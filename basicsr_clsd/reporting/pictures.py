"""Pictures that compare methods by eye."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from basicsr_clsd.evaluation.metrics import Image
from basicsr_clsd.reporting.crops import crop_psnr, in_color, most_detailed
from basicsr_clsd.runtime.files import write_bytes

CROP = 64  # side of a crop in HR pixels
MOST_IMAGES = 4


class Comparison:
    """Crops of several images, one row each: every method's and HR, with the crop's PSNR on Y."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, dict[str, Image], Image]] = []

    @classmethod
    def joined(cls, parts: Sequence['Comparison'], names: Sequence[str]) -> 'Comparison':
        """The rows of several as one, in the order of ``names``."""
        whole = cls()
        rows = sorted((row for part in parts for row in part._rows), key=lambda row: names.index(row[0]))
        whole._rows = rows[:MOST_IMAGES]
        return whole

    def add(self, name: str, outputs: dict[str, Image], gt: Image) -> None:
        """Add a row, up to four: the crop of the image that has the most detail in HR.

        Args:
            name: Shown beside the row.
            outputs: By method, BGR uint8 of HR's shape.
            gt: HR, BGR uint8.
        """
        if len(self._rows) < MOST_IMAGES:
            gt, outputs = in_color(gt), {method: in_color(image) for method, image in outputs.items()}
            box = most_detailed(gt, CROP)
            self._rows.append((name, {method: box.of(image) for method, image in outputs.items()}, box.of(gt)))

    def write(self, path: Path) -> None:
        """Draw the rows and write a PNG."""
        columns = len(self._rows[0][1]) + 1
        figure = Figure(figsize=(2.4 * columns, 2.7 * len(self._rows)), dpi=100, layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(self._rows), columns, squeeze=False)
        for row, (name, crops, gt) in zip(axes, self._rows, strict=True):
            row[0].set_ylabel(name)
            for axis, (method, crop) in zip(row, [*crops.items(), ('HR', gt)], strict=True):
                axis.imshow(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB), interpolation='nearest')
                axis.set_xticks([])
                axis.set_yticks([])
                axis.set_title(method if crop is gt else f'{method}  {crop_psnr(crop, gt):.2f} dB', fontsize=9)
        content = io.BytesIO()
        figure.savefig(content, format='png')
        write_bytes(content.getvalue(), path)
