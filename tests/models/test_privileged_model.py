"""PISR: a teacher that is given HR, the student that starts from its decoder, and which image each of them sees."""

import copy
import math

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from helpers.one_step import step
from torch import nn

from basicsr_clsd.archs import PrivilegedTeacher
from basicsr_clsd.config import Options, check
from basicsr_clsd.errors import UserError

DECODER = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 2, 'upscale': 2}
NO_HEADS = {'head_taps': None, 'head_num_block': None}
NO_EDSR = dict.fromkeys(('num_feat', 'num_block', 'upscale'))
STUDENT = {**DECODER, **NO_HEADS}
TEACHER = {'type': 'PrivilegedTeacher', 'decoder': DECODER, 'scale': 2}
TAPS = {'student_taps': ['upsample:input'], 'teacher_taps': ['decoder.upsample:input']}
VID = {'type': 'VariationalFeatureLoss', 'loss_weight': 2.55e-4, **TAPS}
L1 = {'type': 'L1Loss', 'loss_weight': 1}
BARE = {'aux_opt': None, 'contrastive_opt': None, 'pixel_opt': L1}
SGD = {'type': 'SGD', 'lr': 1e-4, 'betas': None}


@pytest.fixture
def make_teacher(make_model):
    def make(**train):
        sections = {**BARE, 'imitation_opt': {'type': 'L1Loss', 'loss_weight': 1e-4}, **train}
        network = {**NO_HEADS, **NO_EDSR, **TEACHER}
        return make_model({'model_type': 'PrivilegedModel', 'network_g': network, 'train': sections})

    return make


@pytest.fixture
def files(make_teacher, tmp_path):
    """Paths of the options to the weights of a teacher: its own, and the decoder's."""
    paths = {}
    model = make_teacher()
    for name, option in (('net_g', 'pretrain_network_teacher'), ('net_decoder', 'pretrain_network_g')):
        torch.save(model.weights()[name], tmp_path / f'{name}_1.pth')
        paths[option] = str(tmp_path / f'{name}_1.pth')
    return paths


@pytest.fixture
def distill(make_model, files):
    def make(terms=(VID,), student=STUDENT, **train):
        return make_model(
            {
                'model_type': 'KDModel',
                'network_g': student,
                'network_teacher': TEACHER,
                'path': files,
                'train': {**BARE, 'distill_opt': list(terms), **train},
            }
        )

    return make


def difference(one, other):
    return 255 * (one - other).abs().mean()


def test_terms_of_the_teacher_are_those_of_the_formulas_and_the_step_descends_them(make_teacher, make_batch):
    model, batch = make_teacher(optim_g=SGD), make_batch()
    encoded = model.net_g.encoder(batch['gt'])
    found = {
        'L_SR': difference(model.net_g.decoder(encoded), batch['gt']),
        'L_I': 1e-4 * difference(encoded, batch['lq']),
    }
    trained = dict(model.net_g.named_parameters())
    before = copy.deepcopy(model.net_g.state_dict())
    gradients = torch.autograd.grad(sum(found.values()), list(trained.values()))
    log = step(model, batch)
    assert {name: log[name] for name in found} == pytest.approx({k: v.item() for k, v in found.items()}, rel=1e-5)
    for (name, value), gradient in zip(trained.items(), gradients, strict=True):
        assert gradient.any()
        torch.testing.assert_close(value.data, before[name] - 1e-4 * gradient, rtol=1e-4, atol=1e-7)


def test_both_files_of_the_teacher_load_strictly_and_the_student_starts_as_the_decoder(
    make_teacher, make_batch, distill, files
):
    model = make_teacher(ema_decay=0.5)
    step(model, make_batch())
    saved = model.weights()
    assert saved.keys() == {'net_g', 'net_decoder'}
    arguments = {key: value for key, value in DECODER.items() if key != 'type'}
    for key, network in (('params', model.net_g), ('params_ema', model.net_g_ema)):
        PrivilegedTeacher(DECODER, 2).load_state_dict(saved['net_g'][key], strict=True)
        stock = EDSR(**arguments)
        stock.load_state_dict(saved['net_decoder'][key], strict=True)
        assert torch.equal(stock(make_batch()['lq']), network.decoder(make_batch()['lq']))
    ends = [saved['net_decoder'][key]['conv_last.bias'] for key in ('params', 'params_ema')]
    assert not torch.equal(*ends)
    student = distill()
    assert torch.equal(student.net_g(make_batch()['lq']), student.teacher.network.decoder(make_batch()['lq']))
    with torch.no_grad():
        assert torch.equal(student.upscale(make_batch()['lq'])[0], student.net_g(make_batch()['lq']))


def test_odd_sides_come_out_as_they_went_in(make_teacher):
    model, hr = make_teacher(), torch.rand(1, 3, 13, 18)
    assert model.upscale(hr)[0].shape == hr.shape


