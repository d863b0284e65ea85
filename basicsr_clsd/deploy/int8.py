"""Static quantisation of an ONNX model to int8, its choices made by PSNR measured on photos."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from basicsr.metrics import calculate_psnr
from basicsr.utils import bgr2ycbcr
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from basicsr_clsd.conversion.onnx import INPUT
from basicsr_clsd.errors import UserError
from basicsr_clsd.images.matlab_resize import matlab_resize
from basicsr_clsd.images.photo import find_photos, read_photo
from basicsr_clsd.inference.runtimes import OnnxruntimeModel
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.networks.check import LUMA

Upscale = Callable[[NDArray[np.float32]], NDArray[np.float32]]
SIDE = 128  # LR pixels of a photo's middle that are looked at
MOST = 64  # photos
PARTS = 4
EQUAL = 99.0  # dB, for the mean, of an image without a difference

# Of the values of a tensor, in %, those that the 8 bits reach; the few beyond are clipped, which costs less than the
# coarser steps that they would take.
PERCENTILES = (99.9, 99.99, 99.999)
BINS = 2048
OPERATORS = ['Conv', 'Relu']  # a ReLU behind a convolution then is the lower end of its output's range
WORTH = 0.005  # dB that a further layer in float must gain


class Sample(NamedTuple):
    """The middle of a photo: LR (1, C, h, w), RGB or luma in [0, 1], and HR (H, W, C), BGR or luma, uint8."""

    lq: NDArray[np.float32]
    gt: NDArray[np.uint8]


class Calibration(NamedTuple):
    """Samples by what they are for: to find the ranges of values, to choose by, and to report on."""

    ranges: list[Sample]
    choice: list[Sample]
    held_out: list[Sample]


def read_calibration(folder: Path, network: TorchNetwork, console: Console) -> Calibration:
    """Read photos and make their LR images by MATLAB's bicubic: half for ranges, a quarter to choose by, one to report.

    Of more than 64 photos 64 are taken, evenly spread over their names.

    Raises:
        UserError: There are fewer than four, or one cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder')
    names = find_photos(folder)[0]
    if len(names) < PARTS:
        raise UserError(f'{folder}: {len(names)} photos; calibration needs at least {PARTS}')
    names = [names[place] for place in np.linspace(0, len(names) - 1, min(len(names), MOST)).round().astype(int)]
    bar = track(names, 'Calibrating', console=console, disable=not console.is_terminal, transient=True)
    samples = [_sample(folder / name, network.scale, network.channels) for name in bar]
    return Calibration(samples[::PARTS] + samples[1::PARTS], samples[2::PARTS], samples[3::PARTS])


