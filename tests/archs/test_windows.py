"""Images are mirrored up to whole attention windows."""

import numpy as np
import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.archs.swinir_arch import SwinIR

from basicsr_clsd.archs.windows import whole_windows, window_of


@pytest.mark.parametrize(('height', 'width'), [(8, 16), (9, 15), (5, 4), (3, 1)])
def test_mirrored_as_numpy_does(height, width):
    image = torch.rand(2, 3, height, width)
    missing = (-height % 8, -width % 8)
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode='symmetric')
    np.testing.assert_array_equal(whole_windows(image, 8).numpy(), expected)


def test_a_network_without_windows_gets_the_image_itself():
    image = torch.rand(1, 3, 5, 7)
    assert whole_windows(image, window_of(EDSR(3, 3, num_feat=4, num_block=1, upscale=2))) is image


def test_window_of_a_transformer():
    network = SwinIR(img_size=12, window_size=6, depths=[2], embed_dim=4, num_heads=[2], upscale=2)
    assert window_of(network) == 6
