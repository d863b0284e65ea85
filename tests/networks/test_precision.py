import shutil

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from helpers.one_step import step

NO_HEADS = {'head_taps': None, 'head_num_block': None}
NO_HEAD_LOSSES = {'aux_opt': None, 'contrastive_opt': None}
STOCK = {
    'EDSR': ({'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, **NO_HEADS}, 'conv_first', 'conv_last'),
    'MSRResNet': ({'type': 'MSRResNet', **NO_HEADS}, 'conv_first', 'conv_last'),
    'SwinIR': (
        {
            'type': 'SwinIR',
            **dict.fromkeys(('num_feat', 'num_block'), None),
            **NO_HEADS,
            'upsampler': 'pixelshuffledirect',
            'img_size': 8,
            'window_size': 4,
            'embed_dim': 8,
            'depths': [1],
            'num_heads': [2],
        },
        'conv_first',
        'upsample.0',
    ),
}


def stock(arch, **train):
    return {'model_type': 'SupervisedModel', 'network_g': STOCK[arch][0], 'train': {**NO_HEAD_LOSSES, **train}}


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
@pytest.mark.parametrize('arch', STOCK)
def test_ends_of_stock_networks_stay_in_fp32_and_the_rest_does_not(make_model, make_batch, arch, precision):
    model = make_model(stock(arch, precision=precision))
    _, first, last = STOCK[arch]
    dtypes = {}
    for name, module in model.net_g.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, output, name=name: dtypes.__setitem__(name, output.dtype))
    log = step(model, make_batch())
    assert log['done'] == 1
    assert dtypes.pop(first) == dtypes.pop(last) == torch.float32
    assert set(dtypes.values()) == {torch.bfloat16 if precision == 'bf16' else torch.float16}
    assert {parameter.dtype for parameter in model.net_g.parameters()} == {torch.float32}


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_terms_of_the_loss_are_near_those_of_fp32(make_model, make_batch, precision):
    batch = make_batch()
    full, half = (step(make_model({'train': {'precision': kind}}), batch) for kind in ('fp32', precision))
    assert full != half
    assert half == pytest.approx(full, rel=5e-3)


@pytest.mark.parametrize('change', [{'channels_last': True}, {'optim_g': {'fused': False}}])
def test_free_settings_change_no_more_than_rounding(make_model, make_batch, change):
    plain, changed = make_model(), make_model({'train': change})
    for iteration in range(1, 4):
        batch = make_batch(iteration)
        assert step(changed, batch, iteration) == pytest.approx(step(plain, batch, iteration), rel=1e-4)
    assert changed.upscale(batch['lq'])[0] == pytest.approx(plain.upscale(batch['lq'])[0], abs=1e-5)


@pytest.mark.parametrize(('flag', 'modes'), [(False, []), (True, [None]), ('max-autotune', ['max-autotune'])])
def test_mode_of_compilation_is_torchs(make_model, monkeypatch, flag, modes):
    asked = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda _, mode: asked.append(mode))
    make_model({'train': {'compile': flag}})
    assert asked == modes


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a C++ compiler on a CPU')
def test_compiled_network_trains_as_the_plain_one_with_heads_and_moving_average(make_model, make_batch):
    # Adam makes a step of the whole learning rate of a gradient that rounding alone tells from zero.
    optimizer = {'type': 'SGD', 'lr': 1e-4, 'betas': None}
    average = {'ema_decay': 0.5, 'self_distill_opt': {'type': 'L1Loss', 'loss_weight': 5}, 'optim_g': optimizer}
    plain, compiled = (make_model({'train': {**average, 'compile': flag}}) for flag in (False, True))
    assert compiled.net_g._compiled_call_impl is not None
    for iteration in range(1, 4):
        batch = make_batch(iteration)
        assert step(compiled, batch, iteration) == pytest.approx(step(plain, batch, iteration), rel=1e-4)
    ours, theirs = (model.student_weights() for model in (compiled, plain))
    for kind in ('params', 'params_ema'):
        assert ours[kind].keys() == theirs[kind].keys() == EDSR(3, 3, 8, 2, 2).state_dict().keys()
        for name, value in ours[kind].items():
            assert torch.allclose(value, theirs[kind][name], atol=1e-5), (kind, name)


def test_scale_of_the_loss_in_fp16_is_part_of_the_state(make_model, make_batch):
    straight, resumed = (make_model({'train': {'precision': 'fp16'}}) for _ in range(2))
    batch = make_batch()
    batch['gt'][0, 0, 0, 0] = torch.inf
    assert step(straight, batch)['done'] == 0
    resumed.load_training_state(straight.training_state())
    states = [model.training_state()['stepper'] for model in (straight, resumed)]
    assert states[0] == states[1] and states[0]['scale'] == 128
    assert step(straight, make_batch(1), 2) == step(resumed, make_batch(1), 2)
