"""The accelerator of this machine: which one there is, what runs on it, and what torch has for it.

CUDA is NVIDIA's or, through ROCm, AMD's. Others (XPU of Intel, MPS of Apple) upscale, and do not train.
"""

from types import ModuleType

import torch

CPU = torch.device('cpu')
CUDA = torch.device('cuda')


def accelerator() -> torch.device | None:
    """The kind of accelerator that torch can use here, as a device without a number; None: there is none."""
    if not hasattr(torch, 'accelerator'):  # torch 2.5 and older
        return CUDA if torch.cuda.is_available() else None
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def training_device(num_gpu: int | str) -> torch.device:
    """Where a training with this ``num_gpu`` computes: ``auto`` takes a GPU if there is one, 0 is the CPU."""
    on_gpu = torch.cuda.is_available() if num_gpu == 'auto' else int(num_gpu) > 0
    return CUDA if on_gpu else CPU


def inference_device(gpu: bool) -> torch.device:
    """Where photos are upscaled: on the accelerator, if it is wanted and there is one."""
    return (accelerator() if gpu else None) or CPU


def module(device: torch.device) -> ModuleType:
    """What torch has for a kind of accelerator: ``torch.cuda``, ``torch.xpu``, ``torch.mps``."""
    found: ModuleType = getattr(torch, device.type)
    return found


def device_name(device: torch.device) -> str:
    """An accelerator in words."""
    if not hasattr(module(device), 'get_device_name'):
        return device.type.upper()
    return module(device).get_device_name(device)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU is never behind."""
    if device.type != CPU.type:
        module(device).synchronize()


def release_memory() -> None:
    """Have torch give back what it keeps of the accelerator's memory, if it has used one."""
    found = accelerator()
    if found is not None:
        module(found).empty_cache()


def unsupported(error: Exception) -> str | None:
    """What to tell of an error of a GPU that the installed torch has no code for; None: it is another error."""
    if not torch.cuda.is_available() or 'no kernel image' not in str(error):
        return None
    major, minor = torch.cuda.get_device_capability()
    known = ', '.join(torch.cuda.get_arch_list())
    return (
        f'this torch has no code for {torch.cuda.get_device_name()} (sm_{major}{minor}); it has {known}: '
        'install a torch for this GPU, or use num_gpu: 0'
    )
