"""A student and its frozen teacher: which terms, which gradients, what is trained and what is saved."""

import copy
import gc
import io
import math
import shutil
import weakref

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.registry import ARCH_REGISTRY
from helpers.one_step import descends, step
from torch import nn

from basicsr_clsd.config import Options, check
from basicsr_clsd.errors import UserError
from basicsr_clsd.models.views import zoomed_in, zoomed_out

STUDENT = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 3, 'upscale': 2}
TEACHER = {**STUDENT, 'num_feat': 12, 'num_block': 6, 'res_scale': 0.1}
TAPS = {
    'student_taps': ['body.0', 'body.1', 'upsample:input'],
    'teacher_taps': ['body.1', 'body.3', 'upsample:input'],
}
OUTPUTS = {'type': 'OutputDistillationLoss', 'loss_weight': 0.5}
FAKD = [OUTPUTS, {'type': 'SpatialAffinityLoss', 'loss_weight': 10, **TAPS}]
FITNET = [{'type': 'RegressedFeatureLoss', 'num_layer': 1, **TAPS}]
LFD = [{'type': 'RegressedFeatureLoss', 'kernel_size': 3, **TAPS}]
LSFD = [{'type': 'SelectiveFeatureLoss', 'loss_weight': 0.1, **TAPS}]
ZOOM_IN = {**OUTPUTS, 'name': 'L_ZI', 'images': 'zoom_in', 'crops': 2, 'consistency': 0.5}
ZOOM_OUT = {**OUTPUTS, 'name': 'L_ZO', 'images': 'zoom_out'}
ZOOM_OUT_GT = {'type': 'GroundTruthLoss', 'loss_weight': 5, 'images': 'zoom_out'}
AUGKD = [OUTPUTS, ZOOM_IN, ZOOM_OUT, ZOOM_OUT_GT]
FACD = [{**OUTPUTS, 'adaptive': 'teacher_better'}, {'type': 'ContrastiveFeatureLoss', 'adaptive': 'none', **TAPS}]
METHODS = {'FAKD': FAKD, 'FitNet': FITNET, 'LFD': LFD, 'LSFD': LSFD, 'AugKD': AUGKD}
every_method = pytest.mark.parametrize('terms', METHODS.values(), ids=METHODS)
with_facd = pytest.mark.parametrize('terms', [*METHODS.values(), FACD], ids=[*METHODS, 'FACD'])


@ARCH_REGISTRY.register()
class IdentityTeacher(nn.Module):
    """Gives the image back, larger."""

    def forward(self, x):
        assert not torch.is_grad_enabled() and not self.training
        return nn.functional.interpolate(x, scale_factor=2.0)

    def state_dict(self, *args, **kwargs):
        return {**super().state_dict(*args, **kwargs), 'nothing': torch.zeros(1)}

    def load_state_dict(self, state, strict=True):
        assert state.keys() == {'nothing'}


@ARCH_REGISTRY.register()
class ScaledTeacher(EDSR):
    """EDSR that shows its trunk's feature, times -3."""

    def __init__(self, num_feat, num_block):
        super().__init__(3, 3, num_feat, num_block, 2)
        self.scaled = nn.Identity()

    def forward(self, x):
        self.scaled(-3 * self.body(self.conv_first((x - self.mean) * self.img_range)))
        return super().forward(x)


@ARCH_REGISTRY.register()
class BrokenTeacher(IdentityTeacher):
    """Makes nothing but NaN, unless the image is black."""

    def forward(self, x):
        return super().forward(x) * (torch.nan if x.any() else 1)


@pytest.fixture
def distill(make_model, tmp_path):
    """``distill(terms, network=TEACHER, seed=0, student=STUDENT, weights=None, sections={}, **train)``: a KDModel.

    The teacher's weights are drawn from a seed of their own.
    """

    def make(terms, network=TEACHER, seed=0, student=STUDENT, weights=None, sections=None, teacher_seed=9, **train):
        torch.manual_seed(teacher_seed)
        arguments = {key: value for key, value in network.items() if key != 'type'}
        teacher = ARCH_REGISTRY.get(network['type'])(**arguments)
        path = tmp_path / f'teacher{teacher_seed}.pth'
        torch.save({'params': teacher.state_dict() if weights is None else weights}, path)
        changes = {
            'model_type': 'KDModel',
            'network_g': {**student, 'head_taps': None, 'head_num_block': None},
            'network_teacher': network,
            'path': {'pretrain_network_teacher': str(path)},
            'train': {'distill_opt': terms, 'aux_opt': None, 'contrastive_opt': None, **train},
            **(sections or {}),
        }
        return make_model(changes, seed=seed)

    return make


