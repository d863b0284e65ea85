"""Training with heads on every super-resolution arch of BasicSR, and on EDSR as EDSRHeads does it."""

import re
from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from helpers.one_step import step

from basicsr_clsd.networks.weights import load_weights
from basicsr_clsd.registry import known

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'heads.md'
RGB = {'num_in_ch': 3, 'num_out_ch': 3}
TRANSFORMER = {'img_size': 8, 'window_size': 4, 'embed_dim': 8, 'depths': [1] * 4, 'num_heads': [2] * 4, 'mlp_ratio': 1}
# Arguments, the name of the scale among them, and a parameter before all taps and one after.
STUDENTS = {
    'EDSR': ({**RGB, 'num_feat': 8, 'num_block': 4}, 'upscale', 'conv_first', 'conv_last'),
    'RCAN': (
        {**RGB, 'num_feat': 8, 'num_group': 4, 'num_block': 1, 'squeeze_factor': 4},
        'upscale',
        'conv_first',
        'conv_last',
    ),
    'MSRResNet': ({'num_feat': 8, 'num_block': 4}, 'upscale', 'conv_first', 'conv_last'),
    'RRDBNet': ({**RGB, 'num_feat': 8, 'num_block': 4, 'num_grow_ch': 4}, 'scale', 'conv_first', 'conv_last'),
    'SRVGGNetCompact': ({'num_feat': 8, 'num_conv': 4}, 'upscale', 'body.0', 'body.10'),
    'ECBSR': (
        {'num_in_ch': 1, 'num_out_ch': 1, 'num_block': 4, 'num_channel': 8, 'with_idt': False, 'act_type': 'prelu'},
        'scale',
        'backbone.0.conv3x3',
        'backbone.5.conv3x3',
    ),
    'SwinIR': ({**TRANSFORMER, 'upsampler': 'pixelshuffledirect'}, 'upscale', 'conv_first', 'upsample.0'),
}
SCALES = {'RRDBNet': (1, 2, 4)}
CASES = [(arch, scale) for arch in STUDENTS for scale in SCALES.get(arch, (2, 3, 4))]
VIDEO, FACES, JUDGE = 'video: takes several frames', 'generates or restores faces', 'discriminator: makes no image'
UNSUPPORTED = {
    **dict.fromkeys(('BasicVSR', 'BasicVSRPlusPlus', 'DUF', 'EDVR', 'IconVSR', 'TOFlow'), VIDEO),
    **dict.fromkeys(('DFDNet', 'HiFaceGAN', 'StyleGAN2Generator'), FACES),
    **dict.fromkeys(
        ('HiFaceGANDiscriminator', 'StyleGAN2Discriminator', 'UNetDiscriminatorSN', 'VGGStyleDiscriminator'), JUDGE
    ),
    'RIDNet': 'denoises: upscales nothing',
    'SpyNet': 'finds optical flow: makes no image',
    'VGGFeatureExtractor': 'finds features: makes no image',
}
NO_EDSR = dict.fromkeys(('num_feat', 'num_block', 'upscale', 'head_taps', 'head_num_block'))
LUMA = {'datasets': {phase: {'color': 'y'} for phase in ('train', 'val')}}


def student(arch, scale, **changes):
    arguments, name, *_ = STUDENTS[arch]
    return {'type': arch, **arguments, name: scale, **changes}


def with_heads(section, **changes):
    heads = {'taps': {'evenly': 3}, 'head': {'num_block': 1, 'num_feat': 4}, **changes}
    return {'type': 'WithHeads', **NO_EDSR, 'student': section, **heads}


def options(arch, scale=2, train=None, **changes):
    sized = {'scale': scale, 'datasets': {'train': {'gt_size': 8 * scale}}}
    luma = LUMA if arch == 'ECBSR' else {}
    network = with_heads(student(arch, scale), **changes)
    return {**sized, **luma, 'network_g': network, 'train': train or {}}


def batch(arch, scale=2, seed=0, count=2):
    generator = torch.Generator().manual_seed(seed)
    channels = 1 if arch == 'ECBSR' else 3
    sides = {'lq': 8, 'gt': 8 * scale}
    images = {name: torch.rand(count, channels, side, side, generator=generator) for name, side in sides.items()}
    return {**images, 'gt_path': [f'{number}.png' for number in range(count)]}


