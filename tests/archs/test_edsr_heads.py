from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from basicsr.archs.edsr_arch import EDSR
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from basicsr_clsd.archs import EDSRHeads
from basicsr_clsd.errors import UserError
from basicsr_clsd.networks.precision import keep_ends_fp32

SCALES = (2, 3, 4)
SHUFFLES = {2: (2,), 3: (3,), 4: (2, 2)}
RGB_MEAN = torch.tensor((0.4488, 0.4371, 0.4040)).view(1, 3, 1, 1)
SMALL = {'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 4, 'upscale': 2}
HEADS = {'head_taps': (1, 3), 'head_num_block': 2}


def small(**changes: Any) -> EDSRHeads:
    torch.manual_seed(0)
    return EDSRHeads(**{**SMALL, **HEADS, **changes})


def images() -> Tensor:
    return torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(1))


def count(weights: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in weights.values())


# The structure of EDSR and of the heads, from a state dict.


def conv(weights: Mapping[str, Tensor], key: str, x: Tensor) -> Tensor:
    return F.conv2d(x, weights[f'{key}.weight'], weights[f'{key}.bias'], padding=1)


def blocks(weights: Mapping[str, Tensor], prefix: str, x: Tensor, numbers: range, res_scale: float = 1) -> Tensor:
    for number in numbers:
        name = f'{prefix}body.{number}'
        x = x + res_scale * conv(weights, f'{name}.conv2', conv(weights, f'{name}.conv1', x).relu())
    return x


def tail(weights: Mapping[str, Tensor], prefix: str, x: Tensor, scale: int) -> Tensor:
    for step, factor in enumerate(SHUFFLES[scale]):
        x = F.pixel_shuffle(conv(weights, f'{prefix}upsample.{2 * step}', x), factor)
    return conv(weights, f'{prefix}conv_last', x) / 255 + RGB_MEAN


def expected(
    net: EDSRHeads, x: Tensor, taps: tuple[int, ...], scale: int = 2, res_scale: float = 1, **options: bool
) -> list[Tensor]:
    """The student's output and those of the heads, by hand."""
    weights = net.state_dict()
    first = conv(weights, 'conv_first', (x - RGB_MEAN) * 255)
    trunk = blocks(weights, '', first, range(4), res_scale)
    outputs = [tail(weights, '', conv(weights, 'conv_after_body', trunk) + first, scale)]
    for number, tap in enumerate(taps):
        head = f'heads.{number}.'
        tapped = blocks(weights, '', first, range(tap), res_scale)
        refined = conv(weights, f'{head}conv_after_body', blocks(weights, head, tapped, range(2), res_scale))
        if options.get('skip', True):
            refined = refined + first
        outputs.append(tail(weights, '' if options.get('shared') else head, refined, scale))
    return outputs


def assert_outputs(net: EDSRHeads, wanted: list[Tensor]) -> None:
    sr, head_srs = net(images())
    assert len(head_srs) == len(wanted) - 1
    for output, value in zip([sr, *head_srs], wanted, strict=True):
        torch.testing.assert_close(output, value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('scale', 'student', 'head'), [(2, 1_369_859, 555_651), (3, 1_554_499, 740_291), (4, 1_517_571, 703_363)]
)
def test_parameter_counts_of_the_paper(scale, student, head):
    net = EDSRHeads(upscale=scale)
    assert count(net.student.state_dict()) == student
    assert [count(part.state_dict()) for part in net.heads] == [head] * 3
    assert sum(parameter.numel() for parameter in net.parameters()) == student + 3 * head


@pytest.mark.parametrize('options', [*({'upscale': scale} for scale in SCALES), {'res_scale': 0.1, 'img_range': 1.0}])
def test_deployed_student_is_stock_edsr_to_the_bit(options):
    net = small(**options).eval()
    stock = EDSR(**{**SMALL, **options}).eval()
    stock.load_state_dict(net.student.state_dict(), strict=True)
    assert torch.equal(net(images()), stock(images()))
    assert torch.equal(net.train()(images())[0], stock(images()))


def test_state_dict_is_edsrs_and_that_of_the_heads():
    net = small()
    student = set(EDSR(**SMALL).state_dict())
    assert set(net.student.state_dict()) == student
    assert {key.split('.')[0] for key in set(net.state_dict()) - student} == {'heads'}


def test_student_starts_from_the_weights_of_edsr_with_the_same_seed():
    net = small()
    torch.manual_seed(0)
    stock = EDSR(**SMALL).state_dict()
    assert all(torch.equal(value, stock[key]) for key, value in net.student.state_dict().items())


def test_heads_cost_nothing_in_eval():
    ran = []
    net, stock = small(), EDSR(**SMALL).eval()
    for module in net.heads.modules():
        module.register_forward_hook(lambda *_: ran.append(1))
    flops = []
    for network in (net.eval(), stock):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(images())
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] > 0
    assert not ran
    net(images(), with_heads=True)
    assert ran