def layers(network, image):
    """Output and tapped features of EDSR, layer by layer."""
    first = network.conv_first((image - network.mean) * network.img_range)
    feature, blocks = first, []
    for block in network.body:
        feature = feature + block.res_scale * block.conv2(torch.relu(block.conv1(feature)))
        blocks.append(feature)
    last = network.conv_after_body(feature) + first
    third = len(blocks) // 3
    return 255 * network(image), [blocks[third - 1], blocks[2 * third - 1], last]


def affinity(feature):
    columns = nn.functional.normalize(feature.flatten(2), dim=1)
    return columns.transpose(1, 2) @ columns


def formulas(model, batch):
    """The terms of each method, by their formulas."""
    sr, mine = layers(model.net_g, batch['lq'])
    with torch.no_grad():
        teacher_sr, its = layers(model.teacher.network, batch['lq'])
    both = list(zip(mine, its, strict=True))
    found = {'L_SR': 0.5 * (sr - 255 * batch['gt']).abs().mean()}
    for term in model.pupil.terms:
        loss, name = term.loss, type(term.loss).__name__
        if term.view.kind == 'zoom_in':
            images = zoomed_in(term.view, batch['gt'], 2, 7, range(len(batch['gt'])))  # in the first iteration
            restored = images.restored(model.net_g(images.student))
            found['L_ZI'] = 0.5 * 255 * (restored - model.teacher.network(images.teacher)).abs().mean()
        elif term.view.kind == 'zoom_out':
            small = zoomed_out(batch['lq'], model.shrinking).student
            other, key = (batch['lq'], 'L_GT') if loss.needs_gt else (model.teacher.network(small), 'L_ZO')
            found[key] = loss.loss_weight * 255 * (model.net_g(small) - other).abs().mean()
        elif name == 'OutputDistillationLoss':
            found['L_TS'] = 0.5 * (sr - teacher_sr).abs().mean()
        elif name == 'SpatialAffinityLoss':
            found['L_SA'] = 10 * sum((affinity(a) - affinity(b)).abs().mean() for a, b in both)
        else:
            regressed = [(r(a) - b).abs() for r, (a, b) in zip(loss.regressors, both, strict=True)]
            if name == 'SelectiveFeatureLoss':
                with torch.no_grad():
                    pooled = nn.functional.avg_pool2d((sr - teacher_sr).abs().mean(1), 2).flatten(1)
                    spread = pooled.std(1, correction=0, keepdim=True)
                    weights = torch.softmax((pooled - pooled.mean(1, keepdim=True)) / spread, 1) * pooled.shape[1]
                regressed = [weights.view(-1, 1, *r.shape[2:]) * r for r in regressed]
                found['L_SF'] = 0.1 * sum(r.mean() for r in regressed) / 3
            else:
                found['L_F'] = sum(r.mean() for r in regressed) / 3
    return found


@every_method
def test_terms_are_those_of_the_formulas_and_the_step_descends_them(distill, make_batch, terms):
    model, batch = distill(terms, optim_g={'type': 'SGD', 'lr': 1e-4, 'betas': None}), make_batch()
    descends(model, model.pupil, batch, formulas(model, batch))


@with_facd
def test_all_that_is_trained_gets_a_gradient_and_the_teacher_none(distill, make_batch, terms):
    model = distill(terms)
    model.feed_data(make_batch())
    model.accumulate_gradients(1)
    assert all(parameter.grad.any() for parameter in model.pupil.parameters())
    assert all(parameter.grad is None for parameter in model.teacher.network.parameters())
    assert {id(p) for group in model.optimizers[0].param_groups for p in group['params']} == {
        id(parameter) for parameter in model.pupil.parameters()
    }


