"""A set of trainings x seeds, each trained and then tested: what there is to do, and what is done already."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from basicsr_clsd.config import Options, check, load
from basicsr_clsd.config.load import read_yaml
from basicsr_clsd.config.paths import PACKAGE, output_root
from basicsr_clsd.config.schema import FileName
from basicsr_clsd.errors import UserError
from basicsr_clsd.evaluation.results import FILE


class _Known(BaseModel):
    model_config = ConfigDict(extra='forbid')


class _Run(_Known):
    opt: str = Field(description='options file, relative to this one')
    name: FileName | None = Field(default=None, description="name of the run, without seed; default the file's")
    force_yml: list[str] = Field(default=[], description='overrides, as on the command line')


class AblationSet(_Known):
    """The file ``options/ablation/NAME.yml``."""

    name: FileName = Field(description='name of the folder of tables and report, in the folder of all tests')
    test: str = Field(description='options file of the test, relative to this one')
    baseline: str | None = Field(default=None, description='what differences are to; default EDSR')
    runs: list[_Run] = Field(min_length=1)


@dataclass
class Job:
    """One training with its test.

    Args:
        name: Of the run, with its seed.
        train: Arguments of ``train.py``.
        options: What they amount to.
        test: Arguments of ``test.py``.
        test_options: What these amount to.
    """

    name: str
    train: list[str]
    options: Options
    test: list[str]
    test_options: Options

    @property
    def experiment(self) -> Path:
        """Folder of the training."""
        return output_root(self.options.path.experiments_root, 'experiments') / self.name

    @property
    def weights(self) -> Path:
        """The student when the training has ended."""
        return self.experiment / 'models' / 'net_g_latest.pth'

    @property
    def results(self) -> Path:
        """Folder of the test."""
        return output_root(self.test_options.path.results_root, 'results') / self.name

    def is_trained(self) -> bool:
        """Whether the training has ended, with these very options."""
        assert self.options.train is not None
        last = self.experiment / 'models' / f'net_g_{self.options.train.total_iter}.pth'
        return last.is_file() and self.weights.is_file() and _is_of(self.experiment, self.options)

    def is_tested(self) -> bool:
        """Whether these weights have been tested, with these very options."""
        file = self.results / FILE
        return (
            file.is_file()
            and self.weights.is_file()
            and file.stat().st_mtime >= self.weights.stat().st_mtime
            and _is_of(self.results, self.test_options)
        )

    def commands(self) -> list[tuple[str, list[str]]]:
        """What is left to do: ``(what, command)``."""
        left = []
        if not self.is_trained():
            left.append(('training', [sys.executable, str(PACKAGE / 'train.py'), *self.train]))
        if left or not self.is_tested():
            left.append(('test', [sys.executable, str(PACKAGE / 'test.py'), *self.test]))
        return left


def _is_of(folder: Path, options: Options) -> bool:
    """Whether the resolved options in a run's folder are these."""
    try:
        return load(folder / f'{folder.name}.yml') == options
    except UserError:
        return False


def read_set(file: Path) -> AblationSet:
    """Read the file of a set; a :class:`UserError` names it and the key that is wrong."""
    try:
        return AblationSet.model_validate(read_yaml(file))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = '.'.join(map(str, problem['loc']))
        raise UserError(f'{file}: {where}: {problem["msg"].removeprefix("Value error, ")}') from error


def plan(file: Path, seeds: Sequence[int], overrides: Sequence[str] = (), for_tests: Sequence[str] = ()) -> list[Job]:
    """What a set amounts to: for each seed all of its runs. Everything is checked, and nothing touched.

    Args:
        file: Of the set.
        seeds: For each run; the run's name gets it.
        overrides: For all trainings, ``a:b=value``.
        for_tests: For all tests.

    Raises:
        UserError: A file or key is wrong, or two runs have one name.
    """
    chosen = read_set(file)
    jobs = []
    for seed in seeds:
        for run in chosen.runs:
            opt = str(file.parent / run.opt)
            name = f'{run.name or load(opt, [*run.force_yml, *overrides]).name}_seed{seed}'
            forced = [*run.force_yml, *overrides, f'name={name}', f'manual_seed={seed}']
            options = load(opt, forced)
            if options.train is None:
                raise UserError(f'{opt}: train: missing; a run of a set is a training')
            check(options)
            job = Job(name, ['-opt', opt, '--auto_resume', '--force_yml', *forced], options, [], options)
            test = str(file.parent / chosen.test)
            tested = [f'path:pretrain_network_g={job.weights}', 'val:save_img=true', *for_tests, f'name={name}']
            job.test, job.test_options = ['-opt', test, '--force_yml', *tested], load(test, tested)
            job.test_options.train = None
            check(job.test_options, testing=True)
            jobs.append(job)
    names = [*(job.name for job in jobs), chosen.name]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f'{file}: two runs, or the set and a run, are called {name}')
    return jobs