def _sample(path: Path, scale: int, channels: int) -> Sample:
    image = read_photo(path).pixels
    sides = [min(side // scale, SIDE) * scale for side in image.shape[:2]]
    if 0 in sides:
        raise UserError(f'{path}: too small to calibrate with')
    top, left = ((length - side) // 2 for length, side in zip(image.shape, sides, strict=False))
    gt = image[top : top + sides[0], left : left + sides[1]]
    lq = matlab_resize(gt, 1 / scale).astype(np.float32) / 255
    if channels == LUMA:
        lq = bgr2ycbcr(lq, y_only=True)[..., None]
        gt = bgr2ycbcr(gt, y_only=True)[..., None].astype(np.uint8)  # rounded already
    return Sample(lq[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32, order='C'), gt)


def mean_psnr(upscale: Upscale, samples: Sequence[Sample], scale: int) -> float:
    """The mean PSNR (dB) on Y, ``scale`` pixels of border cut, of outputs rounded to 8 bits."""
    values = []
    for sample in samples:
        sr = upscale(sample.lq)[0].transpose(1, 2, 0)[..., ::-1]
        image = np.clip(sr * 255, 0, 255).round().astype(np.uint8)
        psnr = calculate_psnr(image, sample.gt, crop_border=scale, test_y_channel=True)
        values.append(min(float(psnr), EQUAL))
    return float(np.mean(values))


class Quantised(NamedTuple):
    """An int8 model and how it came about.

    Args:
        model: ``onnx.ModelProto``, with QuantizeLinear and DequantizeLinear (QDQ) around its int8 convolutions.
        percentile: Share of each tensor's values, in %, that its range holds.
        in_float: Names of the convolutions that were left in float.
        convolutions: Number of all.
        before: PSNR of the float model on the held-out photos, dB on Y.
        after: That of this one.
    """

    model: Any
    percentile: float
    in_float: tuple[str, ...]
    convolutions: int
    before: float
    after: float


def quantise(
    model: Any, calibration: Calibration, scale: int, say: Callable[[str], None], for_openvino: bool = False
) -> Quantised:
    """Quantise the convolutions of a model, weights per output channel, activations per tensor.

    First the percentile is chosen, then whether the first and the last convolution stay in float, which they do if that
    wins; then, from the last one backwards, further ones as long as each gains 0.005 dB. Features that are added up
    stay in float, else each of them would be rounded anew.

    Args:
        model: fp32, input and output as :func:`~basicsr_clsd.conversion.onnx.to_onnx` makes them.
        calibration: The photos.
        scale: Super-resolution factor.
        say: Is told each choice in a line.
        for_openvino: Do not round before a PReLU. OpenVINO computes it with the convolution, and only so; onnxruntime
            runs a convolution in 8 bits only if its output is rounded.
    """
    model = _prepared(model)
    names = [node.name for node in model.graph.node if node.op_type == 'Conv']
    ranges = _ranges(model, calibration.ranges)

    def attempt(percentile: float, in_float: Sequence[str]) -> tuple[float, Any]:
        made = _quantised(model, ranges[percentile], in_float)
        if for_openvino:
            _leave_unrounded_before(made, 'PRelu')
        return mean_psnr(_run(made), calibration.choice, scale), made

    target = mean_psnr(_run(model), calibration.choice, scale)
    say(f'fp32: {target:.3f} dB on the {len(calibration.choice)} photos to choose by')
    ends = [names[0], names[-1]]
    tried = {}
    for percentile in PERCENTILES:
        tried[percentile] = attempt(percentile, ends)
        say(f'{percentile} % of values in range: {tried[percentile][0] - target:+.3f} dB')
    percentile = max(tried, key=lambda found: tried[found][0])
    (best, made), in_float = tried[percentile], ends
    for fewer in ([], [names[-1]], [names[0]]):
        psnr, without = attempt(percentile, fewer)
        say(f'in float {_listed(fewer)}: {psnr - target:+.3f} dB')
        if psnr >= best:
            best, made, in_float = psnr, without, fewer
    for name in reversed(names[1:-1]):
        psnr, more = attempt(percentile, [*in_float, name])
        say(f'in float {_listed([*in_float, name])}: {psnr - target:+.3f} dB')
        if psnr < best + WORTH:
            break
        best, made, in_float = psnr, more, [*in_float, name]
    before, after = (mean_psnr(_run(which), calibration.held_out, scale) for which in (model, made))
    return Quantised(made, percentile, tuple(in_float), len(names), before, after)


def _run(model: Any) -> Upscale:
    return OnnxruntimeModel(model.SerializeToString())


def _listed(names: Sequence[str]) -> str:
    return ', '.join(names) or 'no convolution'


def _prepared(model: Any) -> Any:
    """A copy whose nodes all have names, by which they are told apart."""
    model = deepcopy(model)
    for number, node in enumerate(model.graph.node):
        node.name = node.name.strip('/').removesuffix('/Conv').removeprefix('network/') or f'node_{number}'
    return model


class _Reader:
    """Hands LR images to onnxruntime."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        """The next image's input."""
        sample = next(self.samples, None)
        return None if sample is None else {INPUT: sample.lq}


def _ranges(model: Any, samples: Sequence[Sample]) -> dict[float, Any]:
    """The ranges of all tensors at convolutions, by percentile."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator  # noqa: PLC0415  (an extra)

    # It prints what it does.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, 'float.onnx')
        path.write_bytes(model.SerializeToString())
        calibrator: Any = create_calibrator(
            path,
            OPERATORS,
            augmented_model_path=str(Path(folder, 'augmented.onnx')),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={'num_bins': BINS, 'percentile': PERCENTILES[0], 'symmetric': False},
        )
        # One by one: it keeps the features of all that it is given at once, and wants them in one size.
        for sample in samples:
            calibrator.collect_data(_Reader([sample]))
        ranges = {}
        for percentile in PERCENTILES:
            calibrator.collector.percentile = percentile
            ranges[percentile] = calibrator.compute_data()
    return ranges


def _quantised(model: Any, ranges: Any, in_float: Sequence[str]) -> Any:
    from onnxruntime.quantization import QuantType  # noqa: PLC0415  (an extra)
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # noqa: PLC0415

    # Weights have 7 bits: processors with AVX2 but without VNNI add two products in 16 bits, where 8 would saturate.
    quantizer = QDQQuantizer(
        deepcopy(model),
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=list(in_float),
        op_types_to_quantize=OPERATORS,
        extra_options={},
    )
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # it asks for a step that only removes what exported models do not have
    try:
        return quantizer.quantize_model()
    finally:
        logging.getLogger().setLevel(level)


def _leave_unrounded_before(model: Any, kind: str) -> None:
    """Give operators of a kind the convolution's own output, without QuantizeLinear and DequantizeLinear between."""
    nodes = model.graph.node
    maker = {output: node for node in nodes for output in node.output}
    for node in [node for node in nodes if node.op_type == kind]:
        made_by = [maker.get(node.input[0])]
        while made_by[-1] is not None and made_by[-1].op_type in ('DequantizeLinear', 'QuantizeLinear'):
            made_by.append(maker.get(made_by[-1].input[0]))
        *rounding, convolution = made_by
        if rounding and convolution is not None and convolution.op_type == 'Conv':
            node.input[0] = convolution.output[0]
            for each in rounding:
                nodes.remove(each)
