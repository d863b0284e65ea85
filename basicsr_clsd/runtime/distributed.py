"""The processes of a run: their start and end, what they agree on, and the average of their gradients."""

import gc
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from basicsr_clsd.errors import FAILURE, PeerError, UserError, exit_code

Result = TypeVar('Result')
Answer = Callable[[], None]  # of all processes: raises if one of them has failed
DEFAULT_PORT = 29500
FAILED = 'failed'  # key of the store: the exit code of a process that has ended by an error
LOOK_S, GRACE_S = 2.0, 15.0  # how often the key is looked for; how long a process may then take to end by itself


@dataclass
class Processes:
    """This process among those of a run. All of them make the same calls in the same order.

    Args:
        rank: Number of this process, from 0.
        world: How many there are; 1 needs no process group.
        local_rank: Number of this process on its machine.
        control: Process group on the CPU for what the processes agree on, so that no GPU need be waited for.
        store: What the processes can leave for each other; None for a single one.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    control: Any = None
    store: dist.Store | None = None
    _told: list[Exception] = field(default_factory=list)

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let an error of one process be an error of all, so that none waits for one that has ended.

        Such blocks may be nested: an error that all know of is not told again.

        Raises:
            PeerError: In all processes but one: those that had no error themselves, or another had the same or a worse.
        """
        failed: Exception | None = None
        try:
            yield
        except PeerError:
            raise
        except Exception as error:
            if error in self._told:
                raise
            failed = error
        self.ask(failed)()

    def ask(self, failed: Exception | None) -> Answer:
        """Ask all processes whether one has failed, and wait for no answer; what is returned waits, and raises.

        Args:
            failed: This process's own error.

        Returns:
            A function that raises as :meth:`together` does. Other questions may be asked before it is called.
        """
        # The exit code decides who speaks, and the lowest rank among equals.
        word = 0 if failed is None else exit_code(failed) * self.world + self.world - 1 - self.rank
        shared, work = torch.tensor([word]), None
        if self.world > 1:
            work = dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.control, async_op=True)

        def answer() -> None:
            if work is not None:
                work.wait()
            loudest = int(shared)
            if failed is not None and word == loudest:
                self._told.append(failed)
                raise failed
            if loudest:
                raise PeerError(loudest // self.world) from failed

        return answer

    def main_first(self, function: Callable[[], Result]) -> Result:
        """Call a function in the main process and then in the others, which find what it has made."""
        results: list[Result] = []
        for turn in (self.main, not self.main):
            with self.together():
                if turn:
                    results.append(function())
        return results[0]

    def leave(self, code: int) -> NoReturn:
        """End this process at once after an error, and tell the others.

        Nothing is taken down: nccl's clean-up waits for the other processes, and they wait for this one. The system
        closes its connections, by which most of them notice; :func:`_watch` ends those that do not.
        """
        if self.store is not None:
            with suppress(RuntimeError):  # the store may be gone
                self.store.set(FAILED, str(code))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _watch(store: dist.Store, ended: threading.Event) -> None:
    """End this process some time after another one has failed: it may wait on a GPU, and hear of nothing.

    Args:
        store: Where :meth:`Processes.leave` notes a failure.
        ended: Set when this process has left the others in order.
    """
    while not ended.wait(LOOK_S):
        code = FAILURE
        try:
            if not store.check([FAILED]):
                continue
            code = int(store.get(FAILED))
        except RuntimeError:  # the process that kept the store has ended
            pass
        if not ended.wait(GRACE_S):
            sys.stderr.write('error: another process of the run has ended, and this one did not notice\n')
            sys.stderr.flush()
            os._exit(code)
        return


def averaging(module: nn.Module, device: torch.device, find_unused: bool) -> DistributedDataParallel:
    """Wrap what processes train together, so that they average its gradients.

    Args:
        module: Parameters that need no gradient are left out. An earlier wrapper of it must have been let go of.
        device: Where it is.
        find_unused: Some parameters get no gradient in some iterations.
    """
    gc.collect()  # hooks on the parameters go with an earlier wrapper
    # Buffers are constants here, and a broadcast would be a collective inside the forward.
    known = inspect.signature(DistributedDataParallel).parameters
    buffers: dict[str, Any] = {'forward_sync_buffers': False}
    if 'forward_sync_buffers' not in known:  # torch 2.14 and older
        buffers = {'broadcast_buffers': False}
    devices = [device] if device.type == 'cuda' else None
    return DistributedDataParallel(
        module, device_ids=devices, find_unused_parameters=find_unused, gradient_as_bucket_view=True, **buffers
    )


@contextmanager
def processes(launcher: str, timeout_minutes: float, on_gpu: bool) -> Iterator[Processes]:
    """Join the process group that a launcher has started, and leave it at the end.

    After an exception it is not left, as that may wait for the other processes: :meth:`Processes.leave` is to follow.

    Args:
        launcher: ``none`` (torchrun is recognised by its environment), ``pytorch`` or ``slurm``.
        timeout_minutes: How long a process waits for the others before it fails.
        on_gpu: nccl on the GPU of ``LOCAL_RANK``; otherwise gloo on the CPU.

    Raises:
        UserError: The launcher's environment variables are not there, or there are more processes than GPUs.
    """
    environment = _slurm(os.environ) if launcher == 'slurm' else os.environ
    if launcher == 'none' and 'TORCHELASTIC_RUN_ID' not in environment:
        yield Processes()
        return
    try:
        rank, world, local = (int(environment[name]) for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'))
    except (KeyError, ValueError) as error:
        raise UserError(f'--launcher {launcher}: {error} is not set; start with torchrun or srun') from error
    if world == 1:
        yield Processes(rank, world, local)
        return
    gpu = gpu_of(local, torch.cuda.device_count()) if on_gpu else None
    if gpu is not None:
        torch.cuda.set_device(gpu)
    os.environ.update({key: environment[key] for key in ('MASTER_ADDR', 'MASTER_PORT')})
    timeout = timedelta(minutes=timeout_minutes)
    store, _, _ = next(dist.rendezvous('env://', rank, world, timeout=timeout))
    # torchrun may keep its store when it starts the processes again, and with it the addresses of those that are gone.
    # Where it does not, a machine that has come back counts fewer starts than the others.
    kept = environment.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
    attempt = dist.PrefixStore(f'attempt_{environment["TORCHELASTIC_RESTART_COUNT"] if kept else 0}', store)
    chosen: dict[str, Any] = {'backend': 'nccl' if on_gpu else 'gloo'}
    if gpu is not None and 'device_id' in inspect.signature(dist.init_process_group).parameters:  # torch 2.3 and newer
        chosen['device_id'] = torch.device('cuda', gpu)  # nccl then connects here, and fails here if it cannot
    dist.init_process_group(store=attempt, rank=rank, world_size=world, timeout=timeout, **chosen)
    control = dist.new_group(backend='gloo', timeout=timeout) if on_gpu else None
    ended = threading.Event()
    threading.Thread(target=_watch, args=(attempt, ended), daemon=True).start()
    yield Processes(rank, world, local, control, attempt)
    dist.destroy_process_group()
    ended.set()


def gpu_of(local: int, count: int) -> int:
    """The number of a process's GPU.

    Args:
        local: Number of the process on its machine.
        count: GPUs that it sees. Of one alone the launcher has given each process its own, as Slurm does if asked.

    Raises:
        UserError: There is none for this process.
    """
    if local < count:
        return local
    if count == 1:
        return 0
    raise UserError(f'process {local} of this machine has no GPU, there are {count}')


def _slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """What torchrun would have set, from what srun sets."""
    try:
        nodes = environment['SLURM_NODELIST']
        names = {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'}
        found = {name: environment[slurm] for name, slurm in names.items()}
    except KeyError as error:
        raise UserError(f'--launcher slurm: {error} is not set; start with srun') from error
    address = environment.get('MASTER_ADDR')
    if address is None:
        command = ['scontrol', 'show', 'hostnames', nodes]
        try:
            address = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
        except (OSError, subprocess.CalledProcessError, IndexError) as error:
            raise UserError('--launcher slurm: scontrol does not name the first node; set MASTER_ADDR') from error
    return {**found, 'MASTER_ADDR': address, 'MASTER_PORT': environment.get('MASTER_PORT', str(DEFAULT_PORT))}