def test_teacher_of_the_student_sees_hr_alone_and_has_no_gradient(distill, make_batch):
    model, batch, other = distill(), make_batch(), make_batch(1)

    def features(lq, gt):
        seen = []
        hook = model.pupil.terms[0].register_forward_pre_hook(lambda _, given: seen.append(given[1]))
        model.feed_data({'lq': lq, 'gt': gt})
        model.loss_terms()
        hook.remove()
        ((sr, taps),) = seen
        (feature,) = taps.values()
        assert not sr.requires_grad and not feature.requires_grad
        return feature

    first = features(batch['lq'], batch['gt'])
    assert first.shape == (4, 8, 8, 8)
    assert torch.equal(first, features(other['lq'], batch['gt']))
    assert not torch.equal(first, features(batch['lq'], other['gt']))
    model.feed_data(batch)
    model.accumulate_gradients(1)
    assert all(value.grad is None for value in model.teacher.network.parameters())
    assert all(value.grad is not None and value.grad.any() for value in model.pupil.parameters())
    assert not any('encoder' in key for key in (*model.training_state()['net_g'], *model.student_weights()['params']))


def test_term_is_the_formula_of_both_features(distill, make_batch):
    model, batch = distill(), make_batch()

    def last_feature(network, image):
        first = network.conv_first((image - network.mean) * 255)
        return (network.conv_after_body(network.body(first)) + first) / 255

    with torch.no_grad():
        teacher = model.teacher.network
        wanted = last_feature(teacher.decoder, teacher.encoder(batch['gt']))
        given, loss = last_feature(model.net_g, batch['lq']), model.pupil.terms[0].loss
        b = 0.1 * nn.functional.softplus(loss.scales[0](given)) + 1e-8
        term = 2.55e-4 * (torch.log(2 * b) + (loss.locations[0](given) - wanted).abs() / b).mean()
    assert step(model, batch)['L_VID'] == pytest.approx(term.item(), rel=1e-4)


def test_without_weight_it_is_edsr_from_the_same_weights(distill, make_model, make_batch, files):
    plain = make_model(
        {
            'model_type': 'SupervisedModel',
            'network_g': STUDENT,
            'path': {'pretrain_network_g': files['pretrain_network_g']},
            'train': BARE,
        }
    )
    model = distill([{**VID, 'loss_weight': 0}])
    for iteration in (1, 2):
        step(plain, make_batch(iteration), iteration)
        step(model, make_batch(iteration), iteration)
    for key, value in model.net_g.state_dict().items():
        assert torch.equal(value, plain.net_g.state_dict()[key])


def test_official_units_give_the_same_direction(distill, make_batch):
    def gradient(pixel_range, weight):
        model = distill([{**VID, 'loss_weight': weight}], pixel_range=pixel_range)
        model.feed_data(make_batch())
        model.accumulate_gradients(1)
        return torch.cat([value.grad.flatten() for value in model.net_g.parameters()])

    torch.testing.assert_close(gradient(255, 2.55e-4), 255 * gradient(1, 1e-6), rtol=1e-3, atol=1e-5)
    assert (gradient(255, 2.55e-4) - 255 * gradient(1, 1e-4)).norm() > 1e-3


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_image_between_encoder_and_decoder_is_in_fp32(make_teacher, make_batch, precision):
    model, types = make_teacher(precision=precision), {}
    parts = {'encoder.2': 'middle', 'encoder.6': 'image', 'decoder.conv_first': 'first', 'decoder.conv_last': 'last'}
    for path, name in parts.items():
        model.net_g.get_submodule(path).register_forward_hook(
            lambda _, __, output, name=name: types.__setitem__(name, output.dtype)
        )
    log = step(model, make_batch())
    middle = torch.bfloat16 if precision == 'bf16' else torch.float32
    assert types == {'middle': middle, **dict.fromkeys(('image', 'first', 'last'), torch.float32)}
    assert math.isfinite(log['L_total'])


@pytest.mark.parametrize(
    ('tap', 'text'),
    [
        (
            'encoder.0',
            "train.distill_opt.0.teacher_taps: 'encoder.0' of PrivilegedTeacher is 64 x 64 where the LR image is "
            '32 x 32; tap a feature of its size',
        ),
        ('upsample:input', "train.distill_opt: PrivilegedTeacher has no module 'upsample'; the nearest are"),
    ],
)
def test_wrong_tap_of_a_teacher_that_takes_gt_is_told(distill, tap, text):
    with pytest.raises(UserError) as told:
        distill([{**VID, 'teacher_taps': [tap]}])
    assert str(told.value).startswith(text) and '\n' not in str(told.value)


@pytest.mark.parametrize(
    ('model', 'network', 'text'),
    [
        (
            'SupervisedModel',
            TEACHER,
            'network_g.type: PrivilegedTeacher is given gt images, SupervisedModel gives lq; use model_type: '
            'PrivilegedModel',
        ),
        (
            'PrivilegedModel',
            DECODER,
            'network_g.type: EDSR is given lq images, PrivilegedModel gives gt; use model_type: CLSDModel or ',
        ),
    ],
)
def test_model_and_network_must_take_the_same_images(tiny_options, tmp_path, model, network, text):
    options = tiny_options(tmp_path, {'model_type': model, 'train': BARE})
    options['network_g'] = network
    with pytest.raises(UserError) as told:
        check(Options.model_validate(options))
    assert str(told.value).startswith(text)
