"""What a part of the check is given, and what it finds: rows, each a value against a bar."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from training_steps import TINY

from basicsr_clsd.errors import first_line

MET, FAILED, SKIPPED = 'met', 'failed', 'skipped'


@dataclass
class Row:
    """A value and whether it is as it should be; a value without a bar is only told."""

    name: str
    value: float | None
    bar: str | None
    outcome: str
    reason: str | None = None


@dataclass(frozen=True)
class Check:
    """How to check: on ``cuda`` or ``cpu``, quickly or not, on how many GPUs, in which folder."""

    device: str
    quick: bool
    gpus: int
    folder: Path

    @property
    def on_gpu(self) -> bool:
        """Whether there is a GPU to judge."""
        return self.device == 'cuda'

    @property
    def size(self) -> Sequence[str]:
        """Options of a network and a batch that suit the device; on a GPU those that are shipped."""
        return () if self.on_gpu else TINY

    def settings(self, batch: int, methods: Sequence[str] = (), device: str | None = None) -> argparse.Namespace:
        """What the benchmark of the training steps takes, at x4."""
        return argparse.Namespace(
            device=device or self.device, batch=batch, scale=4, folder=str(self.folder), methods=list(methods)
        )


def told(name: str, value: float) -> Row:
    """A value without a bar."""
    return Row(name, value, None, MET)


def at_most(name: str, value: float, bar: float) -> Row:
    """A value that must not exceed a bar; NaN does."""
    return Row(name, value, f'at most {bar:g}', MET if value <= bar else FAILED)


def at_least(name: str, value: float, bar: float) -> Row:
    """A value that must reach a bar."""
    return Row(name, value, f'at least {bar:g}', MET if value >= bar else FAILED)


def exactly(name: str, value: float, bar: float) -> Row:
    """A value that must be this one."""
    return Row(name, value, f'{bar:g}', MET if value == bar else FAILED)


def skipped(name: str, reason: str) -> Row:
    """What is not checked here."""
    return Row(name, None, None, SKIPPED, reason)


def attempt(name: str, work: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of some work; an error of it is a row, too, and those after it are found nevertheless."""
    try:
        yield from work()
    except Exception as error:  # whatever it is, the other rows are wanted
        yield Row(name, None, None, FAILED, f'{type(error).__name__}: {first_line(error)}')


def synchronize(check: Check) -> None:
    """Wait for the GPU, if there is one."""
    if check.on_gpu:
        torch.cuda.synchronize()


def run_on_gpu(work: Callable[[], object]) -> list[tuple[str, float]]:
    """Do some work and wait for it; return the name and the seconds of each kernel and copy on the GPU."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        work()
        torch.cuda.synchronize()
    return [
        (event.name, event.time_range.elapsed_us() / 1e6)
        for event in found.events() or []
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation  # spans of what is named, as of steps
    ]
