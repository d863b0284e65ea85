"""Programs that run converted networks on a CPU, each as a function of an array."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_clsd.conversion.ncnn import INPUT, OUTPUT, NcnnModel
from basicsr_clsd.conversion.source import absent, require
from basicsr_clsd.errors import first_line, out_of_memory

Run = Callable[[NDArray[Any]], NDArray[Any]]  # (N, C, h, w) in [0, 1] to (N, C, h·s, w·s); goes wrong as RuntimeError

TORCH, ONNXRUNTIME, OPENVINO, NCNN = 'torch', 'onnxruntime', 'openvino', 'ncnn'
# What each computes in, and what it needs. OpenVINO and ncnn in bf16 round the first and the last features, too.
PRECISIONS = {
    TORCH: ('fp32', 'tf32', 'bf16', 'fp16'),
    ONNXRUNTIME: ('fp32',),
    OPENVINO: ('fp32', 'bf16'),
    NCNN: ('fp32',),
}
PACKAGES: dict[str, tuple[str, ...]] = {
    TORCH: ('devices',),
    ONNXRUNTIME: ('deploy', 'onnx', 'onnxruntime'),
    OPENVINO: ('devices', 'onnx', 'openvino'),
    NCNN: ('devices', 'pnnx', 'ncnn'),
}
QUIET = 4  # onnxruntime logs what is fatal; the rest is told as errors
CUDA, CPU = 'CUDAExecutionProvider', 'CPUExecutionProvider'
NCNN_NO_MEMORY = -100


def is_installed(runtime: str) -> bool:
    """Whether a runtime, and what converts networks for it, is installed."""
    return not absent(*PACKAGES[runtime][1:])


def require_runtime(runtime: str) -> None:
    """Raise a :class:`UserError` with the command that installs a runtime, if it is not installed."""
    require(*PACKAGES[runtime])


@contextmanager
def _runtime_errors() -> Iterator[None]:
    """What runtimes raise, whose errors have no common base, as errors of memory or of running."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        raise (MemoryError if out_of_memory(error) else RuntimeError)(first_line(error)) from error
    except Exception as error:
        raise (MemoryError if out_of_memory(error) else RuntimeError)(str(error)) from error


class OnnxruntimeModel:
    """An ONNX model in onnxruntime.

    Args:
        model: The path of a file, or its content.
        gpu: Use CUDA if onnxruntime has it.

    Raises:
        RuntimeError: It cannot be run.
    """

    def __init__(self, model: Path | bytes, gpu: bool = False) -> None:
        import onnxruntime  # noqa: PLC0415  (an extra)

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = QUIET
        settings.intra_op_num_threads = torch.get_num_threads()
        wanted = [CUDA, CPU] if gpu else [CPU]
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        with _runtime_errors():
            source = model if isinstance(model, bytes) else str(model)
            self._session: Any = onnxruntime.InferenceSession(source, settings, providers=providers)
        self.on_gpu = self._session.get_providers()[0] == CUDA
        self._input = self._session.get_inputs()[0].name

    def __call__(self, lq: NDArray[Any]) -> NDArray[Any]:
        """Upscale (N, C, h, w)."""
        with _runtime_errors():
            return np.asarray(self._session.run(None, {self._input: lq})[0])


@cache
def _openvino() -> Any:
    """OpenVINO's core, one for the life of the process.

    A core gives its thread a stack for signals. It takes it away when it ends, and puts back the one that it had found,
    which an earlier core may have freed by then: the next signal would kill the process.
    """
    import openvino  # noqa: PLC0415  (an extra)

    return openvino.Core()


class OpenvinoModel:
    """An ONNX model in OpenVINO, on the CPU.

    Args:
        model: The path of a file, or its content.
        precision: ``fp32`` or ``bf16``; by itself OpenVINO would choose by the processor.

    Raises:
        RuntimeError: It cannot be run.
    """

    on_gpu = False

    def __init__(self, model: Path | bytes, precision: str = 'fp32') -> None:
        hints = {
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
            'INFERENCE_PRECISION_HINT': {'fp32': 'f32', 'bf16': 'bf16'}[precision],
        }
        with _runtime_errors():
            core = _openvino()
            read = core.read_model(model if isinstance(model, bytes) else str(model))
            self._compiled: Any = core.compile_model(read, 'CPU', hints)

    def __call__(self, lq: NDArray[Any]) -> NDArray[Any]:
        """Upscale (N, C, h, w)."""
        with _runtime_errors():
            return np.asarray(self._compiled(lq)[0])


class NcnnNetwork:
    """A pair of ncnn's files in ncnn, on the CPU.

    Raises:
        RuntimeError: It cannot be run.
    """

    on_gpu = False

    def __init__(self, model: NcnnModel) -> None:
        import ncnn  # noqa: PLC0415  (an extra)

        self._ncnn: Any = ncnn
        self._net = self._ncnn.Net()
        self._net.opt.num_threads = torch.get_num_threads()
        self._net.opt.use_vulkan_compute = False
        # Else, where the processor can, it would compute in less than fp32.
        for name in ('use_fp16_packed', 'use_fp16_storage', 'use_fp16_arithmetic', 'use_bf16_storage'):
            setattr(self._net.opt, name, False)
        with tempfile.TemporaryDirectory() as folder:
            param, weights = Path(folder, 'network.param'), Path(folder, 'network.bin')
            param.write_text(model.param, 'utf-8')
            weights.write_bytes(model.weights)
            if self._net.load_param(str(param)) or self._net.load_model(str(weights)):
                raise RuntimeError('ncnn cannot read it')

    def __call__(self, lq: NDArray[Any]) -> NDArray[Any]:
        """Upscale (N, C, h, w)."""
        return np.stack([self._image(image) for image in lq])

    def _image(self, image: NDArray[Any]) -> NDArray[Any]:
        extractor = self._net.create_extractor()
        array = np.ascontiguousarray(image, np.float32)  # in a variable, as a Mat does not keep it alive
        extractor.input(INPUT, self._ncnn.Mat(array).clone())
        code, output = extractor.extract(OUTPUT)
        if code:
            raise (MemoryError if code == NCNN_NO_MEMORY else RuntimeError)(f'ncnn ends with code {code}')
        return np.array(output)


class ExecutorchProgram:
    """An ExecuTorch program, on the CPU.

    Raises:
        RuntimeError: It cannot be run.
    """

    def __init__(self, program: bytes) -> None:
        from executorch.runtime import Runtime  # noqa: PLC0415  (an extra)

        self._content = program  # ExecuTorch reads from it in every run, and does not keep it alive
        with _runtime_errors():
            self._program: Any = Runtime.get().load_program(program)
            self._method: Any = self._program.load_method('forward')

    def __call__(self, lq: NDArray[Any]) -> NDArray[Any]:
        """Upscale (1, C, h, w)."""
        with _runtime_errors():
            return self._method.execute([torch.from_numpy(lq)])[0].numpy().copy()  # its memory is used again
