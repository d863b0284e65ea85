"""Options from files and from the command line."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.messages import told
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from basicsr_clsd.config import Options, load, write_resolved
from basicsr_clsd.config.load import parse_override, parse_yaml
from basicsr_clsd.config.networks import fill_in_scale
from basicsr_clsd.errors import UserError

MINIMAL = {'name': 'run', 'scale': 2, 'network_g': {'type': 'EDSR', 'upscale': 2}}
SET = {'dataroot_gt': 'a'}
TRAIN = {
    'total_iter': 10,
    'optim_g': {'type': 'Adam', 'lr': 1e-4},
    'scheduler': {'type': 'MultiStepLR', 'milestones': [5]},
    'pixel_opt': {'type': 'L1Loss'},
}

in_one_folder = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """``write('a.yml', text or mapping)``: a file in the current folder; returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: str | Mapping[str, Any]) -> str:
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text, encoding='utf-8')
        return name

    return write


# Inheritance


def test_base_is_merged_key_by_key(write):
    write('base.yml', {**MINIMAL, 'logger': {'print_freq': 3, 'keep_states': 4}})
    options = load(write('run.yml', {'base': 'base.yml', 'name': 'other', 'logger': {'print_freq': 5}}))
    assert (options.name, options.scale) == ('other', 2)
    assert (options.logger.print_freq, options.logger.keep_states) == (5, 4)


def test_later_bases_win_and_the_file_itself_last(write):
    write('first.yml', {**MINIMAL, 'logger': {'print_freq': 1, 'keep_states': 1, 'save_checkpoint_freq': 1}})
    write('second.yml', {'logger': {'keep_states': 2, 'save_checkpoint_freq': 2}})
    run = {'base': ['first.yml', 'second.yml'], 'logger': {'save_checkpoint_freq': 3}}
    logger = load(write('run.yml', run)).logger
    assert (logger.print_freq, logger.keep_states, logger.save_checkpoint_freq) == (1, 2, 3)


def test_base_is_relative_to_its_file_and_may_have_bases(write):
    write('shared/deep/root.yml', MINIMAL)
    write('shared/middle.yml', {'base': 'deep/root.yml', 'scale': 3})
    options = load(write('runs/run.yml', {'base': '../shared/middle.yml', 'name': 'nested'}))
    assert (options.name, options.scale, options.network_g.type) == ('nested', 3, 'EDSR')


def test_one_file_may_be_a_base_twice(write):
    write('root.yml', MINIMAL)
    write('left.yml', {'base': 'root.yml', 'scale': 3})
    write('right.yml', {'base': 'root.yml'})
    assert load(write('run.yml', {'base': ['left.yml', 'right.yml']})).scale == 2


def test_base_that_leads_back_is_an_error(write):
    write('other.yml', {'base': 'run.yml'})
    text = told(load, write('run.yml', {**MINIMAL, 'base': 'other.yml'}))
    assert 'run.yml' in text and "'base' leads back" in text


def test_base_that_is_not_there_is_named(write):
    assert 'gone.yml: cannot be read' in told(load, write('run.yml', {**MINIMAL, 'base': 'gone.yml'}))


@pytest.mark.parametrize('base', [5, ['base.yml', 5], [['base.yml']]])
def test_base_must_be_file_names(write, base):
    write('base.yml', MINIMAL)
    text = told(load, write('run.yml', {'base': base}))
    assert 'run.yml' in text and "'base' is a file name or a list of them" in text


def test_changed_type_starts_a_section_anew(write):
    write('base.yml', {**MINIMAL, 'network_g': {'type': 'EDSR', 'num_feat': 8, 'upscale': 2}})
    run = {'base': 'base.yml', 'network_g': {'type': 'RCAN', 'num_group': 2}}
    assert load(write('run.yml', run)).network_g.as_dict() == {'type': 'RCAN', 'num_group': 2, 'upscale': 2}