def stock_of(section):
    return known('archs')[section['type']](**{key: value for key, value in section.items() if key != 'type'})


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize(('arch', 'scale'), CASES)
def test_every_student_trains_with_heads_and_is_deployed_as_its_stock_arch(make_model, tmp_path, arch, scale):
    section = student(arch, scale)
    model = make_model(options(arch, scale), seed=3)
    torch.manual_seed(3)
    stock = stock_of(section)
    assert_equal(model.student_weights()['params'], stock.state_dict())  # one seed, the same start
    images = batch(arch, scale)

    # Heads' gradients reach the trunk below their taps, and nothing else of the student.
    model.feed_data(images)
    terms, _ = model.loss_terms()
    (terms['L_ASR'] + terms['L_CS']).backward()
    reached = {name for name, value in model.net_g.named_parameters() if value.grad is not None and value.grad.any()}
    _, _, first, last = STUDENTS[arch]
    assert f'student.{first}.weight' in reached and f'student.{last}.weight' not in reached
    for number in range(3):
        assert any(name.startswith(f'heads.{number}.body') for name in reached)

    # All parameters are used, which processes that exchange gradients rely on.
    sum(model.loss_terms()[0].values()).backward()
    trained = [value for value in model.net_g.parameters() if value.requires_grad]
    assert all(value.grad is not None for value in trained)

    model.net_g.zero_grad()
    log = step(model, images)
    assert log['done'] == 1 and log['L_CS'] > 0
    weights = model.student_weights()['params']
    assert not torch.equal(weights[f'{first}.weight'], stock.state_dict()[f'{first}.weight'])

    # Strict loading both ways, and the same bits out.
    stock.load_state_dict(weights, strict=True)
    with torch.no_grad():
        assert torch.equal(model.upscale(images['lq'])[0], stock.eval()(images['lq']))
    other = make_model(options(arch, scale), seed=4)
    torch.save({'params': stock.state_dict()}, tmp_path / 'student.pth')
    load_weights(other.net_g, tmp_path / 'student.pth', ['params'])
    assert_equal(other.student_weights()['params'], stock.state_dict())
    outputs = other.upscale(images['lq'], heads=True)
    assert [output.shape for output in outputs] == [images['gt'].shape] * 4


def test_every_arch_of_basicsr_is_supported_or_has_a_reason_why_not():
    archs = {name for name, kind in ARCH_REGISTRY if kind.__module__.startswith('basicsr.')}
    names = {name.removesuffix('_basicsr') for name in archs}
    assert names == STUDENTS.keys() | UNSUPPORTED.keys()
    assert not STUDENTS.keys() & UNSUPPORTED.keys()


def documented_table(heading):
    """First two columns of the table under a heading, without quotes."""
    text = PAGE.read_text(encoding='utf-8').split(f'{heading}\n')[1]
    rows = re.search(r'(?:\|.*\n)+', text).group(0).splitlines()[2:]
    return [tuple(cell.strip() for cell in row.strip('|').split('|')[:2]) for row in rows]


def test_the_documentation_lists_what_is_supported_and_why_the_rest_is_not():
    named = {
        arch: scales for cell, scales in documented_table('## Supported\n') for arch in re.findall(r'`(\w+)`', cell)
    }
    wanted = {arch: ', '.join(f'x{scale}' for scale in SCALES.get(arch, (2, 3, 4))) for arch in STUDENTS}
    assert named == wanted
    reasons = {
        arch: why for cell, why in documented_table('## Not supported\n') for arch in re.findall(r'`(\w+)`', cell)
    }
    assert reasons == UNSUPPORTED