def test_teacher_runs_without_gradients_in_eval_mode_and_never_changes(distill, make_batch):
    """The teacher itself asserts both."""
    model = distill([OUTPUTS], network={'type': 'IdentityTeacher'}, ema_decay=0.5)
    batch = make_batch()
    larger = nn.functional.interpolate(batch['lq'], scale_factor=2.0)
    with torch.no_grad():
        wanted = 0.5 * 255 * (model.net_g(batch['lq']) - larger).abs().mean().item()
    assert step(model, batch)['L_TS'] == pytest.approx(wanted, rel=1e-5)
    model.upscale(batch['lq'])
    step(model, batch, 2)

    model = distill(FAKD)
    before = copy.deepcopy(model.teacher.network.state_dict())
    for iteration in (1, 2):
        step(model, batch, iteration)
    for key, value in model.teacher.network.state_dict().items():
        assert torch.equal(value, before[key])


def test_teacher_with_scaled_copies_of_the_features_has_no_affinity_distance(distill, make_batch):
    torch.manual_seed(0)
    weights = EDSR(3, 3, 8, 3, 2).state_dict()
    taps = {'student_taps': ['body'], 'teacher_taps': ['scaled']}
    terms = [OUTPUTS, {'type': 'SpatialAffinityLoss', 'loss_weight': 10, **taps}]
    network = {'type': 'ScaledTeacher', 'num_feat': 8, 'num_block': 3}
    model = distill(terms, network=network, weights=weights)  # the student is drawn from the same seed
    log = step(model, make_batch())
    assert log['L_TS'] == 0
    assert log['L_SA'] == pytest.approx(0, abs=1e-5)
    assert log['L_SR'] > 1


def test_student_starts_from_the_weights_of_a_run_without_teacher(distill, make_model):
    plain = make_model(
        {
            'model_type': 'SupervisedModel',
            'network_g': {**STUDENT, 'head_taps': None, 'head_num_block': None},
            'train': {'aux_opt': None, 'contrastive_opt': None},
        }
    )
    for key, value in distill(LFD).net_g.state_dict().items():
        assert torch.equal(value, plain.net_g.state_dict()[key])


@with_facd
def test_student_alone_is_deployed(distill, make_batch, terms):
    model, batch = distill(terms, ema_decay=0.5), make_batch()
    step(model, batch)
    weights = model.student_weights()
    assert weights.keys() == {'params', 'params_ema'}
    for values in weights.values():
        stock = EDSR(3, 3, 8, 3, 2)
        stock.load_state_dict(values, strict=True)
    assert torch.equal(stock(batch['lq']), model.upscale(batch['lq'])[0])


def test_moving_average_is_that_of_the_student(distill, make_batch):
    model = distill(LFD, ema_decay=0.75)
    start = copy.deepcopy(model.net_g.state_dict())
    step(model, make_batch())
    for key, value in model.net_g.state_dict().items():
        torch.testing.assert_close(model.net_g_ema.state_dict()[key], 0.75 * start[key] + 0.25 * value)