def test_repeated_type_keeps_a_section(write):
    write('base.yml', {**MINIMAL, 'network_g': {'type': 'EDSR', 'num_feat': 8}})
    run = {'base': 'base.yml', 'network_g': {'type': 'EDSR', 'num_block': 2}}
    assert load(write('run.yml', run)).network_g.as_dict() == {
        'type': 'EDSR',
        'num_feat': 8,
        'num_block': 2,
        'upscale': 2,
    }


def test_null_takes_a_key_or_a_section_back_to_its_default(write):
    sets = {'val_1': {'dataroot_gt': 'a'}, 'val_2': {'dataroot_gt': 'b'}}
    write('base.yml', {**MINIMAL, 'datasets': sets, 'logger': {'keep_states': 9}, 'val': {'save_img': True}})
    run = {'base': 'base.yml', 'datasets': {'val_2': None}, 'logger': {'keep_states': None}, 'val': None}
    options = load(write('run.yml', run))
    assert list(options.datasets) == ['val_1']
    assert options.logger.keep_states == 2
    assert options.val.save_img is False


def test_section_after_null_starts_anew(write):
    write('base.yml', {**MINIMAL, 'network_g': {'type': 'EDSR', 'num_feat': 8}})
    write('none.yml', 'network_g: ~')
    run = {'base': ['base.yml', 'none.yml'], 'network_g': {'type': 'EDSR'}}
    assert load(write('run.yml', run)).network_g.as_dict() == {'type': 'EDSR', 'upscale': 2}


trees = st.recursive(
    st.integers(0, 9),
    lambda below: st.dictionaries(st.sampled_from('abc'), below, min_size=1, max_size=3),
    max_leaves=8,
)
layers = st.lists(st.dictionaries(st.sampled_from('abc'), trees, min_size=1, max_size=3), min_size=2, max_size=4)


