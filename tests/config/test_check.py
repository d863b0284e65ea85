"""What the options check tells before anything is touched."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers.messages import told

from basicsr_clsd.config import Options, check

SET = {'dataroot_gt': 'HR'}
COSINE = {'type': 'CosineAnnealingRestartLR', 'milestones': None, 'gamma': None}


@pytest.fixture
def options(tmp_path, tiny_options) -> Callable[..., Options]:
    """``options(changes={})``: the tiny options of the test suite, changed key by key, not yet checked."""

    def changed(changes: dict[str, Any] | None = None) -> Options:
        return Options.model_validate(tiny_options(tmp_path, changes))

    return changed


KD = {
    'model_type': 'KDModel',
    'network_teacher': {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'upscale': 2},
    'path': {'pretrain_network_teacher': 'teacher.pth'},
    'train': {
        'distill_opt': [{'type': 'RegressedFeatureLoss', 'student_taps': ['a'], 'teacher_taps': ['b']}],
        'aux_opt': None,
        'contrastive_opt': None,
    },
}


def test_good_options_pass(options):
    check(options())
    check(options({'train': None}), testing=True)


@pytest.mark.parametrize(
    ('changes', 'start', 'existing'),
    [
        ({'model_type': 'CLSDModle'}, "model_type: unknown name 'CLSDModle' (did you mean 'CLSDModel'?)", 'SRModel'),
        ({'network_g': {'type': 'EDSRHaeds'}}, "network_g.type: unknown name 'EDSRHaeds' (did you mean", 'SwinIR'),
        (
            {'datasets': {'val': {'type': 'PairedDatset'}}},
            "datasets.val.type: unknown name 'PairedDatset' (did you mean 'PairedDataset'?)",
            'PairedImageDataset',
        ),
        ({'train': {'aux_opt': {'type': 'L3Loss'}}}, "train.aux_opt.type: unknown name 'L3Loss' (", 'CharbonnierLoss'),
        ({'train': {'optim_g': {'type': 'Adamm'}}}, "train.optim_g.type: unknown name 'Adamm' (did you mean", 'SGD'),
        (
            {'train': {'scheduler': {'type': 'StepLR'}}},
            "train.scheduler.type: unknown name 'StepLR' (did you mean 'MultiStepLR'?)",
            'CosineAnnealingRestartLR',
        ),
        (
            {'val': {'metrics': {'psnr': {'type': 'calculate_pnsr'}}}},
            "val.metrics.psnr.type: unknown name 'calculate_pnsr' (did you mean 'calculate_psnr'?)",
            'calculate_ssim',
        ),
        # Networks, data sets and models of BasicSR that this trainer cannot run are not offered.
        ({'model_type': 'SRGANModel'}, "model_type: unknown name 'SRGANModel'", 'CLSDModel'),
        ({'datasets': {'train': {'type': 'REDSDataset'}}}, "datasets.train.type: unknown name 'REDSD", 'PairedDataset'),
    ],
)
def test_unknown_name_lists_what_exists(options, changes, start, existing):
    text = told(check, options(changes))
    assert text.startswith(start)
    assert existing in text.split('there are ')[1].split(', ')


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        (
            {'network_g': {'num_feats': 8}},
            "network_g.num_feats: EDSRHeads has no such argument (did you mean 'num_feat",
        ),
        ({'network_g': {'zzz': 8}}, 'network_g.zzz: EDSRHeads has no such argument'),
        ({'train': {'optim_g': {'lrr': 1}}}, "train.optim_g.lrr: Adam has no such argument (did you mean 'lr'?)"),
        # What the program itself passes is not the user's to give.
        ({'train': {'optim_g': {'params': 1}}}, 'train.optim_g.params: Adam has no such argument'),
        ({'val': {'metrics': {'psnr': {'img': 1}}}}, 'val.metrics.psnr.img: calculate_psnr has no such argument'),
        ({'train': {'scheduler': {'gama': 1}}}, 'train.scheduler.gama: MultiStepLR has no such argument (did you mean'),
        ({'train': {'scheduler': {'milestones': None}}}, 'train.scheduler.milestones: missing; MultiStepLR needs it'),
        ({'train': {'pixel_opt': {'reductoin': 'mean'}}}, 'train.pixel_opt.reductoin: L1Loss has no such argument'),
        (
            {'train': {'contrastive_opt': {'negative': ['cross']}}},
            "train.contrastive_opt.negative: ContrastiveLoss has no such argument (did you mean 'negatives'?)",
        ),
        ({'val': {'metrics': {'psnr': {'crop_boarder': 1}}}}, 'val.metrics.psnr.crop_boarder: calculate_psnr has no'),
        (
            {'val': {'metrics': {'psnr': {'crop_border': None}}}},
            'val.metrics.psnr.crop_border: missing; calculate_psnr needs it',
        ),
        ({'network_g': {'type': 'EDSR', 'head_taps': None, 'head_num_block': None}}, 'network_g.num_in_ch: missing'),
    ],
)
def test_arguments_must_be_those_of_the_constructor(options, changes, text):
    assert told(check, options(changes)).startswith(text)


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'scale': 3, 'datasets': {'train': {'gt_size': 18}}}, 'network_g.upscale: 2 does not match scale: 3'),
        ({'network_g': {'upscale': 4}}, 'network_g.upscale: 4 does not match scale: 2'),
        ({'datasets': {'train': {'gt_size': 17}}}, 'datasets.train.gt_size: 17 is not a multiple of scale 2'),
        ({'datasets': {'train': {'gt_size': None}}}, 'datasets.train.gt_size: missing'),
        ({'datasets': {'train': None}}, 'datasets.train: missing'),
        ({'train': None}, 'train: missing'),
        ({'datasets': {'train': {'batch_size_per_gpu': 1}}}, 'datasets.train.batch_size_per_gpu: 1 is too few'),
        ({'datasets': {'valid': SET}}, "datasets.valid: a set's section is named train, val... or test_..."),
        ({'datasets': {'val_2': {**SET, 'name': 'Val'}}}, "datasets: two sets have the name 'Val'"),
        ({'val': {'best': {'metric': 'ssim'}}}, "val.best.metric: no metric 'ssim'; there are psnr"),
        ({'val': {'best': {'dataset': 'Set5'}}}, "val.best.dataset: no validation set 'Set5'; there are Val"),
        ({'logger': {'wandb': {'project': 'x'}, 'use_tb_logger': False}}, 'logger.wandb: gets what TensorBoard gets'),
        (
            {'train': {'contrastive_opt': {'across_accumulation': True}}},
            'train.contrastive_opt.across_accumulation: ContrastiveLoss has no such argument',
        ),
        ({'val': {'metrics': {'psnr': {'crop_border': '2'}}}}, 'val.metrics.psnr.crop_border: must be a number of'),
        ({'val': {'metrics': {'psnr': {'crop_border': -1}}}}, 'val.metrics.psnr.crop_border: must be a number of'),
        ({'datasets': {'val': {'mean': [0.5, 0.5]}}}, 'datasets.val.mean: 2 values for 3 channels'),
        ({'datasets': {'val': {'color': 'y', 'std': [1, 1, 1]}}}, 'datasets.val.std: 3 values for 1 channel'),
        ({'datasets': {'val': {'std': [1, 0, 1]}}}, 'datasets.val.std: images cannot be divided by 0'),
        (
            {'train': {'scheduler': {**COSINE, 'periods': [3, 4]}}},
            'train.scheduler.periods: their sum, 7, is less than train.total_iter, 8',
        ),
        # Else told only when it is their turn.
        ({'train': {'scheduler': {**COSINE, 'periods': 8}}}, 'train.scheduler.periods: must be a list of iterations'),
        ({'train': {'scheduler': {'milestones': [2, 'x']}}}, 'train.scheduler.milestones: must be a list of'),
        ({'train': {'scheduler': {'milestones': [2.5]}}}, 'train.scheduler.milestones: must be a list of iterations'),
        ({'train': {'scheduler': {'gamma': 'half'}}}, "train.scheduler.gamma: must be a number, not 'half'"),
        ({'train': {'optim_g': {'type': 'LBFGS', 'betas': None}}}, "train.optim_g.type: unknown name 'LBFGS'"),
    ],
)
def test_keys_must_fit_each_other(options, changes, text):
    assert told(check, options(changes)).startswith(text)


@pytest.mark.parametrize('key', ['test_2', 'val_2'])
def test_two_sets_of_one_name_are_refused_when_testing(options, key):
    check(options({'datasets': {'test_1': {**SET, 'name': 'Val'}}}))
    changes = {'datasets': {'test_1': {**SET, 'name': 'A'}, key: {**SET, 'name': 'A'}}}
    assert told(check, options(changes), testing=True).startswith("datasets: two sets have the name 'A'")
    changes = {'datasets': {'test_1': {**SET, 'name': 'Val'}}}
    assert told(check, options(changes), testing=True).startswith("datasets: two sets have the name 'Val'")


def test_testing_needs_a_set(options):
    assert told(check, options({'datasets': {'val': None}}), testing=True) == (
        'datasets: no set to test on; add a section test_1'
    )


def test_testing_does_not_ask_for_what_training_needs(options):
    check(options({'train': None, 'datasets': {'train': None}}), testing=True)


def test_batch_of_one_is_fine_without_a_contrastive_term(options):
    check(options({'datasets': {'train': {'batch_size_per_gpu': 1}}, 'train': {'contrastive_opt': None}}))


@pytest.mark.parametrize('there', [0, 1, 4])
def test_number_of_gpus(options, monkeypatch, there):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: there)
    check(options({'num_gpu': 'auto'}))
    check(options({'num_gpu': 0}))
    if there:
        check(options({'num_gpu': 1}))
    assert told(check, options({'num_gpu': there + 1})).startswith(f'num_gpu: {there + 1} asked for, {there} there')
    if there > 1:
        assert told(check, options({'num_gpu': there})).startswith('num_gpu: one process drives one GPU')


@pytest.mark.parametrize(
    ('train', 'warned'),
    [
        ({'pixel_range': 1, 'contrastive_opt': {'detach_teacher': False}}, True),
        ({'pixel_range': 255, 'contrastive_opt': {'detach_teacher': False}}, False),
        ({'pixel_range': 1}, False),
        ({'pixel_range': 1, 'contrastive_opt': {'detach_teacher': True}}, False),
        ({'pixel_range': 1, 'contrastive_opt': None}, False),
    ],
)
def test_warning_of_the_collapse(options, caplog, monkeypatch, train, warned):
    monkeypatch.setattr(logging.getLogger('basicsr'), 'propagate', True)
    check(options({'train': train}))
    records = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    assert len(records) == int(warned)
    assert all('train.pixel_range: 1 with contrastive_opt.detach_teacher: false' in text for text in records)


def test_perceptual_loss_has_its_own_weights(options):
    perceptual = {'type': 'PerceptualLoss', 'layer_weights': {'conv5_4': 1}, 'perceptual_weight': 0.5}
    check(options({'train': {'perceptual_opt': perceptual}}))
    text = told(check, options({'train': {'perceptual_opt': {**perceptual, 'loss_weight': 1}}}))
    assert text.startswith('train.perceptual_opt.loss_weight: PerceptualLoss has no such argument')


def test_distillation_with_a_teacher_passes(options):
    check(options(KD))


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'network_teacher': None}, 'network_teacher: missing; KDModel needs it'),
        ({'network_teacher': {'upscale': 4}}, 'network_teacher.upscale: 4 does not match scale: 2'),
        ({'network_teacher': {'type': 'EDSRR'}}, "network_teacher.type: unknown name 'EDSRR' (did you mean 'EDSR'?)"),
        ({'network_teacher': {'num_feats': 4}}, 'network_teacher.num_feats: EDSR has no such argument (did you mean'),
        ({'path': None}, 'path.pretrain_network_teacher: missing; KDModel needs it'),
        ({'train': {'distill_opt': None}}, 'train.distill_opt: missing; KDModel needs it'),
        ({'train': {'distill_opt': []}}, 'train.distill_opt: missing; KDModel needs it'),
        (
            {'train': {'distill_opt': [{'type': 'SpatialAfinityLoss'}]}},
            "train.distill_opt.0.type: unknown name 'SpatialAfinityLoss' (did you mean 'SpatialAffinityLoss'?)",
        ),
        (
            {'train': {'distill_opt': [{'type': 'OutputDistillationLoss', 'epss': 1}]}},
            'train.distill_opt.0.epss: OutputDistillationLoss has no such argument',
        ),
        (
            {'train': {'distill_opt': [{'type': 'RegressedFeatureLoss', 'student_channels': [1]}]}},
            'train.distill_opt.0.student_channels: RegressedFeatureLoss has no such argument',
        ),
        (
            {'model_type': 'CLSDModel'},
            'network_teacher: CLSDModel has no teacher; leave it out, or use model_type: CSDModel or KDModel',
        ),
        (
            {'model_type': 'SupervisedModel', 'network_teacher': None},
            'train.distill_opt: SupervisedModel has no such loss; leave it out, or use model_type: KDModel',
        ),
        (
            {'train': {'hint_opt': {'type': 'HintLoss'}}},
            'train.hint_opt: KDModel has no such loss; leave it out, or use model_type: CLSDModel',
        ),
        (
            {'train': {'aux_opt': {'type': 'L1Loss'}}},
            'train.aux_opt: KDModel has no such loss; leave it out, or use model_type: CLSDModel',
        ),
    ],
)
def test_teacher_and_terms_must_fit_each_other(options, changes, text):
    whole = {**KD, 'train': dict(KD['train'])}
    for key, value in changes.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) else value
    assert told(check, options(whole)).startswith(text)


CSD = {
    'model_type': 'CSDModel',
    'network_teacher': {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'upscale': 2},
    'train': {
        'aux_opt': None,
        'contrastive_opt': None,
        'teacher_opt': {'type': 'L1Loss'},
        'contrast_opt': {'type': 'RatioOfFeaturesLoss', 'extractor': 'pixels'},
    },
}


@pytest.mark.parametrize(
    ('changes', 'text'),
    [
        ({'network_teacher': None}, 'network_teacher: missing; CSDModel needs it'),
        ({'network_teacher': {'upscale': 4}}, 'network_teacher.upscale: 4 does not match scale: 2'),
        (
            {'train': {'aux_opt': {'type': 'L1Loss'}}},
            'train.aux_opt: CSDModel has no such loss; leave it out, or use model_type: CLSDModel',
        ),
        (
            {'train': {'contrast_opt': {'type': 'RatioOfFeaturesLoss', 'num_negatives': 8}}},
            "train.contrast_opt.num_negatives: RatioOfFeaturesLoss has no such argument (did you mean 'num_negative'?)",
        ),
        (
            {'train': {'contrast_opt': {'type': 'RatioOfFeaturesLoss', 'network': {'type': 'EDSR', 'num_foot': 4}}}},
            'train.contrast_opt.network.num_foot: EDSR has no such argument',
        ),
    ],
)
def test_csd_must_have_a_teacher_and_losses_of_its_own(options, changes, text):
    check(options(CSD))
    whole = {**CSD, 'train': dict(CSD['train'])}
    for key, value in changes.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) else value
    assert told(check, options(whole)).startswith(text)


def test_testing_a_distilled_student_needs_no_teacher(options):
    check(options({'model_type': 'KDModel', 'train': None}), testing=True)


@pytest.mark.parametrize(
    ('train', 'teacher'),
    [
        ({}, {'precision': 'fp32', 'channels_last': False, 'compile': False}),
        ({'precision': 'bf16', 'compile': True}, {'precision': 'bf16', 'channels_last': False, 'compile': True}),
        (
            {'channels_last': True, 'teacher': {'precision': 'fp16', 'channels_last': False}},
            {'precision': 'fp16', 'channels_last': False, 'compile': False},
        ),
    ],
)
def test_teacher_computes_as_the_student_unless_told_otherwise(options, train, teacher):
    found = options({**KD, 'train': {**KD['train'], **train}}).train
    assert found is not None and found.teacher.as_dict() == teacher


def test_stock_basicsr_names_are_known(options):
    changes = {
        'model_type': 'SRModel',
        'network_g': {'type': 'MSRResNet', 'head_taps': None, 'head_num_block': None},
        'datasets': {'train': {'type': 'PairedImageDataset'}, 'val': {'type': 'PairedImageDataset'}},
        'train': {'aux_opt': None, 'contrastive_opt': None, 'scheduler': {'type': 'MultiStepRestartLR'}},
    }
    check(options(changes))
