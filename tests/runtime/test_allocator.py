import multiprocessing
import platform
import resource
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from basicsr_clsd.runtime.memory import keep_freed_memory

BLOCK = 64 * 2**20  # bytes; glibc by itself maps such a block anew each time
PAGES = BLOCK // resource.getpagesize()


def page_faults(keep: bool) -> int:
    keep_freed_memory(keep)
    torch.set_num_threads(1)
    for _ in range(20):  # until no small block lies in the way
        torch.ones(BLOCK, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(BLOCK, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason="sets glibc's allocator")
@pytest.mark.parametrize('keep', [True, False])
def test_freed_memory_is_used_again_without_asking_the_system(keep):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as process:
        faults = process.submit(page_faults, keep).result()
    assert faults < PAGES / 100 if keep else faults >= 4 * PAGES * 0.99
