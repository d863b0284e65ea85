"""What the processor can do fast."""

import platform
from pathlib import Path

import torch

from basicsr_clsd.runtime.device import device_name, training_device

AMPERE = 8  # the first compute capability with bfloat16 in its tensor cores
# Names of /proc/cpuinfo, and torch's functions that ask the processor itself, where the installed torch has them.
BF16_FLAGS = {'amx_bf16': 'AMX', 'avx512_bf16': 'AVX512-BF16'}
BF16_PROBES = {'_is_amx_tile_supported': 'AMX', '_is_avx512_bf16_supported': 'AVX512-BF16'}
CPUINFO = Path('/proc/cpuinfo')


def computes_bf16(num_gpu: int | str) -> tuple[bool, str]:
    """Whether products of bfloat16 have instructions of their own on the GPU or the CPU that a run uses, and why."""
    if training_device(num_gpu).type != 'cpu':
        major, minor = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
        return major >= AMPERE, f'a GPU of compute capability {major}.{minor}'
    found = cpu_bf16()
    return bool(found), f'a CPU with {" and ".join(found)}' if found else 'a CPU without instructions for bf16'


def cpu_bf16() -> list[str]:
    """The CPU's extensions for products of bfloat16."""
    flags: set[str] = set()
    if CPUINFO.is_file():
        lines = CPUINFO.read_text(encoding='utf-8', errors='replace').splitlines()
        flags = set(next((line for line in lines if line.startswith('flags')), '').split())
    found = {name for flag, name in BF16_FLAGS.items() if flag in flags}
    for function, name in BF16_PROBES.items():
        probe = getattr(torch.cpu, function, None)
        if not flags and probe is not None and probe():
            found.add(name)
    return sorted(found)


def processor(device: torch.device) -> str:
    """The GPU's name, or the kind of CPU with its extensions for bfloat16."""
    if device.type != 'cpu':
        return device_name(device)
    return ', '.join([f'{platform.machine()} CPU', *cpu_bf16()])