def test_heads_can_be_left_out_in_train_and_had_in_eval():
    net = small()
    sr, head_srs = net(images())
    assert torch.equal(net(images(), with_heads=False), sr)
    again, heads_again = net.eval()(images(), with_heads=True)
    assert all(torch.equal(a, b) for a, b in zip([sr, *head_srs], [again, *heads_again], strict=True))


@pytest.mark.parametrize('scale', SCALES)
def test_outputs_against_the_structure_by_hand(scale):
    net = small(upscale=scale)
    wanted = expected(net, images(), (1, 3), scale)
    assert wanted[0].shape == (2, 3, 9 * scale, 11 * scale)
    assert_outputs(net, wanted)


@pytest.mark.parametrize('taps', [(1, 2, 3, 4), (4,), (3, 1)])
def test_heads_start_where_they_tap_in_the_order_given(taps):
    net = small(head_taps=taps)
    features, inputs = [], []
    for block in net.student.body:
        block.register_forward_hook(lambda _module, _given, result: features.append(result))
    for head in net.heads:
        head.register_forward_pre_hook(lambda _module, given: inputs.append(given[0]))
    assert_outputs(net, expected(net, images(), taps))
    assert [id(feature) for feature in inputs] == [id(features[tap - 1]) for tap in taps]


def test_heads_use_the_blocks_res_scale():
    net = small(res_scale=0.1)
    assert_outputs(net, expected(net, images(), (1, 3), res_scale=0.1))


def test_shared_tail():
    net = small(head_share_tail=True)
    assert not any('upsample' in key or 'conv_last' in key for key in net.heads.state_dict())
    assert_outputs(net, expected(net, images(), (1, 3), shared=True))
    sum(head_sr.sum() for head_sr in net(images())[1]).backward()
    assert net.student.conv_last.weight.grad.abs().sum() > 0


def test_without_global_skip():
    net = small(head_global_skip=False)
    assert_outputs(net, expected(net, images(), (1, 3), skip=False))


def test_gradient_of_a_head_reaches_the_trunk_up_to_its_tap_and_nothing_else():
    net = small()
    net(images())[1][1].square().sum().backward()
    reached = {name for name, value in net.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    wanted = {
        name for name, _ in net.named_parameters() if name.startswith(('student.conv_first', 'student.body', 'heads.1'))
    }
    assert reached == {name for name in wanted if not name.startswith('student.body.3')}


def test_first_and_last_convolutions_and_outputs_are_fp32_under_autocast():
    net, seen = small(), {}
    with keep_ends_fp32(net):
        net.eval()(images())
    net.train()

    def note(name: str) -> Any:
        return lambda _module, given, result: seen.update({name: (given[0].dtype, result.dtype)})

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note(name))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        sr, head_srs = net(images())
    assert {output.dtype for output in [sr, *head_srs]} == {torch.float32}
    full = ['student.conv_first', 'student.conv_last', 'heads.0.conv_last', 'heads.1.conv_last']
    assert all(seen[name][1] is torch.float32 for name in full)
    assert all(result is torch.bfloat16 for name, (_, result) in seen.items() if name not in full)
    assert len(seen) == 2 * (4 + 2 * 2) + 3 * 3 + 1


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_precision_of_the_whole_network_is_edsrs(dtype):
    net = small().eval()
    stock = EDSR(**SMALL).eval()
    stock.load_state_dict(net.student.state_dict())
    x = images().to(dtype)
    assert torch.equal(net.to(dtype)(x), stock.to(dtype)(x))
    assert all(head_sr.dtype == dtype for head_sr in net(x, with_heads=True)[1])


def test_mean_follows_the_network_and_is_not_saved():
    net = small()
    assert not any('mean' in key for key in net.state_dict())
    assert net.to(torch.float64).heads.mean.dtype == torch.float64
    assert net.to('meta').heads.mean.device.type == 'meta'


@pytest.mark.parametrize('taps', [(0,), (5,), (-1,), (2, 2)])
def test_wrong_taps_are_told(taps):
    with pytest.raises(ValueError, match=r'head_taps .* 1 to num_block=4'):
        small(head_taps=taps)


@pytest.mark.parametrize('taps', [['body.0', 3], ['body.0-2/2'], ['body.0', 'body.3:input']])
def test_taps_may_be_paths(taps):
    net = small(head_taps=taps)
    assert_outputs(net, expected(net, images(), (1, 3)))


@pytest.mark.parametrize(
    ('taps', 'text'),
    [
        ([], r'head_taps: must be a list of paths or evenly: a number of taps, not \[\]'),
        (['body.3', 4], "head_taps: 'body.3' is there twice"),
        ({'evenly': 5}, "head_taps.evenly: 5 are more than the 4 blocks of 'body'"),
    ],
)
def test_wrong_paths_are_told(taps, text):
    with pytest.raises(UserError, match=f'^{text}'):
        small(head_taps=taps)


def test_other_than_three_channels_are_told():
    with pytest.raises(ValueError, match='num_in_ch must be 3, not 1'):
        small(num_in_ch=1)
