import logging

import pytest
import torch

from basicsr_clsd.config import Options
from basicsr_clsd.engine.build import build_dataset, build_model
from basicsr_clsd.engine.validation import Validator
from basicsr_clsd.runtime.distributed import Processes


@pytest.fixture
def validation(tiny_options, tmp_path, make_pairs):
    """A validator and its model."""
    make_pairs(tmp_path / 'val', count=2, height=192, width=160)
    values = tiny_options(tmp_path, {'val': {'heads': True}})
    options = Options.model_validate(values)
    (section,) = (section for _, section in options.sets('val'))
    model = build_model(options)
    return Validator(options, {'set': build_dataset(options, section, 'val')}, Processes(), tmp_path), model


def test_each_validation_is_of_the_model_it_is_given(validation):
    validator, model = validation
    first = validator.run(model, 1)
    torch.manual_seed(1)
    other = build_model(model.options)
    assert validator.run(other, 1) != first
    assert validator.run(model, 1) == first


@pytest.mark.parametrize('heads', [False, True])
def test_validation_takes_smaller_tiles_when_memory_runs_out(validation, heads, monkeypatch, caplog):
    validator, model = validation
    validator.options.val.heads = heads
    whole = validator.run(model, 1)
    assert any('head' in name for name in whole['set']) is heads
    forward = model.net_g.forward

    def small(lq, **arguments):
        if lq.shape[2] * lq.shape[3] > 5000:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return forward(lq, **arguments)

    monkeypatch.setattr(model.net_g, 'forward', small)
    with caplog.at_level(logging.WARNING, 'basicsr'):
        in_tiles = validator.run(model, 2)
        assert 'memory ran out; going on in tiles of' in caplog.text
        caplog.clear()
        assert validator.run(model, 3) == in_tiles and 'memory ran out' not in caplog.text
    assert in_tiles['set'] == pytest.approx(whole['set'], abs=1e-3)
