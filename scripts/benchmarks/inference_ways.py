"""The ways to run a trained network that `inference.py` measures."""

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from basicsr_clsd import Upscaler
from basicsr_clsd.deploy.writers import header_of, write_onnx
from basicsr_clsd.inference.loader import load
from basicsr_clsd.inference.torch_network import TorchNetwork
from basicsr_clsd.networks.zoo import model_file
from basicsr_clsd.runtime import cudnn
from basicsr_clsd.runtime.memory import keep_freed_memory

Image = NDArray[np.uint8]
Run = Callable[[Image], Image]
BASICSR, DEFAULT, WHOLE, BF16 = 'BasicSR', 'Upscaler', 'Upscaler, whole image', 'Upscaler, bf16'
ORT, INT8 = 'onnxruntime fp32', 'onnxruntime int8'
OPENVINO, OPENVINO_BF16, OPENVINO_INT8 = 'OpenVINO f32', 'OpenVINO bf16', 'OpenVINO int8'
WAYS = (BASICSR, DEFAULT, WHOLE, BF16, ORT, INT8, OPENVINO, OPENVINO_BF16, OPENVINO_INT8)
IN_FP32 = (DEFAULT, WHOLE, ORT, OPENVINO)
FILES = {ORT: 'fp32', OPENVINO: 'fp32', OPENVINO_BF16: 'fp32', INT8: 'int8', OPENVINO_INT8: 'int8'}


def weights_of(scale: int, args: argparse.Namespace) -> Path:
    """Return the weights at a scale: those of `--model`, or random ones of the paper's student, written once."""
    if args.model:
        return model_file(args.model)
    path = Path(args.folder, f'EDSR_x{scale}.pth')
    if not path.exists():
        from basicsr.archs.edsr_arch import EDSR  # noqa: PLC0415  (basicsr_clsd makes BasicSR importable)

        torch.manual_seed(0)
        network = EDSR(3, 3, num_feat=args.width, num_block=args.blocks, upscale=scale)
        torch.save({'params': network.state_dict()}, path)
    return path


def opened(source: Path, gpu: bool) -> TorchNetwork:
    """Open weights."""
    network = load(source, gpu=gpu)
    assert isinstance(network, TorchNetwork)
    return network


def write_files(scale: int, args: argparse.Namespace) -> None:
    """Export the weights to ONNX in the precisions that the ways take: fp32, int8."""
    source = weights_of(scale, args)
    network = opened(source, gpu=False)
    for precision in {FILES[way] for way in ways(args) if way in FILES}:
        kind = 'fp32' if precision == 'fp32' else args.calibrate
        path = onnx_file(scale, precision, args)
        write_onnx(network, path, header_of(network, source), kind, 20, Console(stderr=True))


def onnx_file(scale: int, precision: str, args: argparse.Namespace) -> Path:
    """Return the path of an exported file."""
    return Path(args.folder, f'x{scale}_{precision}.onnx')


def ways(args: argparse.Namespace) -> list[str]:
    """Return the ways that can be measured here; on a GPU those of torch."""
    missing = set() if find_spec('openvino') else {OPENVINO, OPENVINO_BF16, OPENVINO_INT8}
    missing |= set() if args.calibrate else {INT8, OPENVINO_INT8}
    missing |= set(FILES) if args.device == 'cuda' else set()
    return [way for way in WAYS if way not in missing and (way == BASICSR or not args.ways or way in args.ways)]


def build(way: str, scale: int, args: argparse.Namespace) -> Run:
    """Build a way to upscale."""
    torch.set_num_threads(args.threads)
    source, gpu = weights_of(scale, args), args.device == 'cuda'
    keep_freed_memory(way != BASICSR)
    if way == BASICSR:
        return basicsr_way(source, gpu)
    precision = 'bf16' if way in (BF16, OPENVINO_BF16) else 'fp32'
    if way in FILES:
        runtime = 'openvino' if way.startswith('OpenVINO') else 'onnxruntime'
        path = onnx_file(scale, FILES[way], args)
        return Upscaler(path, tile=0, runtime=runtime, precision=precision, gpu=False)
    return Upscaler(source, tile=0 if way == WHOLE else args.tile, precision=precision, gpu=gpu)


def basicsr_way(source: Path, gpu: bool) -> Run:
    """Build BasicSR's own way: its network, the whole image, as its `inference_*.py` scripts have it; in fp32."""
    network = opened(source, gpu)
    module = network.module.to(memory_format=torch.contiguous_format)

    @torch.no_grad()
    def run(image: Image) -> Image:
        lq = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous().to(network.device)
        with cudnn.inference(tf32=False):
            sr = module(lq)[0].clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        return (sr * 255).round().astype(np.uint8)

    return run
