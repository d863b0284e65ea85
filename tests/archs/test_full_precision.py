import pytest
import torch
from torch.nn import functional as F

from basicsr_clsd.archs.full_precision import FullPrecisionConv2d

CASES = [{}, {'bias': False}, {'stride': 2, 'padding': 0}, {'groups': 3, 'dilation': 2}, {'padding_mode': 'reflect'}]


@pytest.mark.parametrize('settings', CASES)
def test_gradients_are_those_of_the_convolution(settings):
    """float32 features and float64 weights stand for half precision and float32, so that rounding hides no error."""
    torch.manual_seed(0)
    layer = FullPrecisionConv2d(6, 9, 3, **{'padding': 1, **settings}).double()
    x = torch.rand(2, 6, 11, 8, requires_grad=True)
    wanted_x = x.detach().double().requires_grad_()
    wanted = layer(wanted_x)
    pull = torch.rand_like(wanted)
    of_wanted = torch.autograd.grad(wanted, (wanted_x, *layer.parameters()), pull)
    found = layer(x)
    assert torch.equal(found, wanted)
    for mine, theirs in zip(torch.autograd.grad(found, (x, *layer.parameters()), pull), of_wanted, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-5, atol=1e-5)


def test_output_is_not_rounded_and_gradients_have_the_types_of_what_they_are_of():
    torch.manual_seed(0)
    layer = FullPrecisionConv2d(4, 3, 3, padding=1)
    x = torch.rand(1, 4, 6, 5).bfloat16().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        output = layer(x)
    assert torch.equal(output, F.conv2d(x.float(), layer.weight, layer.bias, padding=1))
    output.sum().backward()
    assert x.grad is not None and layer.weight.grad is not None
    assert (x.grad.dtype, layer.weight.grad.dtype) == (torch.bfloat16, torch.float32)
