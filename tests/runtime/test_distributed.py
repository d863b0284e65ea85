import pytest

from basicsr_clsd.errors import UserError
from basicsr_clsd.runtime.distributed import gpu_of


@pytest.mark.parametrize(('local', 'count', 'gpu'), [(0, 4, 0), (3, 4, 3), (3, 1, 0), (0, 1, 0)])
def test_each_process_has_a_gpu(local, count, gpu):
    assert gpu_of(local, count) == gpu


@pytest.mark.parametrize(('local', 'count'), [(4, 4), (2, 2), (0, 0)])
def test_process_without_a_gpu_is_told(local, count):
    with pytest.raises(UserError, match=f'process {local} of this machine has no GPU, there are {count}'):
        gpu_of(local, count)