def leaves(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    found = {}
    for key, value in tree.items():
        found |= leaves(value, (*above, key)) if isinstance(value, dict) else {(*above, key): value}
    return found


@given(layers)
@in_one_folder
def test_merging_is_the_last_word_on_each_leaf(write, layers):
    expected: dict[tuple[str, ...], int] = {}
    for layer in layers:
        for keys, value in leaves(layer).items():
            # A leaf ends every longer path through it and every shorter one to it.
            expected = {k: v for k, v in expected.items() if k[: len(keys)] != keys and keys[: len(k)] != k}
            expected[keys] = value
    names = [write(f'{number}.yml', {'network_g': layer}) for number, layer in enumerate(layers)]
    write('root.yml', MINIMAL | {'network_g': {'type': 'EDSR'}})
    options = load(write('run.yml', {'base': ['root.yml', *names]}))
    assert leaves(options.network_g.arguments()) == expected | {('upscale',): 2}


# Values


@pytest.mark.parametrize('text', ['1e-4', '1E-4', '+1e-4', '1.e-4', '1.0e-4', '0.0001'])
def test_exponents_are_numbers_everywhere(write, text):
    lines = json.dumps({**MINIMAL, 'train': {**TRAIN, 'optim_g': {'type': 'Adam', 'lr': 'LR', 'betas': ['LR', 0.9]}}})
    options = load(write('run.yml', lines.replace('"LR"', text)))
    assert options.train is not None
    assert options.train.optim_g.arguments() == {'lr': 1e-4, 'betas': [1e-4, 0.9]}
    options = load('run.yml', [f'train:optim_g:lr={text}0', f'train:pixel_opt:loss_weight=-{text.lstrip("+")}'])
    assert options.train is not None and options.train.pixel_opt is not None
    assert isinstance(options.train.optim_g.arguments()['lr'], float)
    assert options.train.pixel_opt.loss_weight == -1e-4


def test_names_with_leading_zeros_are_texts(write):
    sets = 'datasets: {val: {dataroot_gt: a, names: [0001, 0701, 0801, 12, img1]}}'
    options = load(write('run.yml', f'{json.dumps(MINIMAL)[:-1]}, {sets}}}'))
    assert options.datasets['val'].names == ['0001', '0701', '0801', '12', 'img1']


def test_names_that_are_numbers_are_texts(write):
    assert load(write('run.yml', {**MINIMAL, 'name': 12})).name == '12'


# Faults in a file


def test_key_given_twice_is_an_error_with_its_line(write):
    text = told(load, write('run.yml', 'name: a\nscale: 2\nlogger:\n  print_freq: 1\n  print_freq: 2\n'))
    assert text.endswith("run.yml, line 4: not valid YAML: the key 'print_freq' is given twice")


@pytest.mark.parametrize(
    ('content', 'line'),
    [
        ('name: a\nscale: [2\n', 3),
        ('name: a\n\tscale: 2\n', 2),
        ('name: "a\n', 2),
        ('name: a\nscale: *two\n', 2),
        ('name: a\n---\nname: b\n', 2),
        ('name: a\nscale: 2: 3\n', 2),
        ('a:\n  b: &b\n    c: *b\n', 2),
        ('? [1, 2]\n: 3\n', 1),
        ('!!map [1, 2]\n', 1),
    ],
)
def test_broken_yaml_is_told_with_its_line(write, content, line):
    assert f'run.yml, line {line}: not valid YAML: ' in told(load, write('run.yml', content))


@pytest.mark.parametrize(
    'content', ['name: 2024-13-45', 'scale: !!int two', 'scale: !!bool two', 'scale: !!timestamp two', '[' * 1500]
)
def test_yaml_that_pyyaml_itself_stumbles_over(write, content):
    assert 'run.yml: cannot be read as an options file: ' in told(load, write('run.yml', content))


@pytest.mark.parametrize(('content', 'kind'), [('', 'empty'), ('- 1', 'a list'), ('text', 'a str')])
def test_file_must_be_a_mapping(write, content, kind):
    assert told(load, write('run.yml', content)).endswith(f'must be a mapping of keys, this one is {kind}')


def test_unreadable_files_are_named(write, tmp_path):
    assert 'gone.yml: cannot be read as an options file: No such file' in told(load, tmp_path / 'gone.yml')
    assert f'{tmp_path}: cannot be read as an options file: Is a directory' in told(load, tmp_path)
    Path('binary.yml').write_bytes(b'name: \xff\xfe')
    assert "binary.yml: cannot be read as an options file: 'utf-8' codec" in told(load, 'binary.yml')
    Path('zero.yml').write_bytes(b'name: \x00')
    assert 'zero.yml: cannot be read as an options file: ' in told(load, 'zero.yml')


@pytest.mark.parametrize(
    ('changes', 'line'),
    [
        ({'trian': TRAIN}, "trian: unknown key (did you mean 'train'?)"),
        ({'train': {**TRAIN, 'totl_iter': 5}}, "train.totl_iter: unknown key (did you mean 'total_iter'?)"),
        ({'train': {**TRAIN, 'optim_gg': 5}}, "train.optim_gg: unknown key (did you mean 'optim_g'?)"),
        ({'val': {'val_frq': 5}}, "val.val_frq: unknown key (did you mean 'val_freq'?)"),
        ({'val': {'best': {'metrc': 'psnr'}}}, "val.best.metrc: unknown key (did you mean 'metric'?)"),
        ({'datasets': {'train': {**SET, 'gtsize': 8}}}, "datasets.train.gtsize: unknown key (did you mean 'gt_size'?)"),
        ({'path': {'zzz': 'a'}}, 'path.zzz: unknown key'),
        ({'datasets': {'val': {'dataroot_lq': 'a'}}}, 'datasets.val.dataroot_gt: missing'),
        ({'network_g': {'num_feat': 8}}, 'network_g.type: missing'),
        ({'scale': 'two'}, "scale: input should be a valid integer, unable to parse string as an integer, not 'two'"),
        ({'scale': 0}, 'scale: input should be greater than or equal to 1, not 0'),
        ({'scale': 2.5}, 'scale: input should be a valid integer'),
        ({'name': ['a']}, "name: input should be a valid string, not ['a']"),
        ({'train': 5}, 'train: must be a section of keys, not 5'),
        ({'datasets': {'train': 'a'}}, "datasets.train: must be a section of keys, not 'a'"),
        ({'datasets': ['a']}, "datasets: must be a section of keys, not ['a']"),
        ({'num_gpu': -1}, "num_gpu: must be 'auto', 0 or a number of GPUs, not -1"),
        ({'num_gpu': 'all'}, "num_gpu: must be 'auto', 0 or a number of GPUs, not 'all'"),
        (
            {'train': {**TRAIN, 'compile': 'fast'}},
            'train.compile: must be true, false or one of default, reduce-overhead',
        ),
        ({'manual_seed': -1}, 'manual_seed: input should be greater than or equal to 0, not -1'),
        ({'manual_seed': 2**63}, 'manual_seed: input should be less than'),
        ({'val': {'save_img': 5}}, 'val.save_img: input should be a valid boolean'),
        ({'val': {'metrics': {'psnr': {'type': 'x', 'better': 'more'}}}}, 'val.metrics.psnr.better: input should be'),
        ({'train': {**TRAIN, 'ema_decay': 1}}, 'train.ema_decay: input should be less than 1, not 1'),
        ({'train': {**TRAIN, 'pixel_opt': {'type': 'a', 'loss_weight': 'b'}}}, 'train.pixel_opt.loss_weight: input'),
        ({'datasets': {'val': {**SET, 'io_backend': {'type': 'petrel'}}}}, 'datasets.val.io_backend.type: input'),
        ({5: 6}, '5: keys should be strings, not 5'),
    ],
)
def test_faults_name_the_file_that_holds_them_and_the_key(write, changes, line):
    """Also when that file is a base: the one that has the key is named, and no other."""
    assert told(load, write('run.yml', {**MINIMAL, **changes})).startswith(f'run.yml: {line}')
    write('other.yml', {'logger': {'print_freq': 7}})
    top = {'base': ['other.yml', 'run.yml'], 'model_type': 'SRModel'}
    assert told(load, write('top.yml', top)).startswith(f'run.yml: {line}')


def test_unknown_key_is_told_before_the_missing_one_that_it_was_meant_for(write):
    train = {key: value for key, value in TRAIN.items() if key != 'total_iter'}
    text = told(load, write('run.yml', {**MINIMAL, 'train': {**train, 'totl_iter': 5}}))
    assert text == "run.yml: train.totl_iter: unknown key (did you mean 'total_iter'?)"


def test_file_of_a_fault_is_the_last_that_set_the_key(write):
    write('base.yml', {**MINIMAL, 'logger': {'print_freq': 5}})
    assert told(load, write('run.yml', {'base': 'base.yml', 'logger': {'print_freq': 0}})).startswith('run.yml: ')
    write('base.yml', {**MINIMAL, 'logger': {'print_freq': 0}})
    assert told(load, write('run.yml', {'base': 'base.yml', 'logger': {'keep_states': 1}})).startswith('base.yml: ')


@pytest.mark.parametrize('name', ['.', '..', '/tmp/x', 'a/b', '  ', '../x', 'a' * 201, 'nul\0'])
def test_name_of_a_run_must_name_one_folder(write, name):
    assert 'run.yml: name: must be fit to name a folder' in told(load, write('run.yml', {**MINIMAL, 'name': name}))


# The command line


def overridden(write: Any, *overrides: str) -> Options:
    return load(write('run.yml', {**MINIMAL, 'train': TRAIN}), overrides)


def test_overrides_reach_nested_keys_and_win_in_order(write):
    options = overridden(write, 'name=a', 'train:optim_g:lr=1e-3', 'name=b', 'val:metrics:psnr:type=calculate_psnr')
    assert options.train is not None
    assert (options.name, options.train.optim_g.arguments()['lr']) == ('b', 1e-3)
    assert list(options.val.metrics) == ['psnr']


def test_override_may_hold_equal_signs_lists_and_sections(write):
    options = overridden(
        write,
        'path:pretrain_network_g=a=b=c.pth',
        'train:scheduler:milestones=[2,3]',
        'logger={print_freq: 7, keep_states: 1}',
        'train:warmup_iter=-1',
        'network_g:shift=-0.5',
        'network_g:text="12"',
    )
    assert options.path.pretrain_network_g == 'a=b=c.pth'
    assert options.train is not None
    assert options.train.scheduler.arguments() == {'milestones': [2, 3]}
    assert options.train.warmup_iter == -1
    assert (options.logger.print_freq, options.logger.keep_states) == (7, 1)
    assert options.network_g.arguments() == {'upscale': 2, 'shift': -0.5, 'text': '12'}


def test_override_may_be_null_and_change_a_type(write):
    options = overridden(write, 'train=~', 'network_g={type: RCAN}', 'path:param_key_g=~')
    assert options.train is None
    assert options.network_g.as_dict() == {'type': 'RCAN', 'upscale': 2}
    assert options.path.param_key_g is None


@pytest.mark.parametrize('key', ['networks', 'datasets:val', 'datasets:val:filename_tmpl', 'path:pretrain_network_g'])
def test_home_folder_where_none_belongs_is_what_a_shell_makes_of_a_tilde(write, key, monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    text = f'{key}=/home/me'
    line = f'--force_yml {text}: the shell has put your home folder in place of ~; write null'
    assert told(load, write('run.yml', MINIMAL), [text]) == line
    assert load('run.yml', ['path:experiments_root=/home/me']).path.experiments_root == '/home/me'


def test_options_file_of_an_editor_that_puts_a_byte_order_mark(write):
    Path(write('run.yml', '')).write_bytes(yaml.safe_dump(MINIMAL).encode('utf-8-sig'))
    assert load('run.yml').scale == 2


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec='utf-8', exclude_categories=['C', 'Z'], exclude_characters='\x85')),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text('abc=: ', min_size=1), below, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.text('abc_', min_size=1), min_size=1, max_size=4), json_values)
@in_one_folder
def test_override_value_is_any_json(keys, value):
    nested = parse_override(f'{":".join(keys)}={json.dumps(value, ensure_ascii=False)}')
    for key in keys:
        assert list(nested) == [key]
        nested = nested[key]
    assert nested == value and type(nested) is type(value)


