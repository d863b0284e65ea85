"""From a network to ncnn's two files, by pnnx."""

import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

from basicsr_clsd.compat import finish_deferred
from basicsr_clsd.conversion.source import ALSO_TRACED, TRACED, Source, require
from basicsr_clsd.errors import UserError

INPUT, OUTPUT = 'data', 'output'  # as Real-ESRGAN-ncnn-vulkan and the programs made of it ask for
BLOBS = {'in0': INPUT, 'out0': OUTPUT}  # pnnx's own names
HEAD = 2  # lines before the layers: a magic number, and how many layers and blobs there are


class NcnnModel(NamedTuple):
    """ncnn's form of a network.

    Args:
        param: Its layers, the text of a ``.param`` file.
        weights: The content of the ``.bin`` file.
    """

    param: str
    weights: bytes


def to_ncnn(source: Source, half: bool = False) -> NcnnModel:
    """Convert a network; input ``data`` is (C, h, w) in [0, 1], output ``output`` (C, h·s, w·s); h and w are free.

    Args:
        source: The network.
        half: Write the weights in fp16, in half the space.

    Raises:
        UserError: pnnx is not installed, or ncnn has no form of an operator, which is named.
    """
    require('devices', 'pnnx')
    import pnnx  # noqa: PLC0415  (an extra)  # pyright: ignore[reportMissingImports]

    finish_deferred()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter(
            'ignore'
        )  # of torch: sizes that it takes for constants; that tracing is not its newest way
        folder = Path(name)
        traced: Any = torch.jit.trace(source.module, torch.rand(source.shape(*TRACED)))
        traced.save(str(folder / 'network.pt'))
        shapes = [str(list(source.shape(*size))).replace(' ', '') + 'f32' for size in (TRACED, ALSO_TRACED)]
        command = [pnnx.EXEC_PATH, 'network.pt', f'inputshape={shapes[0]}', f'inputshape2={shapes[1]}']
        command += ['ncnnparam=network.param', 'ncnnbin=network.bin', f'fp16={int(half)}']
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors='replace', check=False)
        if ended.returncode or not (folder / 'network.param').is_file():
            said = [line for line in ended.stderr.splitlines() if line.strip()]
            why = said[-1] if said else f'exit code {ended.returncode}'
            raise UserError(f'{source.arch}: pnnx cannot convert it: {why}')
        param, weights = (folder / 'network.param').read_text('utf-8'), (folder / 'network.bin').read_bytes()
    lines = [line.split() for line in param.splitlines()]
    # What ncnn has no layer for keeps the name that it has in torch.
    foreign = sorted({line[0] for line in lines[HEAD:] if '.' in line[0] or '::' in line[0]})
    if foreign:
        raise UserError(f'{source.arch}: ncnn has no {", ".join(foreign)}')
    return NcnnModel(''.join(f'{" ".join(_renamed(line))}\n' for line in lines), weights)


def _renamed(line: list[str]) -> list[str]:
    """A layer's line with its blobs under the names that programs ask for."""
    if len(line) <= HEAD:
        return line
    first, behind = 4, 4 + int(line[2]) + int(line[3])
    return [*line[:first], *(BLOBS.get(blob, blob) for blob in line[first:behind]), *line[behind:]]