@with_facd
def test_training_goes_on_from_a_saved_state_to_the_bit(distill, make_batch, terms):
    whole, part, resumed = (distill(terms, ema_decay=0.5, seed=seed) for seed in (0, 0, 1))
    for iteration in range(1, 6):
        wanted = step(whole, make_batch(iteration), iteration)
    for iteration in range(1, 4):
        step(part, make_batch(iteration), iteration)
    file = io.BytesIO()
    torch.save(part.training_state(), file)
    assert not any('12' in str(tuple(value.shape)) for value in part.training_state()['net_g'].values())
    file.seek(0)
    resumed.load_training_state(torch.load(file, weights_only=True))
    for iteration in range(4, 6):
        log = step(resumed, make_batch(iteration), iteration)
    assert log == wanted
    for module in ('pupil', 'net_g_ema'):
        ours, theirs = (getattr(model, module).state_dict() for model in (resumed, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_state_of_another_teacher_or_regressor_is_refused(distill):
    state = distill(LFD).training_state()
    with pytest.raises(UserError, match=r'teacher8\.pth: not the teacher of the run to resume'):
        distill(LFD, teacher_seed=8).load_training_state(state)
    with pytest.raises(UserError, match='state is of another network'):
        distill(FITNET).load_training_state(state)


@every_method
def test_micro_batches_have_the_gradient_of_the_whole(distill, make_batch, terms):
    whole, parts = distill(terms), distill(terms)
    batch = make_batch(count=4)
    whole.feed_data(batch)
    whole.accumulate_gradients(1)
    for part in range(2):
        parts.feed_data({key: value[2 * part : 2 * part + 2] for key, value in batch.items()})
        parts.accumulate_gradients(1, part, 2)
    for one, other in zip(whole.pupil.parameters(), parts.pupil.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6 * one.grad.abs().max().item())


@pytest.mark.parametrize('ema', [0, 0.5])
def test_no_feature_outlives_its_step(distill, make_batch, ema):
    model = distill(FAKD, ema_decay=ema)
    seen = []

    def remember(_, arguments):
        student, teacher, _ = arguments
        seen.extend(weakref.ref(feature) for _, features in (student, teacher) for feature in features.values())

    model.pupil.terms[1].register_forward_pre_hook(remember)
    step(model, make_batch())
    model.upscale(make_batch()['lq'])
    gc.collect()
    assert len(seen) == 6
    assert [reference() for reference in seen] == [None] * 6


@pytest.mark.parametrize('train', ['bf16', 'fp32'])
@pytest.mark.parametrize('teacher', [None, 'bf16', 'fp32'])
def test_teacher_has_a_precision_of_its_own_and_losses_are_in_fp32(distill, make_batch, train, teacher):
    own = {} if teacher is None else {'teacher': {'precision': teacher}}
    model = distill(LSFD, precision=train, **own)
    types = {}

    def note(name):
        return lambda _, __, output: types.__setitem__(name, output.dtype)

    model.net_g.body[0].conv1.register_forward_hook(note('student'))
    model.teacher.network.body[0].conv1.register_forward_hook(note('teacher'))
    model.teacher.network.conv_last.register_forward_hook(note('teacher end'))
    model.pupil.terms[0].loss.regressors[0].register_forward_hook(note('regressor'))
    model.pupil.terms[0].loss.register_forward_pre_hook(
        lambda _, arguments: types.update(
            {f'loss {n}': value.dtype for n, part in enumerate(arguments[:2]) for value in (part.sr, *part.features)}
        )
    )
    log = step(model, make_batch())
    kinds = {'fp32': torch.float32, 'bf16': torch.bfloat16}
    full = dict.fromkeys(('teacher end', 'regressor', 'loss 0', 'loss 1'), torch.float32)
    assert types == {'student': kinds[train], 'teacher': kinds[teacher or train], **full}
    assert log == pytest.approx(step(distill(LSFD), make_batch()), rel=0.02)


def test_memory_formats_change_no_more_than_rounding(distill, make_batch):
    plain = distill(FAKD)
    changed = distill(FAKD, channels_last=True, teacher={'channels_last': False})
    teacher = distill(FAKD)
    teacher.teacher.memory_format = torch.channels_last
    teacher.teacher.network.to(memory_format=torch.channels_last)
    for iteration in range(1, 4):
        batch = make_batch(iteration)
        wanted = pytest.approx(step(plain, batch, iteration), rel=1e-4)
        assert step(changed, batch, iteration) == wanted
        assert step(teacher, batch, iteration) == wanted


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a C++ compiler on a CPU')
def test_compiled_networks_train_as_the_plain_ones_and_hold_no_feature(distill, make_batch):
    terms = [*FAKD, *LFD]
    plain, compiled = (distill(terms, compile=flag, ema_decay=0.5) for flag in (False, True))
    assert compiled.net_g._compiled_call_impl is not None
    assert compiled.teacher.network._compiled_call_impl is not None
    seen = []

    def remember(_, arguments):
        features = [*arguments[0][1].values(), *arguments[1][1].values()]
        assert len(features) == 6
        seen.append([weakref.ref(feature) for feature in features])

    compiled.pupil.terms[1].register_forward_pre_hook(remember)
    for iteration in range(1, 4):
        batch = make_batch(iteration)
        assert step(compiled, batch, iteration) == pytest.approx(step(plain, batch, iteration), rel=1e-4)
        compiled.upscale(batch['lq'][:1])
        gc.collect()
        assert [reference() for reference in seen[-1]] == [None] * 6


def test_non_finite_output_of_the_teacher_names_the_term_and_changes_nothing(distill, make_batch):
    model = distill([OUTPUTS], network={'type': 'BrokenTeacher'})
    before = copy.deepcopy(model.pupil.state_dict())
    log = step(model, make_batch())
    assert log['done'] == 0
    assert {name for name, value in log.items() if not math.isfinite(value)} == {'L_TS', 'L_total'}
    assert all(torch.equal(value, before[key]) for key, value in model.pupil.state_dict().items())


def test_gradient_norms_of_the_terms(distill, make_batch):
    log = step(distill(FAKD, sections={'logger': {'grad_norm_freq': 1}}), make_batch())
    assert all(log[f'grad_{term}'] > 0 for term in ('L_SR', 'L_TS', 'L_SA'))


def test_pixel_range_scales_the_outputs_and_not_the_features(distill, make_batch):
    terms = [*FAKD, *LSFD]
    wide, unit = (step(distill(terms, pixel_range=value), make_batch()) for value in (255, 1))
    for term in ('L_SR', 'L_TS'):
        assert wide[term] == pytest.approx(255 * unit[term], rel=1e-5)
    for term in ('L_SA', 'L_SF'):
        assert wide[term] == pytest.approx(unit[term], rel=1e-4)


def test_names_of_terms(distill, make_batch):
    twice = [*FAKD, {**FAKD[1], 'name': 'L_SA2'}]
    log = step(distill(twice), make_batch())
    assert log['L_SA'] == log['L_SA2']
    with pytest.raises(UserError, match=r"train.distill_opt.2.name: two terms are named 'L_SA'"):
        distill([*FAKD, FAKD[1]])


@pytest.mark.parametrize(
    ('term', 'text'),
    [
        ({'type': 'L1Loss'}, 'train.distill_opt.0.type: L1Loss is no distillation loss'),
        ({'type': 'SpatialAffinityLoss'}, 'train.distill_opt.0: SpatialAffinityLoss: needs as many taps'),
        ({**LFD[0], 'kernel_size': 2}, 'train.distill_opt.0: RegressedFeatureLoss: kernel_size must be odd'),
        (
            {'type': 'SpatialAffinityLoss', 'student_taps': ['body.0-1']},
            'train.distill_opt.0.teacher_taps: 0 taps, 2 of the student; each needs its counterpart',
        ),
        (
            {**FAKD[1], 'teacher_taps': {'evenly': 7}},
            "train.distill_opt.0.teacher_taps.evenly: 7 are more than the 6 blocks of 'body'",
        ),
        (
            {**FAKD[1], 'teacher_taps': ['body.1', 'body.3', 'upsample']},
            'train.distill_opt.0: SpatialAffinityLoss: the features at tap 3 differ in size',
        ),
        (
            {**FAKD[1], 'teacher_taps': ['body.1', 'body.3', 'body.33']},
            "train.distill_opt: EDSR has no module 'body.33'",
        ),
        (
            {**FAKD[1], 'student_taps': ['body.1', 'body.3', 'conv_last']},
            "train.distill_opt: EDSR has no module 'body.3'",
        ),
    ],
)
def test_terms_that_cannot_work_are_told_in_one_line(distill, term, text):
    with pytest.raises(UserError) as told:
        distill([term])
    assert str(told.value).startswith(text) and '\n' not in str(told.value)


@pytest.mark.parametrize(
    ('term', 'text'),
    [
        ({**OUTPUTS, 'crops': 2}, '.images: crops and consistency are of zoom_in, not of pairs'),
        ({**ZOOM_OUT, 'consistency': 0.1}, '.images: crops and consistency are of zoom_in, not of zoom_out'),
        ({**ZOOM_OUT_GT, 'images': 'zoom_in'}, '.images: zoom_in has no ground truth, which GroundTruthLoss needs'),
        ({**ZOOM_IN, 'crops': 5}, '.crops: 5 are more than the 4 parts of an HR image'),
        ({**FAKD[1], 'images': 'zoom_in', 'consistency': 0.3}, '.consistency: features cannot be turned back'),
    ],
)
def test_views_that_cannot_be_are_told_in_one_line(distill, term, text):
    with pytest.raises(UserError) as told:
        distill([term])
    assert str(told.value).startswith(f'train.distill_opt.0{text}') and '\n' not in str(told.value)


def test_patches_that_cannot_be_made_smaller_are_told(distill):
    sections = {'datasets': {'train': {'gt_size': 18}}}
    with pytest.raises(UserError, match='^train.distill_opt.0.images: zoom_out needs LR patches of a multiple of 2'):
        distill([ZOOM_OUT], sections=sections)


def test_features_too_can_be_zoomed(distill, make_batch):
    terms = [{**FAKD[1], 'images': 'zoom_in'}, {**FAKD[1], 'name': 'L_SA2', 'images': 'zoom_out'}]
    log = step(distill(terms), make_batch())
    assert log['L_SA'] > 0 and log['L_SA2'] > 0


def test_views_rest_while_their_terms_do_and_one_step_is_done_for_all(distill, make_batch):
    model = distill([OUTPUTS, {**ZOOM_IN, 'schedule': {'start_iter': 1}}, ZOOM_OUT, ZOOM_OUT_GT])
    sizes, gradients = [], []
    model.net_g.register_forward_pre_hook(lambda _, given: sizes.append((len(given[0]), given[0].shape[-1])))
    model.teacher.network.register_forward_pre_hook(lambda *_: gradients.append(torch.is_grad_enabled()))
    model.optimizers[0].register_step_pre_hook(lambda *_: sizes.append('step'))
    step(model, make_batch())
    assert sizes == [(4, 8), (4, 4), 'step']
    sizes.clear()
    step(model, make_batch(), 2)
    assert sizes == [(4, 8), (8, 8), (4, 4), 'step']
    assert gradients == [False] * 5


def test_third_tap_of_facd_is_before_the_global_skip(distill, make_batch):
    taps = {'student_taps': ['conv_after_body'], 'teacher_taps': ['conv_after_body']}
    model, seen = distill([{'type': 'ContrastiveFeatureLoss', **taps}]), []
    model.pupil.terms[0].register_forward_pre_hook(lambda _, given: seen.append(given[0][1]['conv_after_body']))
    batch = make_batch()
    with torch.no_grad():
        first = model.net_g.conv_first((batch['lq'] - model.net_g.mean) * 255)
        after = layers(model.net_g, batch['lq'])[1][-1]
    log = step(model, batch)
    torch.testing.assert_close(seen[0], after - first)
    assert 0 <= log['adapt'] <= 1 and 'L_CF' in log


@pytest.mark.parametrize('term', ['ContrastiveFeatureLoss', 'OutputDistillationLoss'])
def test_one_image_has_no_other_to_be_told_from(tiny_options, tmp_path, term):
    changes = {
        'model_type': 'KDModel',
        'network_g': {**STUDENT, 'head_taps': None, 'head_num_block': None},
        'network_teacher': TEACHER,
        'path': {'pretrain_network_teacher': 'teacher.pth'},
        'train': {'distill_opt': [{'type': term}], 'aux_opt': None, 'contrastive_opt': None},
        'datasets': {'train': {'batch_size_per_gpu': 1}},
    }
    options = Options.model_validate(tiny_options(tmp_path, changes))
    if term == 'OutputDistillationLoss':
        return check(options)
    with pytest.raises(UserError, match='^datasets.train.batch_size_per_gpu: 1 is too few: a contrastive term'):
        check(options)
    return None


def test_taps_need_not_name_each_block(distill, make_batch):
    written, evenly = (
        distill([{**FAKD[1], 'student_taps': student, 'teacher_taps': teacher}])
        for student, teacher in ((['body.0', 'body.1'], ['body.1', 'body.3']), ({'evenly': 2}, ['body.1-3/2']))
    )
    batch = make_batch()
    assert step(written, batch) == step(evenly, batch)


def test_teacher_of_another_scale_is_told(distill):
    with pytest.raises(UserError, match='^network_teacher: EDSR makes 3 x 96 x 96 of 3 x 32 x 32'):
        distill(FAKD, network={**TEACHER, 'upscale': 3})


def test_teacher_rests_while_every_term_does(distill, make_batch):
    schedule = {'start_iter': 1}
    model = distill([{**OUTPUTS, 'schedule': schedule}, {**LFD[0], 'schedule': schedule}])
    calls = []
    model.teacher.network.register_forward_hook(lambda *_: calls.append(1))
    log = step(model, make_batch())
    assert {name for name in log if name.startswith('L_')} == {'L_SR', 'L_total'} and not calls
    assert log['factor_L_TS'] == log['factor_L_F'] == 0
    log = step(model, make_batch(), 2)
    assert {'L_TS', 'L_F'} <= log.keys() and len(calls) == 1