@pytest.mark.parametrize(
    ('override', 'start'),
    [
        ('train:totl_iter=8', "--force_yml: train.totl_iter: unknown key (did you mean 'total_iter'?)"),
        ('trian:total_iter=8', "--force_yml: trian: unknown key (did you mean 'train'?)"),
        ('train:total_iter=eight', '--force_yml: train.total_iter: input should be a valid integer'),
        ('train:total_iter=', '--force_yml: train.total_iter: missing'),
        ('train=8', '--force_yml: train: must be a section of keys, not 8'),
        ('base=other.yml', '--force_yml: base: unknown key'),
        ('train', '--force_yml train: expected key:key=value'),
        ('=8', '--force_yml =8: expected key:key=value'),
        ('train:=8', '--force_yml train:=8: expected key:key=value'),
        (':=8', '--force_yml :=8: expected key:key=value'),
        ('scale=[2', '--force_yml scale=[2: the value is not valid YAML'),
        ('scale=!!int two', '--force_yml scale=!!int two: the value is not valid YAML'),
        ('name=2024-13-45', '--force_yml name=2024-13-45: the value is not valid YAML'),
    ],
)
def test_faults_of_overrides_name_the_option(write, override, start):
    path = write('run.yml', {**MINIMAL, 'train': TRAIN})
    assert told(load, path, [override]).startswith(start)


