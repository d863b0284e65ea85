"""Mistakes of a user, through the command lines: one line that names the fault, exit code 2, nothing touched."""

import os
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basicsr_clsd.cli import run
from basicsr_clsd.errors import NonFiniteLossError, UserError
from basicsr_clsd.networks.weights import load_weights

Overrides = list[str]
TEST = 'test'
TRAIN = 'train'


class Place:
    """A folder with data, options, weights, and an earlier run, test and curves of the same name."""

    def __init__(self, root: Path, run_command: Callable[..., Any]) -> None:
        self.root, self.run_command = root, run_command
        self.opt = root / 'tiny.yml'

    def files(self) -> dict[str, bytes | None]:
        """Everything below, with its content; folders have none."""
        paths = self.root.rglob('*')
        return {str(path.relative_to(self.root)): path.read_bytes() if path.is_file() else None for path in paths}

    def refuse(self, command: str, *arguments: str, opt: Path | None = None, **how: Any) -> str:
        """Run a command that must end as a user's mistake does; returns its one line."""
        before = self.files()
        ended = self.run_command(command, '-opt', opt or self.opt, *arguments, cwd=self.root, **how)
        assert ended.code == 2, (ended.out, ended.err)
        lines = ended.err.splitlines()
        assert len(lines) == 1, ended.err
        assert lines[0].startswith('error: ')
        assert 'Traceback' not in ended.out
        assert self.files() == before
        return lines[0].removeprefix('error: ')

    def options(self) -> dict[str, Any]:
        return yaml.safe_load(self.opt.read_text(encoding='utf-8'))

    def write(self, options: Any) -> None:
        text = options if isinstance(options, str) else yaml.safe_dump(options)
        self.opt.write_text(text, encoding='utf-8')


@pytest.fixture(scope='module')
def template(tmp_path_factory, make_pairs, tiny_options, write_yaml) -> Path:
    root = tmp_path_factory.mktemp('place')
    for name in ('train', 'val'):
        make_pairs(root / name, count=3, height=32, width=40)
    for folder in ('experiments', 'results', 'tb_logger'):
        (root / folder / 'tiny' / 'models').mkdir(parents=True)
        (root / folder / 'tiny' / 'models' / 'net_g_8.pth').write_bytes(b'of weeks')
    write_yaml(root / 'tiny.yml', tiny_options(Path('.'), {'path': {'pretrain_network_g': 'weights.pth'}}))
    from basicsr_clsd.archs import EDSRHeads  # noqa: PLC0415

    torch.manual_seed(0)
    network = EDSRHeads(num_feat=8, num_block=2, upscale=2, head_taps=[1], head_num_block=1)
    torch.save({'params': dict(network.student.state_dict())}, root / 'weights.pth')
    return root


@pytest.fixture
def place(template, tmp_path, run_command) -> Place:
    root = tmp_path / 'place'
    shutil.copytree(template, root)
    return Place(root, run_command)


def test_the_place_is_in_order(place):
    """What the other tests spoil is all that is wrong with it."""
    for command in (TRAIN, TEST):
        ended = place.run_command(command, '-opt', place.opt, cwd=place.root)
        assert (ended.code, ended.err) == (0, '')
    for folder in ('experiments', 'results'):
        (archived,) = (place.root / folder).glob('tiny_archived_*')
        assert (archived / 'models' / 'net_g_8.pth').read_bytes() == b'of weeks'


# Options


@pytest.mark.parametrize(
    ('content', 'told'),
    [
        ('', 'tiny.yml: an options file must be a mapping of keys, this one is empty'),
        ('- name: tiny', 'tiny.yml: an options file must be a mapping of keys, this one is a list'),
        ('name: tiny\nscale: [2', 'tiny.yml, line 2: not valid YAML: '),
        ('name: tiny\nname: other', "tiny.yml, line 1: not valid YAML: the key 'name' is given twice"),
        ('base: tiny.yml', "tiny.yml: 'base' leads back to this file"),
        ('name: !!python/object/apply:os.system ["touch executed"]', 'tiny.yml, line 1: not valid YAML: '),
        ('name: tiny', 'tiny.yml: scale: missing'),
    ],
)
def test_options_file_that_is_none(place, content, told):
    place.write(content)
    assert told in place.refuse(TRAIN)


