"""A trained network as a function of images."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_clsd.errors import UserError
from basicsr_clsd.inference.loader import load_fastest, section_in
from basicsr_clsd.inference.tiles import tiled
from basicsr_clsd.inference.transforms import Alpha
from basicsr_clsd.runtime.memory import return_freed_memory

STRIP = 64 * 2**20  # bytes of a row of tiles beside a photo of any width; a second one is being written meanwhile ...
LEAST_ROWS = 64  # ... unless tiles became so low that little but their overlap would be upscaled
WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}
CHANNELS = (1, 2, 3, 4)


class Upscaler:
    """Upscales images by a trained network: ``Upscaler('net_g.pth')(image)``.

    Args:
        model: Weights (``.pth``, ``.pt``, ``.safetensors``) of this project, BasicSR or EDSR-PyTorch, an ONNX file, or
            a name in the model zoo. Of an EDSR scale, width and depth are read off the weights.
        options: YAML with the ``network_g`` and ``scale`` of weights that are not an EDSR's.
        tile: Side in LR pixels of the parts that the image is upscaled in; 0: the whole image at once, as long as
            memory suffices; None: 512 for an EDSR, an output of 768 for another network. Smaller images are not cut.
            Parts overlap by the network's receptive field, so that the result is that of the whole image to rounding.
        ensemble: Give the mean of the results for the eight turned and mirrored images; eight times as slow.
        runtime: What runs the network: ``torch``, ``onnxruntime``, ``openvino`` or ``ncnn``, to which weights are
            converted in memory; ``auto``: torch, unless a faster one is installed whose result is the same. None:
            torch, or onnxruntime for an ONNX file.
        precision: ``fp32``, ``bf16`` (of torch and OpenVINO), ``fp16`` or ``tf32`` (of torch); ``auto``: bf16 where the
            hardware has it, it is faster, and it costs at most 0.01 dB.
        alpha: How transparency is upscaled: by the ``network``, as gray is, or ``bicubic``.
        gpu: Use a GPU if there is one.

    Attributes:
        scale: The super-resolution factor s.
        choice: The runtime and the precision, in words.

    Raises:
        UserError: One line that names the file or argument.
    """

    def __init__(  # noqa: PLR0913
        self,
        model: str | Path,
        *,
        options: str | Path | None = None,
        tile: int | None = None,
        ensemble: bool = False,
        runtime: str | None = None,
        precision: str = 'fp32',
        alpha: Alpha = 'network',
        gpu: bool = True,
    ) -> None:
        self.model = model
        self.network, self.choice = load_fastest(model, *section_in(options), runtime, precision, gpu)
        network = self.network
        self.scale: int = network.scale
        side = network.tile if tile is None else tile or None
        self._tiles = tiled(network, str(model), side, ensemble=ensemble, alpha=alpha)
        self._whole = tiled(network, str(model), None, ensemble=ensemble, alpha=alpha)
        # An image of no more pixels than a tile with its overlap takes no more memory.
        seen = network.tile + 2 * (network.receptive_field or 0)
        self._uncut = seen**2 if tile is None else 0

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """Upscale an image.

        Args:
            image: (H, W) or (H, W, 1) gray, (H, W, 2) gray and alpha, (H, W, 3) RGB or (H, W, 4) RGBA; uint8 in
                [0, 255], uint16 in [0, 65535], or float32 in [0, 1].

        Returns:
            The image of s times the height and width, in the shape, type and range of ``image``: clipped, and rounded
            for integers.

        Raises:
            UserError: The image is none of these, or the network makes values that are not finite.
            OSError: Memory does not suffice even for the smallest tiles.
        """
        deep = image[..., None] if image.ndim == 2 else image  # noqa: PLR2004
        if deep.ndim != 3 or deep.shape[2] not in CHANNELS or 0 in deep.shape:  # noqa: PLR2004
            raise UserError(f'an image of shape {image.shape}; it must be (H, W) or (H, W, 1 to 4)')
        height, width, channels = deep.shape
        output = np.empty((height * self.scale, width * self.scale, channels), image.dtype)
        row = 0
        for strip in self.strips(deep):
            output[row : row + len(strip)] = strip
            row += len(strip)
        return output if image.ndim == deep.ndim else output[..., 0]

    def strips(
        self, image: NDArray[Any], progress: Callable[[int], None] = lambda pixels: None
    ) -> Iterator[NDArray[Any]]:
        """Upscale an image (H, W, C) as :meth:`__call__` does, to strips (n, W·s, C), from top to bottom.

        Neither is in memory in floating point as a whole.

        Args:
            image: See there.
            progress: Is told of each tile's LR pixels when they are upscaled.

        Raises:
            UserError: See there.
        """
        white = WHITE.get(image.dtype)
        if white is None:
            raise UserError(f'an image of the type {image.dtype}; it must be uint8, uint16 or float32')

        def cut(rows: slice, columns: slice) -> torch.Tensor:
            part = np.ascontiguousarray(image[rows, columns], np.float32) / np.float32(white)
            return torch.from_numpy(part).permute(2, 0, 1)[None]

        height, width, channels = image.shape
        tiles = self._whole if height * width <= self._uncut else self._tiles
        rows = max(STRIP // (width * channels * image.itemsize * self.scale**2), LEAST_ROWS)
        strip: NDArray[Any] | None = None
        with torch.no_grad():
            for _, left, part in tiles.parts(cut, height, width, rows):
                if not (part.amin() + part.amax()).isfinite():  # NaN is both; aminmax would copy
                    raise UserError(f'{self.model}: its network makes values that are not finite')
                pixels = part[0].clamp_(0, 1).permute(1, 2, 0)  # in place, as copies would be felt at x4
                if white != 1:
                    pixels = pixels.mul_(white).round_()
                if image.dtype == np.uint8:
                    pixels = pixels.to(torch.uint8)  # a quarter of what a GPU would have to copy
                array = pixels.cpu().numpy().astype(image.dtype, copy=False)
                if strip is None:
                    strip = np.empty((len(array), width * self.scale, channels), image.dtype)
                start, end = left * self.scale, left * self.scale + array.shape[1]
                strip[:, start:end] = array
                progress(array.shape[0] * array.shape[1] // self.scale**2)
                del part, pixels, array
                if tiles is self._tiles:
                    return_freed_memory()  # or the next tile's blocks, of other sizes, would come on top
                if end == strip.shape[1]:
                    yield strip
                    strip = None