# Nothing is executed


@pytest.mark.parametrize(
    'value',
    [
        '!!python/object/apply:os.system ["touch executed"]',
        '!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path [executed]]',
        '!!python/object/new:subprocess.Popen [["touch", "executed"]]',
        '!!python/name:os.system',
        '!!python/module:os',
        '!!python/tuple [1, 2]',
    ],
)
def test_tags_of_python_objects_are_refused(write, tmp_path, value):
    line = told(load, write('run.yml', f'{yaml.safe_dump(MINIMAL)}logger: {value}\n'))
    assert 'could not determine a constructor for the tag' in line
    assert 'the value is not valid YAML' in told(load, write('plain.yml', MINIMAL), [f'logger={value}'])
    assert not (tmp_path / 'executed').exists()


@pytest.mark.parametrize(
    'code', ['__import__("os").system("touch executed")', 'open("executed", "w")', '[open("executed", "w")]']
)
def test_values_that_look_like_code_are_texts(write, tmp_path, code):
    value = overridden(write, f"network_g:rgb_mean='{code}'").network_g.arguments()['rgb_mean']
    assert value == code
    overridden(write, f'network_g:rgb_mean={code.replace(", ", "; ")}')
    assert '--force_yml' in told(load, 'run.yml', [f'{code}=1'])
    assert not (tmp_path / 'executed').exists()