def test_options_file_that_cannot_be_read(place):
    told = 'cannot be read as an options file'
    gone, folder = place.root / 'gone.yml', place.root / 'train'
    assert place.refuse(TRAIN, opt=gone) == f'{gone}: {told}: No such file or directory'
    assert place.refuse(TEST, opt=folder) == f'{folder}: {told}: Is a directory'


@pytest.mark.parametrize(
    ('override', 'told'),
    [
        ('train:totaliter=8', "--force_yml: train.totaliter: unknown key (did you mean 'total_iter'?)"),
        ('train:total_iter=many', '--force_yml: train.total_iter: input should be a valid integer'),
        ('name=../tiny', '--force_yml: name: must be fit to name a folder'),
        ('scale', '--force_yml scale: expected key:key=value'),
        ('network_g:type=EDSRHaeds', "network_g.type: unknown name 'EDSRHaeds' (did you mean 'EDSRHeads'?); there are"),
        ('network_g:num_feats=8', "network_g.num_feats: EDSRHeads has no such argument (did you mean 'num_feat'?)"),
        ('network_g:head_taps=[3]', 'head_taps must be distinct block counts from 1 to num_block=2'),
        ('network_g:upscale=3', 'network_g.upscale: 3 does not match scale: 2'),
        ('train:optim_g:lr=fast', 'train.optim_g: '),
        ('train:optim_g:type=Adamm', "train.optim_g.type: unknown name 'Adamm'"),
        ('train:pixel_opt:type=L3Loss', "train.pixel_opt.type: unknown name 'L3Loss' (did you mean 'L1Loss'?)"),
        ('train:pixel_opt:reduction=all', 'train: L1Loss cannot be built: '),
        ('train:contrastive_opt:negatives=[outer]', 'outer'),
        ('train:contrastive_opt:type=L1Loss', 'train.contrastive_opt.type: L1Loss is no contrastive loss'),
        ('val:metrics:psnr:crop_border=two', "val.metrics.psnr.crop_border: must be a number of pixels, not 'two'"),
        ('model_type=CLSD', "model_type: unknown name 'CLSD'"),
        ('datasets:train:batch_size_per_gpu=1', 'datasets.train.batch_size_per_gpu: 1 is too few: a contrastive term'),
        ('datasets:train:gt_size=15', 'datasets.train.gt_size: 15 is not a multiple of scale 2'),
        ('datasets:val_2={dataroot_gt: val/HR, name: Val}', "datasets: two sets have the name 'Val'"),
        ('num_gpu=64', 'num_gpu: 64 asked for'),
    ],
)
def test_wrong_option(place, override, told):
    assert told in place.refuse(TRAIN, '--force_yml', override)


