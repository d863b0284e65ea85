"""The curves of a run, in TensorBoard and Weights & Biases."""

import importlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from basicsr.utils import get_root_logger

from basicsr_clsd.config import Options
from basicsr_clsd.errors import UserError, first_line
from basicsr_clsd.evaluation.metrics import Image
from basicsr_clsd.runtime.files import write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

GRAY_PLANES = 2  # dimensions of a gray image


class Curves:
    """Draws a run's values and images, or nothing if there is no writer.

    Args:
        writer: TensorBoard's writer; see :func:`open_curves`.
    """

    def __init__(self, writer: 'SummaryWriter | None' = None) -> None:
        self._writer = writer

    def scalars(self, group: str, values: Mapping[str, float], iteration: int) -> None:
        """Draw values by name, each as ``group/name``."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f'{group}/{name}', value, iteration)

    def image(self, name: str, image: Image, iteration: int) -> None:
        """Draw an image: (H, W, 3) BGR or gray (H, W), uint8."""
        if self._writer is not None:
            gray = image.ndim == GRAY_PLANES
            pixels, axes = (image, 'HW') if gray else (image[..., ::-1], 'HWC')
            self._writer.add_image(name, pixels, iteration, dataformats=axes)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()


def check_curves(options: Options) -> None:
    """Raise a :class:`UserError` if curves were asked for and cannot be drawn."""
    if options.logger.use_tb_logger:
        _tensorboard()


def open_curves(options: Options, folder: Path, root: Path, iteration: int) -> Curves:
    """Begin or go on drawing, as the section ``logger`` asks.

    Args:
        options: Checked options.
        folder: Where TensorBoard's files go.
        root: The folder of the run, where the ID for Weights & Biases is kept.
        iteration: Iteration that the run goes on from; what was drawn after it is dropped.
    """
    if not options.logger.use_tb_logger:
        return Curves()
    if options.logger.wandb.project is not None:
        _open_wandb(options, root)
    return Curves(_tensorboard().SummaryWriter(str(folder), purge_step=iteration + 1))


def _open_wandb(options: Options, root: Path) -> None:
    """Let Weights & Biases copy what TensorBoard gets; a resumed run goes on under the ID that it had."""
    import wandb  # noqa: PLC0415  (an extra that few runs use)

    section, file = options.logger.wandb, root / 'wandb_id.txt'
    run_id = section.resume_id or (file.read_text(encoding='utf-8') if file.exists() else secrets.token_hex(4))
    write_text(run_id, file)
    wandb.init(
        id=run_id,
        resume='allow',
        project=section.project,
        name=options.name,
        config=options.as_dict(),
        dir=root,
        sync_tensorboard=True,
    )
    get_root_logger().info(f'Weights & Biases: run {run_id} of project {section.project}')


def _tensorboard() -> ModuleType:
    try:
        return importlib.import_module('torch.utils.tensorboard')
    except ImportError as error:
        raise UserError(
            f'logger.use_tb_logger: TensorBoard cannot be imported ({first_line(error)}); '
            'pip install tensorboard, or set it to false'
        ) from error