# The resolved file

texts = st.text(st.characters(codec='utf-8', exclude_categories=['Cs']), min_size=1)
numbers_as_texts = st.sampled_from(['1e-4', '12e03', '0801', '0701', '12', '-1', '1_0', '0x1f', '1:30', '~', 'null'])
words = texts | numbers_as_texts | st.sampled_from(['yes', '2024-01-01', '=', '<<', '', ' a', '- a', '{}', '# a', '*a'])
arguments = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(words, below, max_size=2),
    max_leaves=4,
)
names = (numbers_as_texts | texts).filter(lambda text: text.strip('. ') and '/' not in text and '\0' not in text)
option_values = st.fixed_dictionaries(
    {
        'name': names.filter(lambda text: text.strip() and len(text.encode()) <= 200),
        'scale': st.integers(1, 16),
        'network_g': st.dictionaries(st.text('abcdefgh', min_size=1), arguments, max_size=4).map(
            lambda values: {**values, 'type': 'EDSR'}
        ),
    },
    optional={
        'manual_seed': st.integers(0, 2**63 - 1),
        'num_gpu': st.just('auto') | st.integers(0, 8),
        'path': st.fixed_dictionaries(
            {'param_key_g': st.none() | words}, optional={'pretrain_network_g': words, 'strict_load_g': st.booleans()}
        ),
        'val': st.fixed_dictionaries({}, optional={'val_freq': st.integers(1, 99), 'suffix': words}),
        'logger': st.fixed_dictionaries({}, optional={'print_freq': st.integers(1, 99)}),
        'train': st.fixed_dictionaries(
            {
                'total_iter': st.integers(1, 10**9),
                'optim_g': arguments.map(lambda value: {'type': 'Adam', 'lr': value}),
                'scheduler': arguments.map(lambda value: {'type': 'MultiStepLR', 'milestones': value}),
            },
            optional={
                'ema_decay': st.floats(0, 1, exclude_max=True),
                'pixel_range': st.floats(0, exclude_min=True, allow_infinity=False),
                'pixel_opt': st.floats(allow_nan=False).map(lambda w: {'type': 'L1Loss', 'loss_weight': w}),
            },
        ),
        'datasets': st.dictionaries(
            st.sampled_from(['train', 'val_1', 'test_2']),
            st.fixed_dictionaries(
                {'dataroot_gt': words},
                optional={
                    'names': st.lists(words),
                    'mean': st.lists(st.floats(allow_nan=False)),
                    'color': st.just('y'),
                },
            ),
        ),
    },
)


@given(option_values)
@in_one_folder
def test_resolved_file_loads_to_the_same_options(tmp_path, values):
    options = Options.model_validate(values)
    write_resolved(options, tmp_path / 'resolved.yml')
    fill_in_scale(options)
    assert load(tmp_path / 'resolved.yml') == options


def test_resolved_file_holds_defaults_and_overrides(write, tmp_path):
    write('base.yml', {**MINIMAL, 'train': TRAIN})
    path = write('run.yml', {'base': 'base.yml', 'model_type': 'CLSDModel', 'path': {'param_key_g': None}})
    options = load(path, ['train:optim_g:lr=1e-5'])
    write_resolved(options, tmp_path / 'resolved.yml')
    resolved = parse_yaml((tmp_path / 'resolved.yml').read_text(encoding='utf-8'))
    assert 'base' not in resolved
    assert resolved['train']['optim_g'] == {'type': 'Adam', 'lr': 1e-5}
    assert resolved['train']['pixel_range'] == 255
    assert resolved['path']['param_key_g'] is None
    assert resolved['logger']['keep_states'] == 2
    assert resolved['val']['metrics']['psnr'] == {
        'type': 'calculate_psnr',
        'better': 'higher',
        'crop_border': 2,
        'test_y_channel': True,
    }
    assert load(tmp_path / 'resolved.yml') == options