# Data


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == 'truncated':
        path.write_bytes(content[: len(content) // 2])
    elif how == 'header cut':
        path.write_bytes(content[:20])
    elif how == 'altered':
        path.write_bytes(content[:-30] + bytes([content[-30] ^ 1]) + content[-29:])
    elif how == 'text':
        path.write_text('no image', encoding='utf-8')
    else:
        path.write_bytes(b'')


@pytest.mark.parametrize('key', ['train', 'val'])
@pytest.mark.parametrize('kind', ['gt', 'lq'])
def test_missing_and_empty_folders(place, key, kind):
    option = f'datasets:{key}:dataroot_{kind}'
    assert place.refuse(TRAIN, '--force_yml', f'{option}=nowhere') == 'nowhere: no such folder'
    (place.root / 'empty').mkdir()
    (place.root / 'empty' / 'Thumbs.db').touch()
    assert place.refuse(TRAIN, '--force_yml', f'{option}=empty') == 'empty: no images in this folder'


def test_images_without_partners(place):
    lr = place.root / 'train' / 'LR'
    (lr / 'img2.png').rename(place.root / 'img2.png')
    assert place.refuse(TRAIN) == 'train/LR: no LR image for img2.png of train/HR'
    for number in (1, 3):
        (lr / f'img{number}.png').rename(lr / f'img{number}x2.png')
    (place.root / 'img2.png').rename(lr / 'img2x2.png')
    assert place.refuse(TRAIN).endswith("img1.png and 2 more of train/HR; filename_tmpl: '{}x2' would fit")
    assert '{}{}' in place.refuse(TRAIN, '--force_yml', "datasets:train:filename_tmpl='{}{}'")


@pytest.mark.parametrize('how', ['header cut', 'text', 'empty'])
@pytest.mark.parametrize('folder', ['train/HR', 'train/LR', 'val/LR'])
def test_file_that_is_no_image(place, how, folder):
    spoil(place.root / folder / 'img2.png', how)
    told = f'{folder}/img2.png: not an image that can be decoded (broken or truncated)'
    assert place.refuse(TRAIN) == told
    if folder == 'val/LR':
        assert place.refuse(TEST) == told


@pytest.mark.parametrize('how', ['truncated', 'altered'])
def test_broken_image_is_found_before_anything_is_renamed(place, how):
    """Validation sets are decoded at the start, training sets if they are kept in memory."""
    path = place.root / 'train' / 'HR' / 'img2.png'
    whole = path.read_bytes()
    spoil(path, how)
    told = 'train/HR/img2.png: not an image that can be decoded (broken or truncated)'
    assert place.refuse(TRAIN, '--force_yml', 'datasets:train:cache_images=true') == told
    path.write_bytes(whole)
    spoil(place.root / 'val' / 'HR' / 'img2.png', how)
    for command in (TRAIN, TEST):
        assert place.refuse(command) == told.replace('train', 'val')


@pytest.mark.parametrize('workers', [0, 2])
def test_broken_image_met_in_training(place, workers):
    """The run has begun: the earlier one is aside, whole."""
    for number in range(1, 4):
        spoil(place.root / 'train' / 'HR' / f'img{number}.png', 'truncated')
    override = f'datasets:train:num_worker_per_gpu={workers}'
    ended = place.run_command(TRAIN, '-opt', place.opt, '--force_yml', override, cwd=place.root, fresh=workers > 0)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert line.startswith('error: train/HR/img')
    assert line.endswith('.png: not an image that can be decoded (broken or truncated)')
    (archived,) = (place.root / 'experiments').glob('tiny_archived_*')
    assert (archived / 'models' / 'net_g_8.pth').read_bytes() == b'of weeks'
    log = (place.root / 'experiments' / 'tiny' / 'train_tiny.log').read_text(encoding='utf-8')
    assert f'ERROR: {line.removeprefix("error: ")}' in log.splitlines()[-1]


def test_sizes_that_do_not_fit(place):
    cv2.imwrite(str(place.root / 'train' / 'LR' / 'img3.png'), np.zeros((16, 19, 3), np.uint8))
    told = 'train/HR/img3.png: 40x32 pixels are not 2 times the 19x16 of train/LR/img3.png'
    assert place.refuse(TRAIN) == told
    told = 'val/HR/img1.png: 40x32 pixels are not 3 times the 20x16 of val/LR/img1.png'
    assert place.refuse(TEST, '--force_yml', 'scale=3', 'network_g:upscale=3', 'path:strict_load_g=false') == told


def test_patch_larger_than_an_image(place):
    told = 'train/HR/img1.png: 40x32 pixels are too few for gt_size 34; leave the image out or lower gt_size'
    assert place.refuse(TRAIN, '--force_yml', 'datasets:train:gt_size=34') == told


def test_lr_images_that_cannot_be_kept(place):
    (place.root / 'file').touch()
    overrides = ['datasets:train:dataroot_lq=~', 'datasets:train:lq_cache=file/LR']
    told = 'file/LR: LR images cannot be written (Not a directory); set lq_cache to another folder'
    assert place.refuse(TRAIN, '--force_yml', *overrides) == told


# Weights and states


class Executes:
    """Runs a command when it is unpickled by a loader that lets it."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ('touch executed',)


def pickled_code(path: Path) -> None:
    torch.save({'params': Executes()}, path)


def raw_pickled_code(path: Path) -> None:
    path.write_bytes(pickle.dumps(Executes(), protocol=2))


def half_of_it(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def another_zip(path: Path) -> None:
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('readme.txt', 'no weights')


def of_another_width(path: Path) -> None:
    state = torch.load(path, weights_only=True)['params']
    torch.save({'params': {**state, 'conv_first.weight': torch.zeros(16, 3, 3, 3)}}, path)


def of_another_network(path: Path) -> None:
    torch.save({'params': {'layer.weight': torch.zeros(3)}}, path)


def without_a_key(path: Path) -> None:
    state = torch.load(path, weights_only=True)['params']
    torch.save({'params': {key: value for key, value in state.items() if key != 'conv_last.bias'}}, path)


@pytest.mark.parametrize(
    ('spoil', 'told'),
    [
        (Path.unlink, 'weights.pth: no such file'),
        (half_of_it, 'weights.pth: not a readable checkpoint'),
        (lambda path: path.write_bytes(b''), 'weights.pth: not a readable checkpoint'),
        (lambda path: path.write_text('no weights', encoding='utf-8'), 'weights.pth: not a'),
        (another_zip, 'weights.pth: not a readable checkpoint'),
        (pickled_code, 'weights.pth: not a checkpoint, or one that holds more than tensors and plain values'),
        (raw_pickled_code, 'weights.pth: not a checkpoint, or one that holds more than tensors and plain values'),
        (
            lambda path: torch.save({'params_ema': {}, 'epoch': 1}, path),
            "weights.pth: no weights under the key 'params' (path.param_key_g); it has params_ema, epoch",
        ),
        (lambda path: torch.save({}, path), "weights.pth: no weights under the key 'params'"),
        (lambda path: torch.save([1, 2], path), "weights.pth: no weights under the key 'params'"),
        (lambda path: torch.save({'params': 5}, path), "weights.pth: what is under 'params' is not a state dict"),
        (
            of_another_width,
            'weights.pth: does not fit EDSRHeads: conv_first.weight has another shape ((8, 3, 3, 3) expected, (16',
        ),
        (of_another_network, 'weights.pth: does not fit EDSRHeads: missing conv_first.weight, conv_first.bias'),
        (without_a_key, 'weights.pth: does not fit EDSRHeads: missing conv_last.bias'),
    ],
    ids=lambda value: '' if callable(value) else value[13:40],
)
def test_weights_that_are_none(place, spoil, told):
    spoil(place.root / 'weights.pth')
    for command in (TRAIN, TEST):
        assert place.refuse(command).startswith(told)
    assert not (place.root / 'executed').exists()


def test_weights_without_a_key_are_asked_for(place):
    told = 'weights.pth: no weights that are the file itself (path.param_key_g); it has params'
    assert place.refuse(TEST, '--force_yml', 'path:param_key_g=~') == told


def test_testing_needs_weights_and_a_set(place):
    assert 'path.pretrain_network_g: missing' in place.refuse(TEST, '--force_yml', 'path:pretrain_network_g=~')
    assert 'datasets: no set to test on' in place.refuse(TEST, '--force_yml', 'datasets:val=~')
    assert place.refuse(TEST, '--force_yml', 'name=bicubic').startswith("name: 'bicubic' is the other row of the table")


@pytest.mark.parametrize(
    ('spoil', 'told'),
    [
        (lambda path: None, '{path}: no such file'),
        (pickled_code, '{path}: not a checkpoint, or one that holds more than tensors and plain values'),
        (lambda path: path.write_bytes(b'no state'), '{path}: not a'),
        (lambda path: torch.save({'iter': 4}, path), '{path}: not a training state of this project'),
    ],
)
def test_states_that_are_none(place, spoil, told):
    spoil(place.root / '4.state')
    assert place.refuse(TRAIN, '--force_yml', 'path:resume_state=4.state').startswith(told.format(path='4.state'))
    states = place.root / 'experiments' / 'tiny' / 'training_states'
    states.mkdir()
    if (place.root / '4.state').exists():
        (place.root / '4.state').rename(states / '4.state')
        told = 'experiments/tiny/training_states: none of the states can be read; move the folder away to start anew'
        assert place.refuse(TRAIN, '--auto_resume').endswith(told)
    assert not (place.root / 'executed').exists()


@given(st.booleans(), st.data())
@settings(
    deadline=None, max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_weights_are_told_or_fit_and_nothing_else(tmp_path, zipped, data):
    network = torch.nn.Linear(3, 2)
    path = tmp_path / 'weights.pth'
    torch.save({'params': network.state_dict()}, path, _use_new_zipfile_serialization=zipped)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    with warnings.catch_warnings(record=True) as caught:
        try:
            load_weights(network, path, ['params'])
        except UserError as error:
            assert str(error).startswith(f'{path}: ')  # noqa: PT017
    assert not caught


# Folders to write to


@pytest.mark.parametrize(('command', 'key'), [(TRAIN, 'experiments_root'), (TRAIN, 'tb_root'), (TEST, 'results_root')])
def test_output_below_a_file(place, command, key):
    (place.root / 'file').touch()
    folder = place.root / 'file' / 'below' / 'tiny'
    told = f'{folder}: cannot be written ({place.root}/file is not a folder that can be written to)'
    assert place.refuse(command, '--force_yml', f'path:{key}=file/below') == told


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write to every folder')
@pytest.mark.parametrize(('command', 'key'), [(TRAIN, 'experiments_root'), (TEST, 'results_root')])
def test_output_that_permissions_forbid(place, command, key):
    closed = place.root / 'closed'
    closed.mkdir(mode=0o500)
    try:
        assert 'cannot be written' in place.refuse(command, '--force_yml', f'path:{key}=closed')
    finally:
        closed.chmod(0o700)


# Several processes


@pytest.mark.parametrize('command', [TRAIN, TEST])
def test_launchers_that_did_not_start_the_command_are_told(place, command):
    assert place.refuse(command, '--launcher', 'pytorch').startswith("--launcher pytorch: 'RANK' is not set")
    assert place.refuse(command, '--launcher', 'slurm').startswith("--launcher slurm: 'SLURM_NODELIST' is not set")


# How errors end a command


WORKERS = """Caught UserError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "worker.py", line 349, in _worker_loop
    data = fetcher.fetch(index)
basicsr_clsd.errors.UserError: a.png: truncated image
"""


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (UserError('a.png: truncated image'), 2, 'error: a.png: truncated image'),
        (UserError(WORKERS), 2, 'error: a.png: truncated image'),
        (UserError('a: first\nsecond line'), 2, 'error: a: first second line'),
        (OSError(28, 'No space left', 'a.pth'), 1, "error: [Errno 28] No space left: 'a.pth'"),
        (NonFiniteLossError('iteration 4: L_SR is nan'), 1, 'error: iteration 4: L_SR is nan'),
        (KeyboardInterrupt(), 130, 'error: interrupted'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_end_in_one_line_and_an_exit_code(capsys, error, code, line):
    def main(console: object) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == code
    assert capsys.readouterr() == ('', f'{line}\n')


def test_faults_of_the_program_are_not_dressed_up(capsys):
    with pytest.raises(SystemExit) as end:
        run(lambda console: 1 / 0)
    assert end.value.code == 1
    told = capsys.readouterr().err
    assert told.startswith('Traceback') and 'run(lambda console: 1 / 0)' in told and 'ZeroDivisionError' in told


# New interpreters, as a user starts them


@pytest.mark.parametrize(
    ('command', 'override', 'told'),
    [
        (TRAIN, 'datasets:train:dataroot_gt=nowhere', 'nowhere: no such folder'),
        (TEST, 'path:pretrain_network_g=gone.pth', 'gone.pth: no such file'),
    ],
)
def test_nothing_else_is_on_standard_error(place, command, override, told):
    assert place.refuse(command, '--force_yml', override, fresh=True) == told
