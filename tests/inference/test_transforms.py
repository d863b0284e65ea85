"""The self-ensemble against the mean of eight outputs made by hand."""

import numpy as np
import torch
from basicsr.archs.edsr_arch import EDSR

from basicsr_clsd.inference.transforms import self_ensemble


def test_mean_of_the_eight_turned_and_mirrored_images():
    torch.manual_seed(0)
    network = EDSR(3, 3, num_feat=8, num_block=1, upscale=2).eval().requires_grad_(False)
    lq = torch.rand(1, 3, 9, 14)
    outputs = []
    for turns in range(4):
        for mirrored in (False, True):
            given = np.rot90(lq.numpy(), turns, (2, 3))
            given = given[..., ::-1] if mirrored else given
            output = network(torch.from_numpy(given.copy())).numpy()
            output = output[..., ::-1] if mirrored else output
            outputs.append(np.rot90(output, -turns, (2, 3)))
    assert len({output.tobytes() for output in outputs}) == 8
    result = self_ensemble(network)(lq)
    assert result.shape == (1, 3, 18, 28)
    np.testing.assert_allclose(result.numpy(), np.mean(outputs, 0), rtol=0, atol=1e-6)


def test_what_is_symmetric_stays_as_it_is():
    lq = torch.rand(1, 3, 6, 4, dtype=torch.float64)
    nearest = self_ensemble(lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(nearest(lq), lq.repeat_interleave(2, 2).repeat_interleave(2, 3))