# What follows from other keys


def test_pixel_range_of_basicsrs_models_is_1(write):
    for model, expected in [('SRModel', 1), ('SwinIRModel', 1), ('SupervisedModel', 255), ('CLSDModel', 255)]:
        options = overridden(write, f'model_type={model}')
        assert options.train is not None and options.train.pixel_range == expected
    options = overridden(write, 'model_type=SRModel', 'train:pixel_range=255')
    assert options.train is not None and options.train.pixel_range == 255


def test_sets_are_named_after_their_section_and_found_by_phase(write):
    sets: dict[str, Any] = {key: {'dataroot_gt': 'a'} for key in ('test_1', 'train', 'val', 'val_2', 'val_3')}
    sets['val_3']['name'] = 'Set5'
    options = load(write('run.yml', {**MINIMAL, 'datasets': sets}))
    assert [section.name for _, section in options.sets('val')] == ['val', 'val_2', 'Set5']
    assert [key for key, _ in options.sets('val', 'test')] == ['test_1', 'val', 'val_2', 'val_3']


def test_sections_can_be_read_like_basicsrs_dicts(write):
    options = overridden(write, 'network_g:num_feat=8')
    assert options['train']['total_iter'] == 10
    assert options['network_g']['num_feat'] == 8
    assert 'pretrain_network_g' not in options['path'] and options['path'].get('pretrain_network_g', 1) == 1
    with pytest.raises(KeyError):
        options['path']['pretrain_network_g']


def test_former_names_are_accepted_and_answered_with_the_new_ones(tmp_path, tiny_options, write_yaml, caplog):
    opt = write_yaml(tmp_path / 'old.yml', tiny_options(tmp_path, {'train': {'accumulate': 2, 'skip_limit': 3}}))
    caplog.set_level('WARNING', 'basicsr')
    logging.getLogger('basicsr').propagate = True
    train = load(opt, ['train:contrastive_opt:across_accumulation=false']).train
    assert train is not None and (train.accum_iter, train.max_skipped_steps) == (2, 3)
    assert train.contrastive_opt is not None and 'across_accumulation' not in train.contrastive_opt.keys()
    told = {record.getMessage() for record in caplog.records}
    assert told == {
        'options: accumulate is now called accum_iter',
        'options: skip_limit is now called max_skipped_steps',
    }
    with pytest.raises(UserError, match='accumulate is the former name of accum_iter; give one of them'):
        load(opt, ['train:accum_iter=2'])


def test_recorded_options_are_read_under_their_former_names_without_a_word(tmp_path, tiny_options, caplog):
    recorded = tiny_options(tmp_path, {'train': {'accumulate': 2, 'skip_limit': 3}}) | {'network_teacher': None}
    caplog.set_level('WARNING', 'basicsr')
    logging.getLogger('basicsr').propagate = True
    options = Options.recorded(recorded)
    assert options.train is not None and (options.train.accum_iter, options.train.max_skipped_steps) == (2, 3)
    assert not caplog.records


def test_scale_is_given_once(tmp_path, write_yaml):
    rcan = {'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3}
    within = {'type': 'WithHeads', 'student': rcan, 'taps': {'evenly': 1}}
    for network, where in (({'type': 'EDSR'}, ()), (rcan, ()), (within, ('student',))):
        options = load(write_yaml(tmp_path / 'opt.yml', {'name': 'a', 'scale': 3, 'network_g': network}))
        section = options.network_g.as_dict()
        for key in where:
            section = section[key]
        assert section['upscale'] == 3
    kept = {'name': 'a', 'scale': 3, 'network_g': {'type': 'EDSR', 'upscale': 2}}
    assert load(write_yaml(tmp_path / 'opt.yml', kept)).network_g['upscale'] == 2  # which `check` refuses
