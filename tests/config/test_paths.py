import pytest

from basicsr_clsd.config import load
from basicsr_clsd.config.paths import SHIPPED_OPTIONS, options_file
from basicsr_clsd.errors import UserError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('name', ['small/test_x2.yml', 'options/small/test_x2.yml'])
def test_shipped_options_go_by_name(name):
    assert options_file(name) == SHIPPED_OPTIONS / 'small' / 'test_x2.yml'


def test_a_file_as_given_comes_first(tmp_path):
    (tmp_path / 'train_CLSD_x2.yml').write_text('{}')
    assert options_file('train_CLSD_x2.yml').resolve() == tmp_path / 'train_CLSD_x2.yml'


def test_base_of_a_file_elsewhere_is_a_shipped_one(tmp_path):
    (tmp_path / 'mine.yml').write_text('base: train_CLSD_x2.yml\nname: mine\n')
    options, shipped = load('mine.yml'), load('train_CLSD_x2.yml')
    assert options.name == 'mine'
    assert options.train == shipped.train


@pytest.mark.parametrize(
    ('name', 'nearest'),
    [('train_CLDS_x2.yml', 'train_CLSD_x2.yml'), ('train_teacher_x2.yml', 'small/train_teacher_x2.yml')],
)
def test_unknown_name_gets_the_nearest(name, nearest):
    with pytest.raises(UserError) as error:
        load(name)
    told = f"{name}: cannot be read as an options file: No such file or directory (did you mean '{nearest}'?)"
    assert str(error.value) == told
