"""What is known of the training that a checkpoint comes from."""

import pytest
import yaml

from basicsr_clsd.networks.origin import training_of


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / 'CLSD_seed1'
    (folder / 'models').mkdir(parents=True)
    (folder / 'training_states').mkdir()
    options = {'name': 'CLSD_seed1', 'manual_seed': 1, 'network_g': {'type': 'EDSRHeads', 'head_num_block': 5}}
    (folder / 'CLSD_seed1.yml').write_text(yaml.safe_dump(options), encoding='utf-8')
    return folder, options


@pytest.mark.parametrize(
    ('file', 'iteration'),
    [('net_g_5000.pth', 5000), ('net_g_latest.pth', 12000), ('net_g_best.pth', None), ('other.pth', None)],
)
def test_run_of_a_checkpoint(experiment, file, iteration):
    folder, options = experiment
    for number in (9000, 12000):
        (folder / 'training_states' / f'{number}.state').touch()
    assert training_of(folder / 'models' / file) == {
        'name': 'CLSD_seed1', 'manual_seed': 1, 'iteration': iteration, 'options': options
    }  # fmt: skip


def test_latest_without_states(experiment):
    run = training_of(experiment[0] / 'models' / 'net_g_latest.pth')
    assert run is not None and run['iteration'] is None


def test_a_checkpoint_from_elsewhere(experiment, tmp_path):
    folder, _ = experiment
    assert training_of(tmp_path / 'net_g_5000.pth') is None
    assert training_of(folder / 'net_g_5000.pth') is None
    (folder / 'CLSD_seed1.yml').write_text('[', encoding='utf-8')
    assert training_of(folder / 'models' / 'net_g_5000.pth') is None