@pytest.mark.parametrize(('skip', 'scale'), [(True, 2), (False, 3)])
def test_heads_on_edsr_are_those_of_edsrheads_to_the_bit(make_model, skip, scale):
    terms = {'self_distill_opt': {'type': 'L1Loss', 'loss_weight': 5}}
    sizes = {'num_feat': 8, 'num_block': 4, 'upscale': scale, 'res_scale': 0.5}
    theirs = {**sizes, 'head_taps': [1, 2, 3], 'head_num_block': 2, 'head_global_skip': skip}
    mine = with_heads(
        {'type': 'EDSR', **RGB, **sizes},
        head={'num_block': 2, 'num_feat': 8, 'res_scale': 0.5},
        global_skip='trunk' if skip else 'none',
    )
    sized = {'scale': scale, 'datasets': {'train': {'gt_size': 8 * scale}}, 'train': terms}
    edsr, general = (make_model({**sized, 'network_g': network}) for network in (theirs, mine))
    for iteration in range(1, 21):
        images = batch('EDSR', scale, seed=iteration)
        assert step(edsr, images, iteration) == step(general, images, iteration)
    assert_equal(edsr.net_g.state_dict(), general.net_g.state_dict())
    moments = [model.optimizers[0].state_dict()['state'] for model in (edsr, general)]
    assert moments[0].keys() == moments[1].keys()
    for parameter, values in moments[0].items():
        assert_equal(values, moments[1][parameter])


@pytest.mark.parametrize('arch', ['RCAN', 'SwinIR', 'ECBSR'])
def test_mixed_precision_keeps_the_ends_of_student_and_heads_in_fp32(make_model, arch):
    full, half = (make_model(options(arch, train={'precision': kind})) for kind in ('fp32', 'bf16'))
    _, _, first, last = STUDENTS[arch]
    dtypes = {}
    modules = dict(half.net_g.named_modules())
    ends = [f'student.{name.removesuffix(".conv3x3")}' for name in (first, last)]
    ends += [f'heads.{number}.conv_last' for number in range(3)]
    middle = ['heads.1.conv_after_body', 'heads.2.upsample.0']
    for name in ends + middle:
        modules[name].register_forward_hook(lambda _, __, output, name=name: dtypes.__setitem__(name, output.dtype))
    images = batch(arch, count=4)
    ours, theirs = step(half, images), step(full, images)
    assert [dtypes[name] for name in ends] == [torch.float32] * 5
    assert [dtypes[name] for name in middle] == [torch.bfloat16] * 2
    assert ours != theirs
    assert ours == pytest.approx(theirs, rel=0.05)


def test_micro_batches_average_gradients(make_model):
    no_negatives = {'contrastive_opt': None}
    whole, parts = (make_model(options('RCAN', train=no_negatives)) for _ in range(2))
    images = batch('RCAN', count=4)
    whole.feed_data(images)
    whole.accumulate_gradients(1)
    for part in range(2):
        half = slice(2 * part, 2 * part + 2)
        parts.feed_data({name: values[half] for name, values in images.items()})
        parts.accumulate_gradients(1, part, 2)
    for (name, mine), its in zip(parts.net_g.named_parameters(), whole.net_g.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_free_settings_change_no_more_than_rounding(make_model):
    plain = make_model(options('SRVGGNetCompact'))
    changed = make_model(options('SRVGGNetCompact', train={'channels_last': True}))
    for iteration in range(1, 4):
        images = batch('SRVGGNetCompact', seed=iteration)
        assert step(changed, images, iteration) == pytest.approx(step(plain, images, iteration), rel=1e-4)


def test_training_on_grad_norms_and_description(make_model):
    model = make_model({**options('MSRResNet'), 'logger': {'grad_norm_freq': 1}})
    log = step(model, batch('MSRResNet'))
    assert all(log[f'grad_{term}'] > 0 for term in ('L_SR', 'L_ASR', 'L_CS'))
    text = model.describe()
    assert text.startswith(
        'MSRResNet with heads at body.0, body.1, body.2, which add body.0:input and the bilinear image'
    )
    assert re.search(r'[\d,]+ parameters and [\d,]+ in heads$', text)


@pytest.mark.parametrize('arch', ['SwinIR', 'RCAN'])
def test_validation_takes_images_of_any_size(make_model, arch):
    model = make_model(options(arch))
    lq = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    assert [output.shape for output in model.upscale(lq, heads=True)] == [(1, 3, 18, 28)] * 4
